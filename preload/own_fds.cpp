#include "preload/own_fds.hpp"

#include <sys/resource.h>

#include <climits>

#include "preload/session.hpp"
#include "preload/sys.hpp"

namespace poly::own_fds {

std::atomic<int> lowest{INT_MAX};

namespace {

// Stored as number + 1, so that .bss means none.
std::atomic<int> places[kPlaces];

// Away from the numbers that programs count on, and below their limit.
int high_water() {
  struct rlimit limit {};
  sys::call(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, sys::word(&limit));
  constexpr rlim_t kRoom = 2 * kPlaces, kEnough = 1u << 16;
  const rlim_t soft = limit.rlim_cur < kEnough ? limit.rlim_cur : kEnough;
  return soft > 2 * kRoom ? static_cast<int>(soft - kRoom) : static_cast<int>(soft / 2);
}

void note_lowest(int fd) {
  int seen = lowest.load(std::memory_order_relaxed);
  while (fd >= 0 && seen > fd && !lowest.compare_exchange_weak(seen, fd)) {
  }
}

}  // namespace

int get(int place) {
  return places[place].load(std::memory_order_acquire) - 1;
}

void set(int place, int fd) {
  note_lowest(fd);
  places[place].store(fd + 1, std::memory_order_release);
}

void reset(int place) {
  const int fd = places[place].exchange(0) - 1;
  if (fd >= 0) sys::close(fd);
}

int move_high(int fd) {
  const int high = sys::dup_from(fd, high_water());
  if (high < 0) return fd;
  sys::close(fd);
  return high;
}

bool holds(int fd) {
  if (!may_hold(fd)) return false;
  for (const auto& place : places) {
    if (place.load(std::memory_order_relaxed) == fd + 1) return true;
  }
  return false;
}

// The numbers above it may end there: a program that takes one after the other would push ours over the
// limit.
int duplicate(int fd) {
  int made = sys::dup_from(fd, fd + 1);
  if (made < 0) made = sys::dup_from(fd, high_water());
  return made < 0 ? -1 : made;
}

void make_way(int fd) {
  if (!may_hold(fd)) return;
  sessions::make_way(fd);
  for (int i = 0; i < kFirstSession; ++i) {
    std::atomic<int>& place = places[i];
    int seen = fd + 1;
    if (place.load(std::memory_order_relaxed) != seen) continue;
    const int made = duplicate(fd);
    note_lowest(made);
    // Or somebody else has given it up meanwhile.
    if (!place.compare_exchange_strong(seen, made + 1) && made >= 0) sys::close(made);
    return;
  }
}

}  // namespace poly::own_fds
