// open, close, dup, fcntl and what else makes, ends or changes descriptors.
#include <errno.h>
#include <linux/close_range.h>
#include <pthread.h>

#include "preload/answer.hpp"
#include "preload/calls.hpp"
#include "preload/counters.hpp"
#include "preload/directories.hpp"
#include "preload/fd_table.hpp"
#include "preload/files.hpp"
#include "preload/own_fds.hpp"
#include "preload/paths.hpp"
#include "preload/posix_locks.hpp"
#include "preload/process.hpp"
#include "preload/promote.hpp"
#include "preload/real.hpp"

using namespace poly;

namespace {

bool has_mode(int flags) {
  return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
}

// The kernel has given out the number: whatever we knew about it is over, also when somebody closed it behind
// our back.
int opened(int fd) {
  if (fd < 0) return fd;
  directories::forget_fd(fd);
  if (fds::is_library(fd)) (void)fds::take(fd).drop();
  return fd;
}

int open_any(int directory, const char* path, int flags, mode_t mode) {
  POLY_SERVE_PATH(int, directory, path, files::open(directory, path, flags, mode));
  return opened(left_to_kernel([&] { return real::openat(directory, path, flags, mode); }));
}

}  // namespace

// open(2) takes a mode only with O_CREAT or O_TMPFILE.
#define TAKE_MODE(flags)         \
  mode_t mode = 0;               \
  if (has_mode(flags)) {         \
    va_list list;                \
    va_start(list, flags);       \
    mode = va_arg(list, mode_t); \
    va_end(list);                \
  }

POLY_HOOK int open(const char* path, int flags, ...) {
  TAKE_MODE(flags)
  POLY_SERVE_PATH(int, AT_FDCWD, path, files::open(AT_FDCWD, path, flags, mode));
  return opened(left_to_kernel([&] { return real::open(path, flags, mode); }));
}

POLY_HOOK int openat(int directory, const char* path, int flags, ...) {
  TAKE_MODE(flags)
  return open_any(directory, path, flags, mode);
}

POLY_HOOK int creat(const char* path, mode_t mode) {
  return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

// What _FORTIFY_SOURCE makes of calls without a mode; with O_CREAT they are bugs, which libc reports.
POLY_HOOK int __open_2(const char* path, int flags) {
  if (has_mode(flags)) __chk_fail();
  return open_any(AT_FDCWD, path, flags, 0);
}

POLY_HOOK int __openat_2(int directory, const char* path, int flags) {
  if (has_mode(flags)) __chk_fail();
  return open_any(directory, path, flags, 0);
}

POLY_HOOK int close(int fd) {
  if (fds::is_library(fd)) {
    pthread_testcancel();
    POLY_SERVE(int, files::close(fd));
  } else if (own_fds::holds(fd)) {
    return static_cast<int>(answer(-EBADF));
  }
  directories::forget_fd(fd);
  return real::close(fd);
}

namespace {

// The library's part of closing a range: its files end, the numbers stay for the kernel to close.
void close_library_range(unsigned first, unsigned last) {
  const auto highest = static_cast<unsigned>(fds::highest.load());
  for (unsigned fd = first; fd <= last && static_cast<int>(fd) <= static_cast<int>(highest); ++fd) {
    if (fds::is_library(static_cast<int>(fd))) (void)files::close(static_cast<int>(fd));
    directories::forget_fd(static_cast<int>(fd));
  }
}

// Calls close(first, last) for what lies between our own descriptors.
template <typename Close>
int around_own(unsigned first, unsigned last, Close close) {
  int result = 0;
  while (first <= last) {
    unsigned next = last;
    bool own = false;
    for (int place = 0; place < own_fds::kPlaces; ++place) {
      const int fd = own_fds::get(place);
      if (fd < 0 || static_cast<unsigned>(fd) < first || static_cast<unsigned>(fd) > next) continue;
      own = true;
      next = static_cast<unsigned>(fd);
    }
    if (!own) return close(first, last);
    if (next > first) result = close(first, next - 1);
    if (result != 0 || next == ~0u) return result;
    first = next + 1;
  }
  return result;
}

}  // namespace

POLY_HOOK int close_range(unsigned first, unsigned last, int flags) noexcept {
  if (!process::on() || first > last) return real::close_range(first, last, flags);
  if ((flags & CLOSE_RANGE_UNSHARE) != 0) process::switch_off();  // this thread's table alone
  if ((flags & CLOSE_RANGE_CLOEXEC) != 0) return real::close_range(first, last, flags);
  close_library_range(first, last);
  return around_own(first, last, [flags](unsigned from, unsigned to) {
    return real::close_range(from, to, flags & ~CLOSE_RANGE_UNSHARE);
  });
}

POLY_HOOK void closefrom(int first) noexcept {
  if (!process::on()) return real::closefrom(first);
  (void)close_range(first < 0 ? 0 : static_cast<unsigned>(first), ~0u, 0);
}

POLY_HOOK int dup(int fd) noexcept {
  POLY_SERVE_FD(int, fd, files::duplicate(fd, 0, false));
  return opened(real::dup(fd));
}

POLY_HOOK int dup2(int from, int to) noexcept {
  if (process::on()) POLY_SERVE(int, files::duplicate_onto(from, to, 0, false));
  return opened(real::dup2(from, to));
}

POLY_HOOK int dup3(int from, int to, int flags) noexcept {
  if (process::on()) POLY_SERVE(int, files::duplicate_onto(from, to, flags, true));
  return opened(real::dup3(from, to, flags));
}

namespace {

// The library's answer about one of its descriptors; kDeclined: the kernel's, after promotion where the
// kernel must have the file.
long control(int fd, int command, long argument) {
  switch (command) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
      return argument < 0 || argument > INT32_MAX
                 ? kDeclined
                 : files::duplicate(fd, static_cast<int>(argument), command == F_DUPFD_CLOEXEC);
    case F_GETFD:
    case F_SETFD:
      return kDeclined;  // of the number: the placeholder's are the file's
    case F_GETFL:
      return files::get_flags(fd);
    case F_SETFL:
      return files::set_flags(fd, static_cast<int>(argument));
    default:
      return files::promoted(fd);
  }
}

bool is_posix_lock(int command) {
  return command == F_SETLK || command == F_SETLKW;
}

}  // namespace

POLY_HOOK int fcntl(int fd, int command, ...) {
  va_list list;
  va_start(list, command);
  const long argument = va_arg(list, long);
  va_end(list);
  POLY_SERVE_FD(int, fd, control(fd, command, argument));
  if (is_posix_lock(command) && process::on()) posix_locks::remember(fd);
  const int result = real::fcntl(fd, command, argument);
  if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) return opened(result);
  return result;
}

POLY_HOOK int flock(int fd, int operation) noexcept {
  POLY_SERVE_FD(int, fd, files::promoted(fd));
  return real::flock(fd, operation);
}

POLY_HOOK int lockf(int fd, int command, off_t size) {
  POLY_SERVE_FD(int, fd, files::promoted(fd));
  if (process::on()) posix_locks::remember(fd);
  return real::lockf(fd, command, size);
}

// Terminal requests fail on the placeholder as on the file, and close-on-exec is of the number.
POLY_HOOK int ioctl(int fd, unsigned long request, ...) noexcept {
  va_list list;
  va_start(list, request);
  void* argument = va_arg(list, void*);
  va_end(list);
  const bool of_number =
      request >> 8 == 'T' && request != FIONBIO && request != FIOASYNC && request != FIONREAD;
  if (!of_number) {
    POLY_SERVE_FD(int, fd, files::promoted(fd));
    files::promote_source(request, argument);
  }
  return real::ioctl(fd, request, argument);
}

static_assert(sizeof(off_t) == 8, "the 64-bit names are the plain ones");
POLY_ALIAS(open64, open)
POLY_ALIAS(__open, open)
POLY_ALIAS(__open64, open)
POLY_ALIAS(openat64, openat)
POLY_ALIAS(creat64, creat)
POLY_ALIAS(__open64_2, __open_2)
POLY_ALIAS(__openat64_2, __openat_2)
POLY_ALIAS(__close, close)
POLY_ALIAS(__dup2, dup2)
POLY_ALIAS(fcntl64, fcntl)
POLY_ALIAS(__fcntl, fcntl)
POLY_ALIAS(lockf64, lockf)
