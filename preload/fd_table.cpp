#include "preload/fd_table.hpp"

#include <sys/mman.h>

#include "preload/own_fds.hpp"

namespace poly::fds {

std::atomic<int> highest{-1};
ThreadLock table_lock;

namespace {

// A memfd is a regular file on tmpfs that needs no place; the second open is the one with access mode 3.
int open_template() {
  const auto memfd = static_cast<int>(sys::call(SYS_memfd_create, sys::word("polytropon"), MFD_CLOEXEC));
  if (memfd < 0) return memfd;
  const int fd = sys::openat(AT_FDCWD, FdPath(memfd).text, O_ACCMODE | O_CLOEXEC);
  sys::close(memfd);
  return fd < 0 ? fd : own_fds::move_high(fd);
}

int template_fd() {
  int fd = own_fds::get(own_fds::kTemplate);
  if (fd >= 0) return fd;
  Change change;
  fd = own_fds::get(own_fds::kTemplate);
  if (fd >= 0) return fd;
  fd = open_template();
  if (fd >= 0) own_fds::set(own_fds::kTemplate, fd);
  return fd;
}

}  // namespace

FileRef get(int fd) {
  for (;;) {
    const uint32_t number = entry(fd).load(std::memory_order_acquire);
    if (number == 0) return {};
    FileRef file = open_files::try_reference(number - 1);
    // The entry holds a reference: while it is there, the record is that file's and no other's.
    if (entry(fd).load(std::memory_order_acquire) == number && file) return file;
    file.drop();
  }
}

int make_placeholder(int least, bool close_on_exec) {
  const int from = template_fd();
  if (from < 0) return from == -EMFILE ? -EMFILE : -ENOSYS;
  return sys::fcntl(from, close_on_exec ? F_DUPFD_CLOEXEC : F_DUPFD, least);
}

void install(int fd, FileRef file) {
  ThreadLockHold hold(table_lock);
  int seen = highest.load(std::memory_order_relaxed);
  while (seen < fd && !highest.compare_exchange_weak(seen, fd)) {
  }
  const OpenFile* stored = file.release();
  entry(fd).store(open_files::index_of(*stored) + 1, std::memory_order_release);
}

FileRef take(int fd) {
  if (!is_library(fd)) return {};
  const uint32_t number = entry(fd).exchange(0, std::memory_order_acq_rel);
  return number == 0 ? FileRef() : FileRef(open_files::at(number - 1));
}

void forget_all() {
  const int last = highest.exchange(-1);
  for (int fd = 0; fd <= last; ++fd) entry(fd).store(0, std::memory_order_relaxed);
  table_lock.reset();
}

}  // namespace poly::fds
