// Bounded cache of O_PATH descriptors, so that the service needs no fd per inode (limit 20,000, and that for
// all).
//
// A PathFd keeps its descriptor open while it lives, evicted or not. Locks: one per shard, held for list
// operations only, never across a system call but close(2) of an O_PATH fd (which does nothing to the file).
#pragma once

#include <array>
#include <list>
#include <mutex>
#include <unordered_map>

#include "fastpath/fd.hpp"
#include "libservices/ref.hpp"

namespace poly {

class SharedFd : public RefCounted {
 public:
  explicit SharedFd(Fd fd) : fd_(std::move(fd)) {}
  int get() const { return fd_.get(); }

 private:
  Fd fd_;
};

class FdCache {
 public:
  explicit FdCache(size_t capacity) : shard_capacity_(capacity / kShards + 1) {}

  // Null when not cached.
  Ref<SharedFd> find(const void* key);
  void insert(const void* key, Ref<SharedFd> fd);
  void erase(const void* key);

 private:
  static constexpr size_t kShards = 16;
  struct Item {
    const void* key;
    Ref<SharedFd> fd;
  };
  struct Shard {
    std::mutex lock;
    std::list<Item> order;  // guarded by lock; most recently used first
    std::unordered_map<const void*, std::list<Item>::iterator> items;  // guarded by lock
  };
  Shard& shard(const void* key) { return shards_[(reinterpret_cast<uintptr_t>(key) >> 6) % kShards]; }

  size_t shard_capacity_;
  std::array<Shard, kShards> shards_;
};

}  // namespace poly
