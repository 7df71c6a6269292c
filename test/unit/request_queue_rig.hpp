// What the request queue's tests share: memory for a queue, numbered hints, waiting between tries.
#pragma once

#include <sys/mman.h>

#include <chrono>
#include <thread>

#include "fastpath/request_queue.hpp"
#include "test/unit/check.hpp"

namespace queue_test {

using poly::Hint;
using poly::HintQueue;
using poly::RequestQueue;
using poly::SlotPhase;
using poly::SlotState;
using Clock = std::chrono::steady_clock;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint32_t kScale = 10;
#else
constexpr uint32_t kScale = 1;
#endif

inline double milliseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

// Between tries of a thread that waits: not sched_yield(), which gives a whole time slice to whatever else
// runs.
class Patience {
 public:
  void wait() {
    if (++tries_ % 64 == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
  }

 private:
  uint32_t tries_ = 0;
};

// Zeroed memory that forked children share.
class Shared {
 public:
  explicit Shared(size_t size) : size_(size) {
    memory_ = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory_ != MAP_FAILED);
  }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared() { munmap(memory_, size_); }
  void* get() const { return memory_; }
  size_t size() const { return size_; }

 private:
  void* memory_ = nullptr;
  size_t size_;
};

template <HintQueue Queue>
struct Rig {
  explicit Rig(uint32_t capacity) : memory(Queue::bytes(capacity)), capacity(capacity) {
    Queue::format(memory.get(), capacity);
  }
  Queue view(uint32_t owner = 1) const { return Queue(memory.get(), capacity, owner); }
  auto& layout() const { return *static_cast<typename Queue::Layout*>(memory.get()); }

  Shared memory;
  uint32_t capacity;
};

inline Hint numbered(uint32_t n) {
  return {n, static_cast<uint16_t>(n * 7), ~n};
}

}  // namespace queue_test
