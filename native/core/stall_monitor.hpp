// Watches a set of threads that handle requests: when all of them are busy and none has finished anything for
// kStall, it asks for one more. While nothing is going on it sleeps, and costs the threads one load a
// request.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

namespace poly {

class StallMonitor {
 public:
  // `threads`: how many there are now; `grow`: start another (which may decline).
  StallMonitor(std::function<size_t()> threads, std::function<void()> grow);
  ~StallMonitor() { stop(); }

  // Around each request, by the thread that handles it.
  void begin() {
    busy_.fetch_add(1);  // before the flag is read, which the monitor raises before it looks at this
    if (asleep_.load()) wake();
  }
  void end() {
    busy_.fetch_sub(1, std::memory_order_relaxed);
    handled_.fetch_add(1, std::memory_order_relaxed);
  }
  void stop();

  size_t busy() const { return busy_.load(std::memory_order_relaxed); }
  uint64_t handled() const { return handled_.load(std::memory_order_relaxed); }

 private:
  static constexpr auto kStall = std::chrono::milliseconds(5);
  static constexpr int kQuietLooks = 20;

  void run();
  void wake();
  void sleep(std::unique_lock<std::mutex>& guard);

  const std::function<size_t()> threads_;
  const std::function<void()> grow_;
  std::atomic<size_t> busy_{0};
  std::atomic<uint64_t> handled_{0};
  std::atomic<bool> asleep_{false};
  bool stopping_ = false;  // guarded by lock_
  std::mutex lock_;
  std::condition_variable wake_;
  std::thread thread_;
};

}  // namespace poly
