// Records in pool memory joined with their objects in the heap.
//
// An id is index | generation << 32. get() hands out a reference, so that an object outlives whoever retires
// its record. Locks: stripe (by index) guards the liveness of a record, its heap pointer and what the tables
// built on this one say; free_lock_ guards the free list. Order: stripe > free_lock_; two stripes are never
// held together.
#pragma once

#include <sys/mman.h>

#include <array>
#include <mutex>
#include <vector>

#include "libservices/ref.hpp"
#include "native/core/pool_memory.hpp"

namespace poly {

template <typename Record, typename Object>
class RecordTable {
 public:
  // Index 0 is never used: id 0 is nothing, and FUSE's id 1 is the root of any connection.
  static constexpr uint32_t kFirst = 2;

  RecordTable(Record* records, uint32_t capacity, std::atomic<uint32_t>& used)
      : records_(records), capacity_(capacity), used_(used) {
    void* memory = mmap(nullptr, sizeof(Object*) * capacity, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    objects_ = memory == MAP_FAILED ? nullptr : static_cast<Object**>(memory);
    if (used_.load() < kFirst) used_.store(kFirst);
    for (uint32_t i = used_.load(); i-- > kFirst;) {
      if (!live(i)) free_.push_back(i);
    }
  }
  ~RecordTable() {
    if (!objects_) return;
    for (uint32_t i = kFirst; i < used_.load(); i++) {
      if (objects_[i]) objects_[i]->release();
    }
    munmap(objects_, sizeof(Object*) * capacity_);
  }
  RecordTable(const RecordTable&) = delete;
  RecordTable& operator=(const RecordTable&) = delete;

  Record& record(uint32_t index) { return records_[index]; }
  std::mutex& stripe(uint32_t index) { return stripes_[index % stripes_.size()]; }
  bool live(uint32_t index) const { return (records_[index].state.load(std::memory_order_acquire) & 1) != 0; }
  uint64_t id(uint32_t index) const {
    return uint64_t{records_[index].state.load(std::memory_order_relaxed) >> 1} << 32 | index;
  }
  // Index of a live record that the id means, or 0. Caller holds the stripe for an answer that stays true.
  uint32_t index_of(uint64_t id) const {
    auto index = static_cast<uint32_t>(id);
    if (index < kFirst || index >= used_.load(std::memory_order_acquire)) return 0;
    uint32_t word = records_[index].state.load(std::memory_order_acquire);
    return (word & 1) && word >> 1 == id >> 32 ? index : 0;
  }

  // A free record, not yet live, or 0 when the table is full. Its id is a new one from here on: who reserved
  // it may have noted the id elsewhere and died, and then it must never mean what another makes of the
  // record.
  [[nodiscard]] uint32_t reserve() {
    std::lock_guard guard(free_lock_);
    uint32_t index;
    if (!free_.empty()) {
      index = free_.back();
      free_.pop_back();
    } else {
      index = used_.load(std::memory_order_relaxed);
      if (index == capacity_ || !objects_) return 0;
      used_.store(index + 1, std::memory_order_release);
    }
    records_[index].state.fetch_add(2, std::memory_order_relaxed);
    return index;
  }
  // Makes a reserved and filled record live; takes the reference. Returns its id.
  uint64_t publish(uint32_t index, Ref<Object> object) {
    std::lock_guard guard(stripe(index));
    objects_[index] = object.leak();
    records_[index].state.fetch_or(1, std::memory_order_release);
    return id(index);
  }
  // Caller holds the stripe. The object's reference goes to the caller, to be dropped outside the lock.
  [[nodiscard]] Ref<Object> retire(uint32_t index) {
    uint32_t word = records_[index].state.load(std::memory_order_relaxed);
    records_[index].state.store((word | 1) + 1, std::memory_order_release);
    Ref<Object> object = Ref<Object>::adopt(objects_[index]);
    objects_[index] = nullptr;
    std::lock_guard guard(free_lock_);
    free_.push_back(index);
    return object;
  }
  // Of a live record, null if it has none; caller holds the stripe.
  Ref<Object> object(uint32_t index) { return Ref<Object>::share(objects_[index]); }
  Ref<Object> get(uint64_t id, uint32_t instance) {
    auto index = static_cast<uint32_t>(id);
    std::lock_guard guard(stripe(index));
    if (!index_of(id) || records_[index].instance != instance) return nullptr;
    return Ref<Object>::share(objects_[index]);
  }
  // Gives a live record of before a restart its object. Keeps the first one when two threads restore at once.
  Ref<Object> restore(uint64_t id, Ref<Object> object) {
    auto index = static_cast<uint32_t>(id);
    std::lock_guard guard(stripe(index));
    if (!index_of(id)) return nullptr;
    if (!objects_[index]) objects_[index] = Ref<Object>(object).leak();
    return Ref<Object>::share(objects_[index]);
  }
  template <typename Visit>
  void for_each_live(Visit visit) {
    for (uint32_t i = kFirst; i < used_.load(std::memory_order_acquire); i++) {
      if (live(i)) visit(i, records_[i]);
    }
  }
  uint64_t count(uint32_t instance) {
    uint64_t n = 0;
    for_each_live([&](uint32_t, Record& record) { n += record.instance == instance; });
    return n;
  }

 private:
  Record* records_;
  uint32_t capacity_;
  std::atomic<uint32_t>& used_;
  Object** objects_;
  std::array<std::mutex, 256> stripes_;
  std::mutex free_lock_;
  std::vector<uint32_t> free_;  // guarded by free_lock_
};

}  // namespace poly
