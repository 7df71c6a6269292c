// What copy method suits one kind of transfer here and now. A calibration (copy_calibration.hpp) says how two
// threads fared once; but the system call on the other side has its part in it, and the CPUs of a virtual
// machine move: what was half as dear becomes twice as dear when two of them stop sharing a cache. So large
// transfers are timed, and the fastest method is taken; now and then another is tried.
//
// Zeroed memory is a valid one. Thread safe: a race loses a measurement.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "fastpath/copy.hpp"

namespace poly {

class CopyChooser {
 public:
  // Below that the clock costs more than there is to gain: the calibration decides.
  static constexpr size_t kLeastTimed = 16 * 1024;

  [[nodiscard]] CopyMethod choose(size_t size, CopyMethods allowed, const CopyTable& calibration) {
    if (size < kLeastTimed) return calibration.choose(size, allowed);
    Class& c = classes_[copy_class(size)];
    const uint32_t turn = c.turns.fetch_add(1, std::memory_order_relaxed);
    // Every method a few times at first, then one of them now and then.
    const bool tries = turn < kFirstTries * kCopyMethods || turn % kTryEvery == 0;
    if (tries) return nth(allowed, turn < kFirstTries * kCopyMethods ? turn : turn / kTryEvery);
    CopyMethod best = calibration.choose(size, allowed);
    uint32_t least = c.ns[static_cast<uint32_t>(best)].load(std::memory_order_relaxed);
    for (uint32_t method = 0; method < kCopyMethods; ++method) {
      const uint32_t ns = c.ns[method].load(std::memory_order_relaxed);
      if ((allowed >> method & 1) == 0 || ns == 0 || (least != 0 && ns >= least)) continue;
      least = ns;
      best = static_cast<CopyMethod>(method);
    }
    return best;
  }

  // A transfer took so long. Slow ones, which somebody may have come between, count less than fast ones.
  void took(CopyMethod method, size_t size, uint64_t ns) {
    if (size < kLeastTimed) return;
    std::atomic<uint32_t>& mean = classes_[copy_class(size)].ns[static_cast<uint32_t>(method)];
    const uint64_t before = mean.load(std::memory_order_relaxed);
    const uint64_t now = std::clamp<uint64_t>(ns, 1, before != 0 ? 2 * before : UINT32_MAX / kWeight);
    const uint64_t after = before == 0    ? now
                           : now < before ? (before + now) / 2
                                          : (before * (kWeight - 1) + now) / kWeight;
    mean.store(static_cast<uint32_t>(std::max<uint64_t>(after, 1)), std::memory_order_relaxed);
  }

 private:
  static constexpr uint32_t kFirstTries = 4, kTryEvery = 32, kWeight = 8;

  static CopyMethod nth(CopyMethods allowed, uint32_t n) {
    for (n %= static_cast<uint32_t>(std::popcount(allowed));; --n, allowed &= allowed - 1)
      if (n == 0) return static_cast<CopyMethod>(std::countr_zero(allowed));
  }

  struct Class {
    std::atomic<uint32_t> turns;
    std::atomic<uint32_t> ns[kCopyMethods];  // running means; 0: never tried
  };
  Class classes_[kCopyClasses];
};

}  // namespace poly
