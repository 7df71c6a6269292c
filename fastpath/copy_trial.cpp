#include "fastpath/copy_trial.hpp"

#include <immintrin.h>
#include <unistd.h>

#include <ctime>

namespace poly {
namespace {

// Spins; after about a millisecond the other side is not running, and needs this CPU perhaps.
class Spin {
 public:
  void pause() {
    if (++turns_ < kTurns) return _mm_pause();
    usleep(50);
  }

 private:
  static constexpr uint32_t kTurns = 40'000;
  uint32_t turns_ = 0;
};

int produce(TrialMemory& memory, uint32_t sequence) {
  switch (memory.method) {
    case CopyMethod::kCma: {
      const ssize_t moved = cma_write(memory.consumer, memory.target, memory.source, memory.size);
      return moved < 0 ? static_cast<int>(moved) : 0;
    }
    case CopyMethod::kSmcPipelined:
      copy_chunks(memory.progress, sequence, memory.data, memory.source, memory.size);
      return 0;
    default:
      copy_crossing(memory.method, memory.data, memory.source, memory.size);
      return 0;
  }
}

}  // namespace

int64_t monotonic_ns() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void trial_produce(TrialMemory& memory) {
  uint32_t served = 0;
  for (;;) {
    uint32_t asked;
    for (Spin spin; (asked = memory.asked.load(std::memory_order_acquire)) == served;) spin.pause();
    if (memory.stop) return;
    memory.result = produce(memory, asked);
    memory.done.store(asked, std::memory_order_release);
    served = asked;
  }
}

TrialConsumer::TrialConsumer(TrialMemory& memory) : memory_(memory) {
  memory_.consumer = getpid();
}

uint32_t TrialConsumer::ask(CopyMethod method) {
  memory_.method = method;
  memory_.asked.store(++sequence_, std::memory_order_release);
  return sequence_;
}

int64_t TrialConsumer::read(CopyMethod method, std::byte* target, const std::byte* source, size_t size) {
  memory_.target = target;
  memory_.source = source;
  memory_.size = size;
  const int64_t begin = monotonic_ns();
  const uint32_t sequence = ask(method);
  if (method == CopyMethod::kSmcPipelined) {
    ChunkReader reader(memory_.progress, sequence, target, memory_.data, size);
    size_t done = 0;
    for (Spin spin; done < size;) {
      const size_t now = reader.step();
      if (now == done) spin.pause();
      done = now;
    }
  }
  for (Spin spin; memory_.done.load(std::memory_order_acquire) != sequence;) spin.pause();
  if (memory_.result != 0) return memory_.result;
  if (method == CopyMethod::kSmc || method == CopyMethod::kSmo)
    copy_crossing(method, target, memory_.data, size);
  return monotonic_ns() - begin;
}

void TrialConsumer::stop() {
  memory_.stop = true;
  ask(CopyMethod::kSmc);
}

}  // namespace poly
