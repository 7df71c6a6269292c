// System calls without libc: they neither touch errno nor enter this library's own hooks, and may be made
// from a signal handler. Results are the kernel's: >= 0, or -errno.
#pragma once

#include <fcntl.h>
#include <linux/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace poly::sys {

inline long call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
#if defined(__x86_64__)
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall"
               : "+a"(number)
               : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return number;
#elif defined(__aarch64__)
  register long x8 asm("x8") = number;
  register long x0 asm("x0") = a;
  register long x1 asm("x1") = b;
  register long x2 asm("x2") = c;
  register long x3 asm("x3") = d;
  register long x4 asm("x4") = e;
  register long x5 asm("x5") = f;
  asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
#else
#error "unknown architecture"
#endif
}

inline long word(const void* pointer) {
  return reinterpret_cast<long>(pointer);
}

inline int openat(int directory, const char* path, int flags, mode_t mode = 0) {
  return static_cast<int>(call(SYS_openat, directory, word(path), flags, static_cast<long>(mode)));
}
inline int close(int fd) {
  return static_cast<int>(call(SYS_close, fd));
}
inline int dup3(int from, int to, int flags) {
  return static_cast<int>(call(SYS_dup3, from, to, flags));
}
inline int fcntl(int fd, int command, long argument = 0) {
  return static_cast<int>(call(SYS_fcntl, fd, command, argument));
}
inline ssize_t read(int fd, void* data, size_t size) {
  return call(SYS_read, fd, word(data), static_cast<long>(size));
}
inline int statx(int directory, const char* path, int flags, unsigned mask, struct statx* out) {
  return static_cast<int>(call(SYS_statx, directory, word(path), flags, static_cast<long>(mask), word(out)));
}
inline int gettid() {
  return static_cast<int>(call(SYS_gettid));
}
inline void yield() {
  call(SYS_sched_yield);
}

// The kernel moves a descriptor to the lowest free number from `least` on; close-on-exec.
inline int dup_from(int fd, int least) {
  return fcntl(fd, F_DUPFD_CLOEXEC, least);
}

}  // namespace poly::sys
