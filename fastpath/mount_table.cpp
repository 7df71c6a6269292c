// The reading half: attaching, longest-prefix lookup. mount_table_writer.cpp changes the table.
#include "fastpath/mount_table.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "fastpath/mount_table_read.hpp"

namespace poly {
namespace {

// The header is believed only when it says exactly what create() writes for its capacity, so nothing in it
// can lead a reader out of the mapping.
int check_header(const MountTableHeader& header, std::uint64_t file_size) {
  if (header.magic != MountTableHeader::kMagic) return -EINVAL;
  if (header.abi_version != MountTableHeader::kAbiVersion) return -EPROTO;
  if (header.capacity == 0 || header.capacity > MountTable::kMaxCapacity) return -EINVAL;
  const MountTableLayout layout(header.capacity);
  const bool same = header.bucket_count == layout.bucket_count && header.buckets_offset == layout.buckets &&
                    header.slots_offset == layout.slots && header.paths_offset == layout.paths &&
                    header.total_size == layout.total && file_size == layout.total;
  return same ? 0 : -EINVAL;
}

int read_header(int fd, MountTableHeader& header) {
  constexpr int kSizeSealed = F_SEAL_SHRINK | F_SEAL_GROW;
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0) return -errno;  // EINVAL: no memfd
  if ((seals & kSizeSealed) != kSizeSealed) return -EINVAL;
  struct stat st;
  if (::fstat(fd, &st) != 0) return -errno;
  if (::pread(fd, static_cast<void*>(&header), sizeof(header), 0) != ssize_t{sizeof(header)}) return -EINVAL;
  return check_header(header, static_cast<std::uint64_t>(st.st_size));
}

}  // namespace

MountTable::MountTable(MountTable&& other) noexcept {
  *this = std::move(other);
}

MountTable& MountTable::operator=(MountTable&& other) noexcept {
  if (this == &other) return *this;
  unmap();
  header_ = std::exchange(other.header_, nullptr);
  buckets_ = other.buckets_;
  slots_ = other.slots_;
  paths_ = other.paths_;
  mapped_ = other.mapped_;
  capacity_ = std::exchange(other.capacity_, 0);
  bucket_mask_ = other.bucket_mask_;
  seed_ = other.seed_;
  writable_ = std::exchange(other.writable_, false);
  return *this;
}

MountTable::~MountTable() {
  unmap();
}

void MountTable::unmap() {
  if (header_ != nullptr) ::munmap(static_cast<void*>(header_), mapped_);
  header_ = nullptr;
}

int MountTable::attach(int fd, bool writable, MountTable& out) {
  MountTableHeader header;
  if (int rc = read_header(fd, header); rc < 0) return rc;
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* base = ::mmap(nullptr, header.total_size, protection, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) return -errno;

  MountTable table;
  char* const bytes = static_cast<char*>(base);
  table.header_ = reinterpret_cast<MountTableHeader*>(bytes);
  table.buckets_ = reinterpret_cast<MountBucket*>(bytes + header.buckets_offset);
  table.slots_ = reinterpret_cast<MountSlot*>(bytes + header.slots_offset);
  table.paths_ = reinterpret_cast<SharedWord*>(bytes + header.paths_offset);
  table.mapped_ = header.total_size;
  table.capacity_ = header.capacity;
  table.bucket_mask_ = header.bucket_count - 1;
  table.seed_ = header.seed;
  table.writable_ = writable;
  out = std::move(table);
  return 0;
}

int MountTable::attach_reader(int fd, MountTable& out) {
  return attach(fd, false, out);
}

int MountTable::lookup(const NormalPath& path, MountMatch& out) const {
  return read_consistently([&] { return search_prefixes(path, out); });
}

int MountTable::find(const NormalPath& path, MountEntry& out) const {
  return read_consistently([&] {
    const std::uint32_t slot = find_slot(path);
    if (slot == kNone) return -ENOENT;
    out = load_entry(slot);
    return 0;
  });
}

int MountTable::read_slot(std::uint32_t slot, NormalPath& path, MountEntry& entry) const {
  return read_consistently([&] { return load_slot(slot, path, entry); });
}

std::uint64_t MountTable::generation() const {
  return header_ == nullptr ? 0 : header_->sequence.load(std::memory_order_acquire) / 2;
}

std::uint32_t MountTable::size() const {
  return header_ == nullptr ? 0 : static_cast<std::uint32_t>(load(header_->entry_count));
}

// From the root down, so that only as much of the path is hashed as the deepest entry needs, and no array of
// prefixes is kept on a stack that may be a thread's smallest. Depths without an entry cost no probe.
int MountTable::search_prefixes(const NormalPath& path, MountMatch& out) const {
  const std::uint64_t deepest = load(header_->deepest);
  std::uint32_t found = kNone;
  std::size_t length = 0;
  PrefixWalk walk(path, seed_);
  do {
    const std::size_t depth = walk.depth();
    if (depth > deepest || depth > kMaxDepth) break;
    if ((load(header_->depths[depth / 64]) >> (depth % 64) & 1) == 0) continue;
    const std::uint32_t slot = find_slot(path.data(), walk.length(), walk.hash());
    if (slot == kNone) continue;
    found = slot;
    length = walk.length();
  } while (walk.next());

  if (found == kNone) return -ENOENT;
  out.entry = load_entry(found);
  out.prefix_length = length;
  out.exact = length == path.size();
  return (out.entry.flags & kMountKernel) != 0 ? -ENOENT : 0;
}

std::uint32_t MountTable::find_slot(const NormalPath& path) const {
  PrefixWalk walk(path, seed_);
  while (walk.next()) {
  }
  return find_slot(path.data(), path.size(), walk.hash());
}

std::uint32_t MountTable::find_slot(const char* path, std::size_t length, std::uint64_t hash) const {
  std::uint64_t at = hash & bucket_mask_;
  for (std::uint64_t probes = 0; probes <= bucket_mask_; ++probes, at = (at + 1) & bucket_mask_) {
    const std::uint64_t number = load(buckets_[at].slot);
    if (number == 0) return kNone;
    if (load(buckets_[at].hash) != hash || number > slot_count()) continue;
    const auto slot = static_cast<std::uint32_t>(number - 1);
    if (path_is(slot, path, length)) return slot;
  }
  return kNone;
}

bool MountTable::path_is(std::uint32_t slot, const char* path, std::size_t length) const {
  if (load(slots_[slot].length) != length) return false;
  const SharedWord* words = path_words(slot);
  for (std::size_t at = 0; at < length; at += 8) {
    if (load(words[at / 8]) != load_word(path + at, length - at)) return false;
  }
  return true;
}

const SharedWord* MountTable::path_words(std::uint32_t slot) const {
  return paths_ + std::size_t{slot} * (kPathStride / sizeof(SharedWord));
}

MountEntry MountTable::load_entry(std::uint32_t slot) const {
  const MountSlot& s = slots_[slot];
  const std::uint64_t ids = load(s.service_instance);
  return {static_cast<std::uint32_t>(ids),
          static_cast<std::uint32_t>(ids >> 32),
          static_cast<std::uint32_t>(load(s.flags)),
          load(s.device),
          load(s.mount_id),
          load(s.generation)};
}

// -ENOENT: a free slot; -EAGAIN: what it holds is no normalised path, so it is torn or damaged.
int MountTable::load_slot(std::uint32_t slot, NormalPath& path, MountEntry& entry) const {
  const std::uint64_t length = load(slots_[slot].length);
  if (length == 0) return -ENOENT;
  if (length > kMaxPathLength) return -EAGAIN;
  std::uint64_t text[kPathStride / 8];
  for (std::size_t i = 0; i * 8 < length; ++i) text[i] = load(path_words(slot)[i]);
  const std::string_view stored(reinterpret_cast<const char*>(text), length);
  if (normalise(stored, path) != 0 || path.view() != stored) return -EAGAIN;
  entry = load_entry(slot);
  return 0;
}

}  // namespace poly
