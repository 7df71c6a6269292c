// System calls by number, for code that the preload library links: there the libc names are the library's own
// hooks. Results as the kernel gives them: >= 0 or -errno.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <initializer_list>

namespace poly::raw {

template <typename... Args>
long call(long number, Args... args) {
  const int saved = errno;
  long rc = ::syscall(number, args...);
  if (rc >= 0) return rc;
  rc = -errno;
  errno = saved;
  return rc;
}

inline void close(int fd) {
  (void)call(SYS_close, fd);  // EINTR: Linux has freed the number already
}

inline void* map(size_t size, int protection, int flags, int fd) {
  long rc = call(SYS_mmap, nullptr, size, protection, flags, fd, 0);
  return rc < 0 && rc > -4096 ? nullptr : reinterpret_cast<void*>(rc);
}

inline void unmap(void* memory, size_t size) {
  (void)call(SYS_munmap, memory, size);
}

// Moves a descriptor out of the way of the program's own low numbers; close-on-exec.
inline int move_high(int fd) {
  if (fd < 0) return fd;
  for (int from : {1000, 200, 64}) {  // below the usual soft limit of 1024, else what there is
    long high = call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, from);
    if (high < 0) continue;
    close(fd);
    return static_cast<int>(high);
  }
  return fd;
}

}  // namespace poly::raw
