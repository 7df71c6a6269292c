// One timed transfer, as a read(2) moves it: the consumer (an application) asks, the producer (a service) has
// the data in memory of its own, and the consumer ends up with them in memory of its own. Calibration runs it
// between two threads, the benchmark between two processes.
//
// Both sides look for each other by spinning, so they want a CPU each; what they find in TrialMemory they
// trust.
#pragma once

#include <sys/types.h>

#include "fastpath/copy.hpp"

namespace poly {

inline constexpr size_t kTrialSize = 1u << 20;

// Shared between the two sides; zeroed before use.
struct TrialMemory {
  // By the consumer; the transfer it describes is ready to be read when `asked` moves on. Release, acquire.
  alignas(64) std::atomic<uint32_t> asked;
  CopyMethod method;
  bool stop;  // no transfer: produce() returns
  size_t size;
  const std::byte* source;  // in the producer's memory
  std::byte* target;        // in the consumer's
  pid_t consumer;
  // By the producer: follows `asked`.
  alignas(64) std::atomic<uint32_t> done;
  int result;  // 0 or -errno: CMA refused
  alignas(64) CopyProgress progress;
  alignas(4096) std::byte data[kTrialSize];
};

// The producer's side: serves until it is told to stop.
void trial_produce(TrialMemory&);

class TrialConsumer {
 public:
  explicit TrialConsumer(TrialMemory& memory);

  // Copies `size` bytes (at most kTrialSize) from the producer's `source` to this side's `target` by
  // `method`, which is not kAuto. Nanoseconds from asking until they are there, or -errno.
  [[nodiscard]] int64_t read(CopyMethod method, std::byte* target, const std::byte* source, size_t size);
  // Ends the producer.
  void stop();

 private:
  uint32_t ask(CopyMethod method);

  TrialMemory& memory_;
  uint32_t sequence_ = 0;
};

// CLOCK_MONOTONIC.
[[nodiscard]] int64_t monotonic_ns();

}  // namespace poly
