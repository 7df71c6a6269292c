// Descriptors that the library needs for itself: kept at high numbers, close-on-exec, and out of the
// program's way: for the program they are not open. A program that wants one of the numbers for itself (dup2)
// gets it; ours moves.
#pragma once

#include <atomic>

namespace poly::own_fds {

// Places. Mounts have two each: their root and their control directory. So have sessions: socket and request
// memory of the front driver, which owns them; they are only noted here.
inline constexpr int kTemplate = 0, kFirstMount = 1;
inline constexpr int kMaxMounts = 64, kMaxSessions = 16;
inline constexpr int kFirstSession = kFirstMount + 2 * kMaxMounts;
inline constexpr int kPlaces = kFirstSession + 2 * kMaxSessions;

// -1: none.
int get(int place);
void set(int place, int fd);
// Closes what is there.
void reset(int place);

// Moves a descriptor out of the way, or leaves it where it is when there is no higher number to be had.
int move_high(int fd);

// No descriptor of the library's is below; cheap to ask on every close.
extern std::atomic<int> lowest;
inline bool may_hold(int fd) {
  return fd >= lowest.load(std::memory_order_relaxed);
}
bool holds(int fd);
// A duplicate of one of them at another number out of the way; -1: there is none to be had.
int duplicate(int fd);
// Before the program puts something of its own at `fd`.
void make_way(int fd);

}  // namespace poly::own_fds
