// The writing half: creating a table, changing it, repairing it after a writer that died.
//
// The set of entries *is* the set of slots with a length. Buckets, depths and the count are an index over
// them, which rebuild() makes from nothing. So a change has one instant at which it happens, the store of a
// length:
// - insert: the new slot's, after its record and path;
// - remove: the slot's, set to 0 before anything else;
// - update: the new slot's; until the old one is freed both exist, and the younger generation wins.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>

#include "fastpath/mount_table_read.hpp"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U  // Linux 6.3
#endif

namespace poly {
namespace {

// Release, so that a reader that sees the stored value also sees the odd sequence stored before it.
void store(SharedWord& word, std::uint64_t value) {
  word.store(value, std::memory_order_release);
}

int new_memfd(Fd& out) {
  Fd fd(::memfd_create("poly-mount-table", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL));
  if (!fd && errno == EINVAL) fd.reset(::memfd_create("poly-mount-table", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return -errno;
  out = std::move(fd);
  return 0;
}

int write_header(int fd, std::uint32_t capacity) {
  const MountTableLayout layout(capacity);
  MountTableHeader header{};
  header.magic = MountTableHeader::kMagic;
  header.abi_version = MountTableHeader::kAbiVersion;
  header.capacity = capacity;
  header.bucket_count = layout.bucket_count;
  header.buckets_offset = layout.buckets;
  header.slots_offset = layout.slots;
  header.paths_offset = layout.paths;
  header.total_size = layout.total;
  if (::getrandom(&header.seed, sizeof(header.seed), 0) != ssize_t{sizeof(header.seed)}) return -EAGAIN;
  if (::ftruncate(fd, static_cast<off_t>(layout.total)) != 0) return -errno;
  const ssize_t n = ::pwrite(fd, static_cast<const void*>(&header), sizeof(header), 0);
  if (n < 0) return -errno;
  return n == ssize_t{sizeof(header)} ? 0 : -EIO;
}

}  // namespace

// Makes the sequence odd for as long as it lives. A sequence that is odd already is a dead writer's: carried
// on.
class MountTable::WriteSection {
 public:
  explicit WriteSection(MountTableHeader& header)
      : sequence_(header.sequence), odd_(sequence_.load(std::memory_order_relaxed) | 1) {
    sequence_.store(odd_, std::memory_order_relaxed);  // ordered before every store() below: those release
  }
  ~WriteSection() { store(sequence_, odd_ + 1); }
  WriteSection(const WriteSection&) = delete;
  WriteSection& operator=(const WriteSection&) = delete;

 private:
  SharedWord& sequence_;
  std::uint64_t odd_;
};

int MountTable::create(std::uint32_t capacity, Fd& out) {
  if (capacity == 0 || capacity > kMaxCapacity) return -EINVAL;
  Fd fd;
  if (int rc = new_memfd(fd); rc < 0) return rc;
  if (int rc = write_header(fd.get(), capacity); rc < 0) return rc;
  // Nobody opens it again for writing through /proc/PID/fd; the descriptor at hand can still write.
  if (::fchmod(fd.get(), 0400) != 0) return -errno;
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) return -errno;
  out = std::move(fd);
  return 0;
}

int MountTable::read_only(int fd, Fd& out) {
  char name[32];
  std::snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
  Fd reopened(::open(name, O_RDONLY | O_CLOEXEC));
  if (!reopened) return -errno;
  out = std::move(reopened);
  return 0;
}

int MountTable::attach_writer(int fd, MountTable& out) {
  MountTable table;
  if (int rc = attach(fd, true, table); rc < 0) return rc;
  // Always, not only after a crash: the path that repairs is the path that every start takes.
  table.rebuild();
  out = std::move(table);
  return 0;
}

int MountTable::insert(const NormalPath& path, const MountEntry& entry) {
  if (!writable_) return -EBADF;
  if (find_slot(path) != kNone) return -EEXIST;
  const std::uint32_t slot = free_slot();
  if (size() >= capacity_ || slot == kNone) return -ENOSPC;
  WriteSection section(*header_);
  write_slot(slot, path, entry);
  index_slot(slot);
  return 0;
}

int MountTable::remove(const NormalPath& path) {
  if (!writable_) return -EBADF;
  const std::uint32_t slot = find_slot(path);
  if (slot == kNone) return -ENOENT;
  const std::uint64_t depth = load(slots_[slot].depth);
  const std::uint32_t bucket = bucket_of(load(slots_[slot].hash), slot);
  const bool last = !depth_in_use(depth, slot);
  WriteSection section(*header_);
  store(slots_[slot].length, 0);
  if (bucket != kNone) unindex(bucket);
  store(header_->entry_count, load(header_->entry_count) - 1);
  if (last) mark_depth(depth, false);
  return 0;
}

int MountTable::update(const NormalPath& path, const MountEntry& entry) {
  if (!writable_) return -EBADF;
  const std::uint32_t old_slot = find_slot(path);
  if (old_slot == kNone) return -ENOENT;
  const std::uint32_t slot = free_slot();
  const std::uint32_t bucket = bucket_of(load(slots_[old_slot].hash), old_slot);
  if (slot == kNone || bucket == kNone) return -EIO;  // the spare slot is gone: somebody else wrote here
  WriteSection section(*header_);
  write_slot(slot, path, entry);
  store(buckets_[bucket].slot, std::uint64_t{slot} + 1);
  store(slots_[old_slot].length, 0);
  return 0;
}

int MountTable::touch() {
  if (!writable_) return -EBADF;
  WriteSection section(*header_);
  return 0;
}

std::uint32_t MountTable::free_slot() const {
  for (std::uint32_t slot = 0; slot < slot_count(); ++slot) {
    if (load(slots_[slot].length) == 0) return slot;
  }
  return kNone;
}

bool MountTable::depth_in_use(std::uint64_t depth, std::uint32_t except_slot) const {
  for (std::uint32_t slot = 0; slot < slot_count(); ++slot) {
    if (slot == except_slot || load(slots_[slot].length) == 0) continue;
    if (load(slots_[slot].depth) == depth) return true;
  }
  return false;
}

std::uint32_t MountTable::bucket_of(std::uint64_t hash, std::uint32_t slot) const {
  for (std::uint32_t probes = 0; probes <= bucket_mask_; ++probes) {
    const auto at = static_cast<std::uint32_t>((hash + probes) & bucket_mask_);
    const std::uint64_t number = load(buckets_[at].slot);
    if (number == 0) return kNone;
    if (number == std::uint64_t{slot} + 1) return at;
  }
  return kNone;
}

// The slot is free (length 0); the length is stored last, which commits it.
void MountTable::write_slot(std::uint32_t slot, const NormalPath& path, const MountEntry& entry) {
  PrefixWalk walk(path, seed_);
  while (walk.next()) {
  }
  MountSlot& s = slots_[slot];
  store(s.hash, walk.hash());
  store(s.depth, walk.depth());
  store(s.service_instance, std::uint64_t{entry.instance} << 32 | entry.service);
  store(s.flags, entry.flags);
  store(s.device, entry.device);
  store(s.mount_id, entry.mount_id);
  store(s.generation, load(header_->sequence) / 2 + 1);  // that of the table when the section ends
  SharedWord* words = paths_ + (path_words(slot) - paths_);
  for (std::size_t at = 0; at < path.size(); at += 8) {
    store(words[at / 8], load_word(path.data() + at, path.size() - at));
  }
  store(s.length, path.size());
}

void MountTable::index_slot(std::uint32_t slot) {
  const std::uint64_t hash = load(slots_[slot].hash);
  std::uint64_t at = hash & bucket_mask_;
  while (load(buckets_[at].slot) != 0) at = (at + 1) & bucket_mask_;  // ends: at most half are in use
  store(buckets_[at].hash, hash);
  store(buckets_[at].slot, std::uint64_t{slot} + 1);
  store(header_->entry_count, load(header_->entry_count) + 1);
  mark_depth(load(slots_[slot].depth), true);
}

// Closes the gap by moving back each later bucket of the run that may stand there (Knuth 6.4, algorithm R).
void MountTable::unindex(std::uint32_t bucket) {
  std::uint64_t gap = bucket;
  for (std::uint64_t at = (gap + 1) & bucket_mask_; load(buckets_[at].slot) != 0;
       at = (at + 1) & bucket_mask_) {
    const std::uint64_t home = load(buckets_[at].hash) & bucket_mask_;
    if (((at - home) & bucket_mask_) < ((at - gap) & bucket_mask_)) continue;
    store(buckets_[gap].hash, load(buckets_[at].hash));
    store(buckets_[gap].slot, load(buckets_[at].slot));
    gap = at;
  }
  store(buckets_[gap].slot, 0);
}

void MountTable::mark_depth(std::uint64_t depth, bool used) {
  SharedWord& word = header_->depths[depth / 64];
  const std::uint64_t bit = std::uint64_t{1} << (depth % 64);
  store(word, used ? load(word) | bit : load(word) & ~bit);
  std::uint64_t deepest = 0;
  for (std::size_t i = 0; i < kDepthWords; ++i) {
    const std::uint64_t bits = load(header_->depths[i]);
    if (bits != 0) deepest = i * 64 + 63 - static_cast<unsigned>(std::countl_zero(bits));
  }
  store(header_->deepest, deepest);
}

void MountTable::rebuild() {
  WriteSection section(*header_);
  for (std::uint64_t at = 0; at <= bucket_mask_; ++at) store(buckets_[at].slot, 0);
  for (SharedWord& word : header_->depths) store(word, 0);
  store(header_->deepest, 0);
  store(header_->entry_count, 0);
  for (std::uint32_t slot = 0; slot < slot_count(); ++slot) adopt(slot);
}

// Indexes a slot that was found in memory; frees it when it is damaged or an older twin (an interrupted
// update).
void MountTable::adopt(std::uint32_t slot) {
  NormalPath path;
  MountEntry entry;
  const int rc = load_slot(slot, path, entry);
  if (rc == -ENOENT) return;
  PrefixWalk walk(path, seed_);
  while (rc == 0 && walk.next()) {
  }
  MountSlot& s = slots_[slot];
  if (rc < 0 || load(s.hash) != walk.hash() || load(s.depth) != walk.depth()) {
    store(s.length, 0);
    return;
  }
  const std::uint32_t twin = find_slot(path);
  if (twin == kNone) {
    index_slot(slot);
  } else if (load(slots_[twin].generation) < entry.generation) {
    store(buckets_[bucket_of(walk.hash(), twin)].slot, std::uint64_t{slot} + 1);
    store(slots_[twin].length, 0);
  } else {
    store(s.length, 0);
  }
}

}  // namespace poly
