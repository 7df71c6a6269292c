// Counts and latency histograms per operation. Sharded, so that service threads on different CPUs do not
// share cache lines.
#pragma once

#include <sys/mman.h>
#include <time.h>

#include <atomic>
#include <bit>
#include <cstdint>

#include "fastpath/ops.hpp"

namespace poly {

inline uint64_t monotonic_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// The same clock as of the last tick, a few milliseconds behind at most: several times cheaper where reading
// the counter costs (70 ns on virtual machines that trap it).
inline uint64_t coarse_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

class OpStats {
 public:
  static constexpr size_t kShards = 4;
  static constexpr size_t kBuckets = 40;  // 2^39 ns: nine minutes

  struct Counters {
    std::atomic<uint64_t> count, errors, total_ns;
    std::atomic<uint64_t> histogram[kBuckets];
  };
  struct Totals {
    uint64_t count = 0, errors = 0, total_ns = 0;
    uint64_t histogram[kBuckets]{};
  };

  OpStats() {
    // Anonymous memory, so that an instance that never sees an operation pays nothing for its counters.
    void* memory =
        mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    counters_ = memory == MAP_FAILED ? nullptr : static_cast<Counters*>(memory);
  }
  ~OpStats() {
    if (counters_) munmap(counters_, kSize);
  }
  OpStats(const OpStats&) = delete;
  OpStats& operator=(const OpStats&) = delete;

  void add(Op op, size_t shard, bool failed, uint64_t ns) {
    if (!counters_) return;
    Counters& c = counters_[(shard % kShards) * kOpCount + static_cast<size_t>(op)];
    c.count.fetch_add(1, std::memory_order_relaxed);
    if (failed) c.errors.fetch_add(1, std::memory_order_relaxed);
    c.total_ns.fetch_add(ns, std::memory_order_relaxed);
    size_t bucket = ns ? static_cast<size_t>(std::bit_width(ns) - 1) : 0;
    c.histogram[bucket < kBuckets ? bucket : kBuckets - 1].fetch_add(1, std::memory_order_relaxed);
  }

  Totals totals(Op op) const {
    Totals sum;
    for (size_t shard = 0; counters_ && shard < kShards; shard++) {
      const Counters& c = counters_[shard * kOpCount + static_cast<size_t>(op)];
      sum.count += c.count.load(std::memory_order_relaxed);
      sum.errors += c.errors.load(std::memory_order_relaxed);
      sum.total_ns += c.total_ns.load(std::memory_order_relaxed);
      for (size_t i = 0; i < kBuckets; i++)
        sum.histogram[i] += c.histogram[i].load(std::memory_order_relaxed);
    }
    return sum;
  }

 private:
  static constexpr size_t kSize = sizeof(Counters) * kOpCount * kShards;
  Counters* counters_ = nullptr;
};

}  // namespace poly
