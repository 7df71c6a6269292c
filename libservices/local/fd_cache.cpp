#include "libservices/local/fd_cache.hpp"

namespace poly {

Ref<SharedFd> FdCache::find(const void* key) {
  Shard& s = shard(key);
  std::lock_guard guard(s.lock);
  auto it = s.items.find(key);
  if (it == s.items.end()) return nullptr;
  if (it->second != s.order.begin()) s.order.splice(s.order.begin(), s.order, it->second);
  return it->second->fd;
}

void FdCache::insert(const void* key, Ref<SharedFd> fd) {
  Ref<SharedFd> evicted;  // destroyed after the lock is gone
  Shard& s = shard(key);
  std::lock_guard guard(s.lock);
  if (s.items.contains(key)) return;
  s.order.push_front({key, std::move(fd)});
  s.items[key] = s.order.begin();
  if (s.items.size() > shard_capacity_) {
    evicted = std::move(s.order.back().fd);
    s.items.erase(s.order.back().key);
    s.order.pop_back();
  }
}

void FdCache::erase(const void* key) {
  Ref<SharedFd> erased;
  Shard& s = shard(key);
  std::lock_guard guard(s.lock);
  auto it = s.items.find(key);
  if (it == s.items.end()) return;
  erased = std::move(it->second->fd);
  s.order.erase(it->second);
  s.items.erase(it);
}

}  // namespace poly
