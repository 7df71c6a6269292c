// POSIX locks, which the metadata servers keep for all hosts. flock(2) is not among them: libcephfs 16.2 has
// no ceph_ll_flock, and a range lock in its stead would stand in the way of the same program's POSIX locks.
#include <cerrno>
#include <cstdint>

#include "libservices/ceph/ceph.hpp"

namespace poly {

using namespace ceph;

namespace {

struct flock to_flock(const FileLock& lock) {
  struct flock out {};
  out.l_type = static_cast<short>(lock.type);
  out.l_whence = SEEK_SET;
  out.l_start = static_cast<off_t>(lock.start);
  out.l_len = lock.end == INT64_MAX ? 0 : static_cast<off_t>(lock.end - lock.start + 1);
  out.l_pid = lock.pid;
  return out;
}

}  // namespace

int Ceph::lock(File& file, uint64_t owner, const FileLock& lock) {
  auto& f = static_cast<CephFile&>(file);
  if (!f.handle) return 0;  // of a directory
  struct flock wanted = to_flock(lock);
  const int err = client_->ll_setlk(client_.mount(), f.handle, &wanted, owner, 0);
  return err == -EWOULDBLOCK ? -EAGAIN : err;
}

int Ceph::test_lock(File& file, uint64_t owner, FileLock& lock) {
  auto& f = static_cast<CephFile&>(file);
  struct flock found = to_flock(lock);
  if (!f.handle) {
    lock.type = F_UNLCK;
    return 0;
  }
  if (int err = client_->ll_getlk(client_.mount(), f.handle, &found, owner)) return err;
  lock.type = found.l_type;
  if (lock.type == F_UNLCK) return 0;
  lock.start = static_cast<uint64_t>(found.l_start);
  lock.end = found.l_len == 0 ? INT64_MAX : lock.start + static_cast<uint64_t>(found.l_len) - 1;
  lock.pid = found.l_pid;
  return 0;
}

}  // namespace poly
