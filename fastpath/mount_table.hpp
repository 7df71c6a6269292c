// The mount table: which filesystem instance serves a path. A hash table in pool shared memory (a memfd),
// written by one process (polyd), read without locks by many that map it read-only; longest-prefix match on
// whole components.
//
// Layout (offsets, never pointers; see mount_table_layout.hpp): header | buckets (hash, slot number) | slots
// (one 64-byte record per entry) | one 4 KiB path per slot. The memfd is sparse: an empty table costs a few
// pages.
//
// Memory order: a seqlock. The writer makes `sequence` odd, stores with release, makes it even; a reader
// loads with acquire and believes what it read only if `sequence` was the same even number before and after.
// Every shared word is an atomic, so a torn read is a wrong number, not undefined behaviour, and every number
// is checked before use. Readers do not write and so never delay the writer. They try a bounded number of
// times and then answer -EAGAIN (a busy writer, or one that died half way): the caller lets the kernel
// resolve the path, which is always right.
//
// A writer that dies at any instruction leaves either the old or the new set of entries: records are
// committed by one store, and attach_writer() rebuilds the rest from them.
//
// Thread safety: lookups from any thread of any process, also on the writer's own object. Changes: one thread
// of one process at a time; the caller sees to that. No exceptions; the reading half needs nothing beyond
// libc.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "fastpath/fd.hpp"
#include "fastpath/path.hpp"

namespace poly {

// MountEntry::flags.
inline constexpr std::uint32_t kMountReadOnly = 1u << 0;
// A kernel mount (not ours) below one of ours: lookups at or below it answer -ENOENT, "not ours".
inline constexpr std::uint32_t kMountKernel = 1u << 1;
// Mounted below another of our mounts. For listings; lookups do not need it.
inline constexpr std::uint32_t kMountNested = 1u << 2;

struct MountEntry {
  std::uint32_t service = 0;     // filesystem service
  std::uint32_t instance = 0;    // filesystem instance in that service
  std::uint32_t flags = 0;       // kMount...
  std::uint64_t device = 0;      // st_dev of the FUSE mount
  std::uint64_t mount_id = 0;    // statx(2) stx_mnt_id of it
  std::uint64_t generation = 0;  // MountTable::generation() when it was written; set by insert() and update()
};

struct MountMatch {
  MountEntry entry;
  std::size_t prefix_length = 0;  // of the entry's path, in bytes; 1 for an entry at the root
  bool exact = false;             // the path is the mount point itself
};

using SharedWord = std::atomic<std::uint64_t>;
struct MountTableHeader;
struct MountBucket;
struct MountSlot;

class MountTable {
 public:
  static constexpr std::uint32_t kDefaultCapacity = 4096;
  static constexpr std::uint32_t kMaxCapacity = 65536;

  MountTable() = default;
  MountTable(MountTable&& other) noexcept;
  MountTable& operator=(MountTable&& other) noexcept;
  MountTable(const MountTable&) = delete;
  MountTable& operator=(const MountTable&) = delete;
  ~MountTable();

  // A new empty table for `capacity` entries (1 to kMaxCapacity, else -EINVAL): a memfd whose size is sealed,
  // so that a mapping of it never raises SIGBUS. The descriptor can write: it belongs to the writer and the
  // keeper only.
  [[nodiscard]] static int create(std::uint32_t capacity, Fd& out);
  // A descriptor of the same table that can only be read and mapped read-only, for handing to clients. (Not
  // F_SEAL_FUTURE_WRITE: that would keep out a restarted polyd too. The memfd's mode keeps other users from
  // opening it again for writing through /proc.)
  [[nodiscard]] static int read_only(int fd, Fd& out);

  // Map the table; `fd` may be closed afterwards. -EINVAL: not a sealed memfd, or not our layout; -EPROTO:
  // another ABI version. attach_writer() also repairs what a writer that died left half done; -EACCES for a
  // read-only descriptor.
  [[nodiscard]] static int attach_writer(int fd, MountTable& out);
  [[nodiscard]] static int attach_reader(int fd, MountTable& out);

  explicit operator bool() const { return header_ != nullptr; }

  // The longest entry that is `path` or an ancestor of it. 0; -ENOENT: not ours; -EAGAIN: could not be read
  // now, ask the kernel; -EBADF: not attached. Cost: one hash step per component down to the deepest entry,
  // one probe per depth in use. `out` means nothing unless 0 is returned.
  [[nodiscard]] int lookup(const NormalPath& path, MountMatch& out) const;
  // The entry at exactly `path`, kernel entries included. Same errors.
  [[nodiscard]] int find(const NormalPath& path, MountEntry& out) const;

  // Changes. -EBADF on a table that is not attached for writing. insert: -EEXIST, -ENOSPC. remove, update:
  // -ENOENT.
  [[nodiscard]] int insert(const NormalPath& path, const MountEntry& entry);
  [[nodiscard]] int remove(const NormalPath& path);
  [[nodiscard]] int update(const NormalPath& path, const MountEntry& entry);
  // Starts a new generation without changing an entry: mounts of others have changed, so that what readers
  // have verified about a path must be verified again.
  [[nodiscard]] int touch();

  // Grows with every change. A reader that verified a mount may rely on it while this number stays.
  [[nodiscard]] std::uint64_t generation() const;
  [[nodiscard]] std::uint32_t size() const;
  [[nodiscard]] std::uint32_t capacity() const { return capacity_; }

  // Calls visit(std::string_view path, const MountEntry&) for each entry, in no order. Each entry is whole,
  // but the list is no snapshot when the writer is at work: compare generation() before and after where that
  // matters. 0 or -EAGAIN.
  template <class Visit>
  [[nodiscard]] int for_each(Visit&& visit) const {
    NormalPath path;
    MountEntry entry;
    std::uint32_t left = size();
    for (std::uint32_t slot = 0; slot < slot_count() && left > 0; ++slot) {
      const int rc = read_slot(slot, path, entry);
      if (rc == -ENOENT) continue;
      if (rc < 0) return rc;
      --left;
      visit(path.view(), static_cast<const MountEntry&>(entry));
    }
    return 0;
  }

 private:
  class WriteSection;
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};  // no slot, no bucket

  [[nodiscard]] static int attach(int fd, bool writable, MountTable& out);
  void unmap();

  // One slot more than entries, so that update() writes a whole new record before it drops the old one.
  [[nodiscard]] std::uint32_t slot_count() const { return header_ == nullptr ? 0 : capacity_ + 1; }

  // Reading: these may see torn state; every index is checked, and the caller checks the sequence afterwards.
  template <class Read>
  int read_consistently(Read&& read) const;
  [[nodiscard]] std::uint32_t find_slot(const char* path, std::size_t length, std::uint64_t hash) const;
  [[nodiscard]] std::uint32_t find_slot(const NormalPath& path) const;
  [[nodiscard]] const SharedWord* path_words(std::uint32_t slot) const;
  [[nodiscard]] bool path_is(std::uint32_t slot, const char* path, std::size_t length) const;
  [[nodiscard]] MountEntry load_entry(std::uint32_t slot) const;
  [[nodiscard]] int search_prefixes(const NormalPath& path, MountMatch& out) const;
  [[nodiscard]] int load_slot(std::uint32_t slot, NormalPath& path, MountEntry& entry) const;
  [[nodiscard]] int read_slot(std::uint32_t slot, NormalPath& path, MountEntry& entry) const;

  // Writing. The first three only look; the others are called inside a WriteSection.
  [[nodiscard]] std::uint32_t free_slot() const;
  [[nodiscard]] bool depth_in_use(std::uint64_t depth, std::uint32_t except_slot) const;
  [[nodiscard]] std::uint32_t bucket_of(std::uint64_t hash, std::uint32_t slot) const;
  void write_slot(std::uint32_t slot, const NormalPath& path, const MountEntry& entry);
  void index_slot(std::uint32_t slot);
  void unindex(std::uint32_t bucket);
  void mark_depth(std::uint64_t depth, bool used);
  void rebuild();
  void adopt(std::uint32_t slot);

  // Copied from the header when attached and never read again from memory that another process writes.
  MountTableHeader* header_ = nullptr;
  MountBucket* buckets_ = nullptr;
  MountSlot* slots_ = nullptr;
  SharedWord* paths_ = nullptr;
  std::size_t mapped_ = 0;
  std::uint32_t capacity_ = 0;
  std::uint32_t bucket_mask_ = 0;
  std::uint64_t seed_ = 0;
  bool writable_ = false;
};

}  // namespace poly
