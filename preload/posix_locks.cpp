#include "preload/posix_locks.hpp"

#include <sys/sysmacros.h>

#include <atomic>

#include "preload/fd_table.hpp"
#include "preload/sys.hpp"

namespace poly::posix_locks {
namespace {

struct Inode {
  uint64_t device, number;
};
constexpr uint32_t kMax = 256;
Inode locked[kMax];
std::atomic<uint32_t> count{0};  // above kMax: any inode may be locked

bool is_among(uint64_t device, uint64_t inode, uint32_t size) {
  for (uint32_t i = 0; i < size; ++i) {
    if (locked[i].number == inode && locked[i].device == device) return true;
  }
  return false;
}

}  // namespace

void remember(int fd) {
  struct statx st;
  if (sys::statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &st) < 0) return;
  if (st.stx_dev_major != 0) return;  // on a disk; FUSE has no block device
  const uint64_t device = makedev(st.stx_dev_major, st.stx_dev_minor);
  fds::Change change;
  const uint32_t used = count.load(std::memory_order_relaxed);
  if (used > kMax || is_among(device, st.stx_ino, used)) return;
  if (used < kMax) locked[used] = {device, st.stx_ino};
  count.store(used + 1, std::memory_order_release);
}

bool may_hold(uint64_t device, uint64_t inode) {
  const uint32_t used = count.load(std::memory_order_acquire);
  return used > kMax || (used > 0 && is_among(device, inode, used));
}

void forget_all() {
  count.store(0);
}

}  // namespace poly::posix_locks
