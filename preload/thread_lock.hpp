// ThreadLock: a futex lock that its own thread may take again, because a signal handler may call into the
// library in the middle of anything. Who holds it sees what it guards in a consistent state at every
// instruction at which a handler may come, or blocks signals (SignalsBlocked).
//
// The word is the owner's thread id; bit 31: somebody sleeps on it. In shared nothing: private futexes.
#pragma once

#include <linux/futex.h>

#include <atomic>
#include <cstdint>

#include "preload/sys.hpp"

namespace poly {

// This thread's id, asked of the kernel once. A forked child's only thread must forget its parent's.
uint32_t thread_id();
void forget_thread_id();

class ThreadLock {
 public:
  // False: this thread holds it already, and the outer holder unlocks it.
  [[nodiscard]] bool lock() {
    const uint32_t self = thread_id();
    uint32_t seen = 0;
    if (word_.compare_exchange_strong(seen, self, std::memory_order_acquire)) return true;
    if ((seen & ~kSleepers) == self) return false;
    lock_slowly(self);
    return true;
  }
  void unlock() {
    if (word_.exchange(0, std::memory_order_release) & kSleepers)
      sys::call(SYS_futex, sys::word(&word_), FUTEX_WAKE_PRIVATE, 1);
  }
  // For the only thread of a forked child: whoever held it is not here.
  void reset() { word_.store(0, std::memory_order_relaxed); }

 private:
  static constexpr uint32_t kSleepers = 1u << 31;

  void lock_slowly(uint32_t self) {
    for (;;) {
      uint32_t seen = word_.load(std::memory_order_relaxed);
      if (seen == 0) {
        // Others may sleep still: the bit costs one idle wake, losing it would cost a sleeper.
        if (word_.compare_exchange_weak(seen, self | kSleepers, std::memory_order_acquire)) return;
        continue;
      }
      if (!(seen & kSleepers) && !word_.compare_exchange_weak(seen, seen | kSleepers)) continue;
      sys::call(SYS_futex, sys::word(&word_), FUTEX_WAIT_PRIVATE, static_cast<long>(seen | kSleepers));
    }
  }

  std::atomic<uint32_t> word_{0};
};

class ThreadLockHold {
 public:
  explicit ThreadLockHold(ThreadLock& lock) : lock_(lock), outermost_(lock.lock()) {}
  ~ThreadLockHold() {
    if (outermost_) lock_.unlock();
  }
  ThreadLockHold(const ThreadLockHold&) = delete;
  ThreadLockHold& operator=(const ThreadLockHold&) = delete;

 private:
  ThreadLock& lock_;
  bool outermost_;
};

// No handler runs in this thread while it lives.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    const uint64_t all = ~uint64_t{0};
    sys::call(SYS_rt_sigprocmask, kSigBlock, sys::word(&all), sys::word(&before_), sizeof(before_));
  }
  ~SignalsBlocked() { sys::call(SYS_rt_sigprocmask, kSigSetMask, sys::word(&before_), 0, sizeof(before_)); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  static constexpr long kSigBlock = 0, kSigSetMask = 2;
  uint64_t before_ = 0;
};

}  // namespace poly
