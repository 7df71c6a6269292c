// What the parts of fastpath/ that this library links call in libc under names that are hooked here: the
// linker sends those calls past the hooks (--wrap in CMakeLists.txt), straight to the kernel.
#include <errno.h>
#include <stdarg.h>
#include <sys/stat.h>

#include "preload/answer.hpp"
#include "preload/sys.hpp"

using poly::answer;
namespace sys = poly::sys;

extern "C" {

int __wrap_close(int fd) {
  return static_cast<int>(answer(sys::close(fd)));
}

int __wrap_fcntl(int fd, int command, ...) {
  va_list list;
  va_start(list, command);
  const long argument = va_arg(list, long);
  va_end(list);
  return static_cast<int>(answer(sys::fcntl(fd, command, argument)));
}

int __wrap_fstat(int fd, struct stat* out) {
#ifdef SYS_fstat
  return static_cast<int>(answer(sys::call(SYS_fstat, fd, sys::word(out))));
#endif
}

ssize_t __wrap_pread(int fd, void* data, size_t size, off_t offset) {
  return answer(sys::call(SYS_pread64, fd, sys::word(data), static_cast<long>(size), offset));
}

void* __wrap_mmap(void* address, size_t size, int protection, int flags, int fd, off_t offset) {
  return reinterpret_cast<void*>(answer(
      sys::call(SYS_mmap, sys::word(address), static_cast<long>(size), protection, flags, fd, offset)));
}

long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f) {
  return answer(sys::call(number, a, b, c, d, e, f));
}

}  // extern "C"
