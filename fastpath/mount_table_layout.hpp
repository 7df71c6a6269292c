// The bytes of the mount table, as every process that maps it must see them. A change here is a new
// kAbiVersion.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "fastpath/path.hpp"

namespace poly {

using SharedWord = std::atomic<std::uint64_t>;
static_assert(SharedWord::is_always_lock_free && sizeof(SharedWord) == 8, "shared words are plain memory");
static_assert(std::endian::native == std::endian::little, "paths are compared as little-endian words");

// Bit d is set when an entry of d components exists (the root has none). A path of 4095 bytes has at most
// 2047.
inline constexpr std::size_t kMaxDepth = kMaxPathLength / 2;
inline constexpr std::size_t kDepthWords = (kMaxDepth + 1 + 63) / 64;

struct MountTableHeader {
  static constexpr std::uint64_t kMagic = 0x31626174746e6d70;  // "pmnttab1"
  static constexpr std::uint32_t kAbiVersion = 1;

  // Written once by create(), before anybody else can map the table.
  std::uint64_t magic;
  std::uint32_t abi_version;
  std::uint32_t capacity;
  std::uint32_t bucket_count;  // a power of two
  std::uint32_t reserved;
  std::uint64_t seed;  // of the hash, so that nobody can choose paths that collide
  std::uint64_t buckets_offset;
  std::uint64_t slots_offset;
  std::uint64_t paths_offset;
  std::uint64_t total_size;

  // Odd while the writer is at work. Everything below, and all buckets, slots and paths, is guarded by it.
  alignas(64) SharedWord sequence;
  SharedWord entry_count;
  SharedWord deepest;  // the highest bit in depths; 0 as well when there is none
  alignas(64) SharedWord depths[kDepthWords];
};
static_assert(offsetof(MountTableHeader, magic) == 0);
static_assert(offsetof(MountTableHeader, seed) == 24);
static_assert(offsetof(MountTableHeader, total_size) == 56);
static_assert(offsetof(MountTableHeader, sequence) == 64);
static_assert(offsetof(MountTableHeader, depths) == 128);
static_assert(sizeof(MountTableHeader) == 128 + 8 * kDepthWords && kDepthWords == 32);

// Linear probing; removal moves later buckets back, so there are no tombstones.
struct MountBucket {
  SharedWord hash;
  SharedWord slot;  // slot number + 1; 0 ends a probe
};
static_assert(sizeof(MountBucket) == 16);

struct MountSlot {
  SharedWord
      length;  // of the path; 0: free. Stored last when written, first when freed: the commit of a change.
  SharedWord hash;
  SharedWord service_instance;  // service in the low half
  SharedWord flags;
  SharedWord device;
  SharedWord mount_id;
  SharedWord generation;
  SharedWord depth;  // components in the path
};
static_assert(sizeof(MountSlot) == 64);

// Path bytes as words, the last one zero-padded.
inline constexpr std::size_t kPathStride = 4096;
static_assert(kPathStride >= kMaxPathLength && kPathStride % sizeof(SharedWord) == 0);

inline constexpr std::size_t kTablePage = 4096;

// Where things are in a table for `capacity` entries.
struct MountTableLayout {
  explicit constexpr MountTableLayout(std::uint32_t capacity)
      : bucket_count(std::bit_ceil(2 * (capacity + 1))),
        buckets(round_up(sizeof(MountTableHeader))),
        slots(round_up(buckets + std::uint64_t{bucket_count} * sizeof(MountBucket))),
        paths(round_up(slots + std::uint64_t{capacity + 1} * sizeof(MountSlot))),
        total(paths + std::uint64_t{capacity + 1} * kPathStride) {}

  static constexpr std::uint64_t round_up(std::uint64_t n) {
    return (n + kTablePage - 1) & ~(kTablePage - 1);
  }

  std::uint32_t bucket_count;
  std::uint64_t buckets;
  std::uint64_t slots;
  std::uint64_t paths;
  std::uint64_t total;
};

// Reads 8 bytes, of which the first `count` (1 to 8) matter and the others become zero.
inline std::uint64_t load_word(const char* p, std::size_t count) {
  std::uint64_t word;
  std::memcpy(&word, p, sizeof(word));
  return count >= sizeof(word) ? word : word & ((std::uint64_t{1} << (8 * count)) - 1);
}

// The hash of a path, one component (with the slash before it) at a time, so that one walk yields the hash of
// each prefix. The root's is that of no component. Components are followed by 8 readable bytes (NormalPath).
class PathHash {
 public:
  explicit PathHash(std::uint64_t seed) : state_(seed) {}

  void add(const char* component, std::size_t length) {
    for (std::size_t at = 0; at < length; at += 8) {
      state_ = (state_ ^ load_word(component + at, length - at)) * 0x9e3779b97f4a7c15;
      state_ ^= state_ >> 29;
    }
  }
  [[nodiscard]] std::uint64_t value() const { return (state_ ^ (state_ >> 32)) * 0xd6e8feb86659fd93 >> 1; }

 private:
  std::uint64_t state_;
};

// Walks a path from the root down: after n calls of next() it stands on the prefix of n components.
class PrefixWalk {
 public:
  PrefixWalk(const NormalPath& path, std::uint64_t seed) : path_(path), hash_(seed) {}

  bool next() {
    if (end_ >= path_.size() || path_.size() == 1) return false;
    const std::size_t begin = end_++;
    while (end_ < path_.size() && path_.data()[end_] != '/') ++end_;
    hash_.add(path_.data() + begin, end_ - begin);
    ++depth_;
    return true;
  }
  [[nodiscard]] std::size_t length() const { return depth_ == 0 ? 1 : end_; }
  [[nodiscard]] std::size_t depth() const { return depth_; }
  [[nodiscard]] std::uint64_t hash() const { return hash_.value(); }

 private:
  const NormalPath& path_;
  PathHash hash_;
  std::size_t end_ = 0;
  std::size_t depth_ = 0;
};

}  // namespace poly
