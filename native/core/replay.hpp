// Exactly once across the death of the service.
//
// A request that must not run twice leaves its trace in a pool-memory record while it is in flight:
//   kStarted   it has been taken up; nothing is known to have happened
//   kChecked   evidence is written down (the name was absent; this inode held the name; the append goes
//   there): from now
//              on a look at the libservice tells whether the operation happened
//   kDone      it happened, with this result
// The record is freed after the answer has been written. A successor finds what its predecessor left; when
// the kernel sends the request again (bit 63 of FUSE's `unique`) the same identity finds the record and
// decides: answer, probe, or run. Leftovers that are never asked for again were answered; they are reclaimed
// after kReclaimSeconds.
//
// Memory order: fields are plain stores by the owning thread, published by `phase` (release); read by a
// successor process.
#pragma once

#include <cstring>
#include <ctime>
#include <map>
#include <mutex>
#include <vector>

#include "native/core/pool_memory.hpp"

namespace poly {

enum ReplayPhase : uint32_t { kIdle, kStarted, kChecked, kDone };

class ReplayTable {
 public:
  static constexpr time_t kReclaimSeconds = 60;

  explicit ReplayTable(PoolMemory& pool) : pool_(pool) {
    uint32_t used = pool.header->replays_used.load();
    for (uint32_t i = 0; i < used; i++) {
      ReplayRecord& r = pool.replays[i];
      if (r.phase.load(std::memory_order_acquire) == kIdle)
        free_.push_back(i);
      else
        left_[{r.instance, r.identity}] = i;
    }
    time(&started_);
  }

  // The record a predecessor left for this request, or null. It is the caller's until release().
  ReplayRecord* find(uint32_t instance, uint64_t identity) {
    std::lock_guard guard(lock_);
    auto it = left_.find({instance, identity});
    if (it == left_.end()) return nullptr;
    ReplayRecord* record = &pool_.replays[it->second];
    left_.erase(it);
    return record;
  }

  // A record for a thread to use, request after request. Null when all are taken (then nothing is
  // remembered).
  ReplayRecord* reserve() {
    std::lock_guard guard(lock_);
    reclaim();
    if (!free_.empty()) {
      uint32_t index = free_.back();
      free_.pop_back();
      return &pool_.replays[index];
    }
    uint32_t next = pool_.header->replays_used.load();
    if (next == PoolMemory::kReplays) return nullptr;
    pool_.header->replays_used.store(next + 1);
    return &pool_.replays[next];
  }

  void release(ReplayRecord* record) {
    record->phase.store(kIdle, std::memory_order_release);
    std::lock_guard guard(lock_);
    free_.push_back(static_cast<uint32_t>(record - pool_.replays));
  }

 private:
  void reclaim() {  // caller holds lock_
    if (left_.empty() || time(nullptr) - started_ < kReclaimSeconds) return;
    for (auto& [key, index] : left_) {
      pool_.replays[index].phase.store(kIdle, std::memory_order_release);
      free_.push_back(index);
    }
    left_.clear();
  }

  PoolMemory& pool_;
  std::mutex lock_;
  time_t started_ = 0;
  std::map<std::pair<uint32_t, uint64_t>, uint32_t> left_;  // guarded by lock_
  std::vector<uint32_t> free_;                              // guarded by lock_
};

inline void replay_start(ReplayRecord& r, uint32_t instance, uint64_t identity, uint32_t op) {
  r.phase.store(kIdle, std::memory_order_relaxed);
  std::atomic_signal_fence(
      std::memory_order_seq_cst);  // SIGKILL stops this thread between any two stores, in order
  r.instance = instance;
  r.identity = identity;
  r.op = op;
  r.result = 0;
  r.entry = r.file = r.offset = 0;
  r.phase.store(kStarted, std::memory_order_release);
}

}  // namespace poly
