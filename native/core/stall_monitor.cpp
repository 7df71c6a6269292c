#include "native/core/stall_monitor.hpp"

#include "native/core/thread_start.hpp"

namespace poly {

StallMonitor::StallMonitor(std::function<size_t()> threads, std::function<void()> grow)
    : threads_(std::move(threads)), grow_(std::move(grow)), thread_([this] { run(); }) {}

void StallMonitor::stop() {
  {
    std::lock_guard guard(lock_);
    stopping_ = true;
    wake_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void StallMonitor::wake() {
  std::lock_guard guard(lock_);
  asleep_.store(false);
  wake_.notify_one();
}

void StallMonitor::sleep(std::unique_lock<std::mutex>& guard) {
  asleep_.store(true);
  // Checked again after the flag is up: a thread that came before it did not wake us.
  if (busy_.load() == 0) wake_.wait(guard, [&] { return stopping_ || !asleep_.load(); });
  asleep_.store(false);
}

void StallMonitor::run() {
  begin_thread("poly-monitor");
  uint64_t last = 0;
  int quiet = 0;
  std::unique_lock guard(lock_);
  while (!stopping_) {
    if (busy_.load() == 0 && handled_.load() == last && ++quiet > kQuietLooks) {
      sleep(guard);
      quiet = 0;
      continue;
    }
    last = handled_.load();
    wake_.wait_for(guard, kStall);
    if (stopping_) return;
    if (handled_.load() != last)
      quiet = 0;
    else if (busy_.load() >= threads_())
      grow_();
  }
}

}  // namespace poly
