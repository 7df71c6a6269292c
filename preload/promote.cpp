#include "preload/promote.hpp"

#include <fcntl.h>
#include <unistd.h>

#include "preload/counters.hpp"
#include "preload/fd_table.hpp"
#include "preload/mounts.hpp"
#include "preload/own_fds.hpp"
#include "preload/process.hpp"

namespace poly::promote {
namespace {

// What the kernel must know of the open, or tell by F_GETFL; the rest is done.
constexpr int kKept =
    O_ACCMODE | O_APPEND | O_NONBLOCK | O_SYNC | O_DSYNC | O_NOATIME | O_NOFOLLOW | O_LARGEFILE;

[[gnu::tls_model("initial-exec")]] thread_local bool held_for_fork = false;

struct HexName {
  char text[12];
  explicit HexName(uint32_t number) {
    char digits[9];
    int count = 0;
    do digits[count++] = "0123456789abcdef"[number & 15];
    while ((number >>= 4) != 0);
    char* to = text;
    while (count > 0) *to++ = digits[--count];
    *to = '\0';
  }
};

int open_in_kernel(const OpenFile& file) {
  const int control = file.mount->control_fd();
  if (control < 0) return control;
  const HexName name(file.handle);
  const int flags = (static_cast<int>(file.flags.load()) & kKept) | O_CLOEXEC;
  int fd = sys::openat(control, name.text, flags | O_CREAT);
  if (fd == -EMFILE) {
    // Every number is taken: the template gives up its own, and is made again when it is needed.
    own_fds::reset(own_fds::kTemplate);
    fd = sys::openat(control, name.text, flags | O_CREAT);
  }
  // A read-only mount creates nothing, but finds.
  return fd == -EROFS || fd == -ENOENT ? sys::openat(control, name.text, flags) : fd;
}

// Puts the kernel's descriptor under every number of the file; how many there were.
uint32_t replace_placeholders(const OpenFile& file, int kernel_fd) {
  const uint32_t number = open_files::index_of(file) + 1;
  uint32_t replaced = 0;
  ThreadLockHold hold(fds::table_lock);
  const int last = fds::highest.load();
  for (int fd = 0; fd <= last; ++fd) {
    if (fds::entry(fd).load(std::memory_order_relaxed) != number) continue;
    const int flags = sys::fcntl(fd, F_GETFD);
    sys::dup3(kernel_fd, fd, (flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0);
    fds::entry(fd).store(0, std::memory_order_release);
    ++replaced;
  }
  return replaced;
}

// The next descriptor from `fd` on whose file has not been tried in vain; -1: none.
int next_candidate(int fd, bool inheritable_only) {
  const int last = fds::highest.load();
  for (; fd <= last; ++fd) {
    if (!fds::is_library(fd)) continue;
    const FileRef file = fds::get(fd);
    if (!file || file->not_promotable.load()) continue;
    if (inheritable_only && (sys::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0) continue;
    return fd;
  }
  return -1;
}

void each(bool inheritable_only) {
  for (int fd = 0; (fd = next_candidate(fd, inheritable_only)) >= 0; ++fd) (void)descriptor(fd);
}

}  // namespace

int file(OpenFile& file) {
  SignalsBlocked blocked;
  ThreadLockHold hold(file.position);
  if (file.promoted.load()) return 0;
  const int kernel_fd = open_in_kernel(file);
  if (kernel_fd < 0) {
    file.not_promotable.store(true);
    count(Decline::not_promoted);
    return kernel_fd;
  }
  sys::call(SYS_lseek, kernel_fd, file.offset.load(), SEEK_SET);
  file.promoted.store(true, std::memory_order_release);
  const uint32_t replaced = replace_placeholders(file, kernel_fd);
  sys::close(kernel_fd);
  // The caller has a reference of its own.
  file.references.fetch_sub(replaced, std::memory_order_acq_rel);
  count(Decline::promoted);
  return 0;
}

int descriptor(int fd) {
  if (!fds::is_library(fd)) return 0;
  process::notice_fork();
  const FileRef file = fds::get(fd);
  return file ? promote::file(*file) : 0;
}

void all() {
  each(false);
}

void inheritable() {
  each(true);
}

// A file lock comes before the table's: so promote without the table, then see whether anything was opened
// meanwhile.
void all_and_hold() {
  for (;;) {
    each(false);
    // False: a handler forks in the middle of a change, and its outer holder unlocks.
    held_for_fork = fds::table_lock.lock();
    if (!held_for_fork || next_candidate(0, false) < 0) return;
    fds::table_lock.unlock();
  }
}

void release_hold() {
  if (held_for_fork) fds::table_lock.unlock();
}

}  // namespace poly::promote
