// Operations on open files and directories.
#include <linux/falloc.h>
#include <time.h>

#include <cerrno>
#include <chrono>

#include "libservices/ceph/ceph.hpp"

namespace poly {

using namespace ceph;

namespace {

CephFile& opened(File& file) {
  return static_cast<CephFile&>(file);
}

uint64_t coarse_now() {
  timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);  // fails for no known clock
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace

CephFile::~CephFile() {
  if (uncached) {
    std::lock_guard guard(node->owner.writers_lock_);
    node->uncached_writers--;
  }
  Client& client = node->owner.client_;
  if (!client.mount()) return;  // closed when it was left
  if (handle) (void)client->ll_close(client.mount(), handle);
  if (directory) (void)client->ll_releasedir(client.mount(), directory);
}

// May the data be cached? That is the capability Fc, of which libcephfs says when it is taken away
// (inode_changed) and not when it is there. While others have the file open for writing it is not, and every
// read goes to an OSD. So the time a read takes tells: no OSD answers so fast as memory does. Seen once, it
// holds until it is taken away.
ssize_t Ceph::read(File& file, uint64_t offset, std::span<std::byte> out) {
  CephFile& f = opened(file);
  const ssize_t n = client_->ll_read(client_.mount(), f.handle, static_cast<int64_t>(offset), out.size(),
                                     reinterpret_cast<char*>(out.data()));
  if (n > 0) look(f, offset);
  return n;
}

bool Ceph::cacheable(const CephNode& node) {
  return node.cacheable.load(std::memory_order_relaxed) == node.revocations.load() + 1;
}

// `offset`: of a byte that has just been read or written. Where it is not in the cache, a look costs as much
// as a read, so the next one is not soon.
void Ceph::look(CephFile& file, uint64_t offset, int tries) {
  constexpr uint64_t kAgain = 20'000'000;
  CephNode& node = *file.node;
  const uint64_t revocations = node.revocations.load();
  if (node.cacheable.load(std::memory_order_relaxed) == revocations + 1) return;
  if (coarse_now() < node.next_look.load(std::memory_order_relaxed)) return;
  while (tries-- > 0) {
    if (!reads_from_cache(file.handle, offset)) continue;
    node.cacheable.store(revocations + 1);
    return;
  }
  node.next_look.store(coarse_now() + kAgain, std::memory_order_relaxed);
}

bool Ceph::reads_from_cache(Fh* handle, uint64_t offset) {
  constexpr auto kMemory = std::chrono::microseconds(15);
  char byte;
  const auto begin = std::chrono::steady_clock::now();
  if (client_->ll_read(client_.mount(), handle, static_cast<int64_t>(offset), 1, &byte) != 1) return false;
  return std::chrono::steady_clock::now() - begin < kMemory;
}

bool Ceph::may_keep(File& file) {
  return cacheable(*opened(file).node);
}

// What a kernel writes through its page cache it has copied there before it asks us. Whenever such a page is
// dropped on our word meanwhile, somebody else brings back what was there before, and finds it missing what
// the writer has been told is written. So a file that may have to be dropped is written past the cache, and
// so by all, for a write past the cache drops pages, too.
void Ceph::decide_cache(CephFile& file, int flags) {
  CephNode& node = *file.node;
  if ((flags & O_ACCMODE) == O_RDWR && !cacheable(node)) {
    char byte;
    // The answer holds for as long as it is open: others at work in the library may make memory look slow.
    constexpr int kTries = 8;
    node.next_look.store(0, std::memory_order_relaxed);
    if (client_->ll_read(client_.mount(), file.handle, 0, 1, &byte) == 1) look(file, 0, kTries);
  }
  std::lock_guard guard(writers_lock_);
  file.uncached = node.uncached_writers > 0 || !cacheable(node);
  node.uncached_writers += file.uncached;
}

ssize_t Ceph::write(File& file, uint64_t offset, std::span<const std::byte> in) {
  CephNode& node = *opened(file).node;
  if (node.privileged.load(std::memory_order_relaxed)) drop_capability(node, node.inode.load());
  opened(file).unsynced.store(true, std::memory_order_relaxed);
  const ssize_t n = client_->ll_write(client_.mount(), opened(file).handle, static_cast<int64_t>(offset),
                                      in.size(), reinterpret_cast<const char*>(in.data()));
  if (n > 0 && opened(file).reads) look(opened(file), offset);
  return n;
}

// What close(2) has not reported can be reported to nobody any more, so it waits for what is written back.
int Ceph::flush(File& file) {
  const bool wait = settings_.write_back && opened(file).unsynced.load(std::memory_order_relaxed);
  return wait ? fsync(file, true) : 0;
}

int Ceph::fsync(File& file, bool data_only) {
  CephFile& f = opened(file);
  if (f.handle) {
    f.unsynced.store(false,
                     std::memory_order_relaxed);  // before: of what is written beside it nothing is said
    const int err = client_->ll_fsync(client_.mount(), f.handle, data_only);
    if (err) f.unsynced.store(true, std::memory_order_relaxed);
    return err;
  }
  Inode* in;
  if (int err = inode(*f.node, in)) return err;
  return client_->ll_sync_inode(client_.mount(), in, data_only);
}

int Ceph::readdir(File& file, uint64_t cookie, DirSink& sink) {
  CephFile& d = opened(file);
  std::lock_guard guard(d.directory_lock);
  // rewinddir(3) must see the directory as it is now.
  if (cookie == 0) {
    client_->rewinddir(client_.mount(), d.directory);
    d.pending = false;
  } else if (cookie != d.position) {
    client_->seekdir(client_.mount(), d.directory, static_cast<int64_t>(cookie));
    d.pending = false;
  }
  d.position = cookie;
  for (;;) {
    if (!d.pending) {
      const int got = client_->readdir_r(client_.mount(), d.directory, &d.entry);
      if (got <= 0) return got == -ENOENT ? 0 : got;  // ENOENT: the directory is removed; it has no entries
      d.pending = true;
    }
    const auto next = static_cast<uint64_t>(d.entry.d_off);
    if (!sink.add({d.entry.d_name, d.entry.d_ino, next, d.entry.d_type})) return 0;
    d.pending = false;
    d.position = next;
  }
}

// As the kernel's client (ceph_fallocate, fs/ceph/file.c): space cannot be set aside on OSDs.
int Ceph::fallocate(File& file, uint32_t mode, uint64_t offset, uint64_t length) {
  if (mode != (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)) return -EOPNOTSUPP;
  return client_->ll_fallocate(client_.mount(), opened(file).handle, static_cast<int>(mode),
                               static_cast<int64_t>(offset), static_cast<int64_t>(length));
}

// Ceph does not tell holes from zeros: all is data up to the end, where the one hole is (lseek(2)).
int64_t Ceph::lseek(File& file, int64_t offset, int whence) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) return -EINVAL;
  Inode* in;
  Statx st;
  if (int err = inode(*opened(file).node, in)) return err;
  if (int err = attributes(in, st)) return err;
  const auto size = static_cast<int64_t>(st.size);
  if (offset < 0 || offset >= size) return -ENXIO;
  return whence == SEEK_DATA ? offset : size;
}

// libcephfs has none; the caller copies.
ssize_t Ceph::copy_range(File&, uint64_t, File&, uint64_t, uint64_t) {
  return -EOPNOTSUPP;
}

}  // namespace poly
