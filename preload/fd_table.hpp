// Which descriptor numbers of this process are the library's, and which open file each stands for.
//
// A library descriptor is a number that the kernel has given out for a *placeholder*: a duplicate of one
// template descriptor, opened with access mode 3 (open(2)), on which read, write and mmap fail. So numbers
// and close-on-exec are the kernel's, and I/O that nobody has hooked fails instead of lying.
//
// Reading the table takes no lock. Changes of an entry that go with a change of the kernel's table are made
// under `table_lock`, with signals blocked where they take more than one step, so that promotion
// (promote.hpp) sees either both or neither; so does fork.
#pragma once

#include <atomic>
#include <cstdint>

#include "preload/arena.hpp"
#include "preload/open_file.hpp"

namespace poly::fds {

// Numbers from here on are never the library's.
inline constexpr int kMax = Arena::kMaxFd;

// Index of the open file + 1; 0: not the library's. Only for numbers below fd_limit.
inline std::atomic<uint32_t>& entry(int fd) {
  return arena->descriptors[fd];
}
extern std::atomic<int> highest;  // no entry above; -1: there are none
extern ThreadLock table_lock;

inline bool is_library(int fd) {
  return static_cast<unsigned>(fd) < static_cast<unsigned>(fd_limit.load(std::memory_order_acquire)) &&
         entry(fd).load(std::memory_order_relaxed) != 0;
}

// The open file of a number, or null.
[[nodiscard]] FileRef get(int fd);

// A new placeholder with the lowest free number from `least` on. -errno: EMFILE, or ENOSYS when no template
// can be had.
[[nodiscard]] int make_placeholder(int least, bool close_on_exec);
// The number now stands for the file; takes over the reference.
void install(int fd, FileRef file);
// The number stands for nothing any more; what it stood for. The placeholder stays.
[[nodiscard]] FileRef take(int fd);

// A signal-proof hold on the table for changes of several steps.
class Change {
 public:
  Change() : hold_(table_lock) {}

 private:
  SignalsBlocked blocked_;
  ThreadLockHold hold_;
};

// /proc/self/fd/N without snprintf, which is not for signal handlers.
struct FdPath {
  char text[32];
  explicit FdPath(int fd) {
    char* to = text;
    for (const char* from = "/proc/self/fd/"; *from != '\0'; ++from) *to++ = *from;
    char digits[12];
    int count = 0;
    do digits[count++] = static_cast<char>('0' + fd % 10);
    while ((fd /= 10) != 0);
    while (count > 0) *to++ = digits[--count];
    *to = '\0';
  }
};

// For a forked child: nothing is the library's.
void forget_all();

}  // namespace poly::fds
