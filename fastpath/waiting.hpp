// Waiting across processes, aware of CPUs: futex(2) on shared words, and bounded spinning.
//
// Measured reasons (ARCHITECTURE.md, "Waiting"): a peer on another core answers a spinning waiter in half a
// microsecond; a peer on the same core cannot run while we spin, so we sleep at once and the scheduler hands
// over. Never sched_yield(2): with anything else runnable, yielders wait whole time slices for each other.
//
// libc only, no state but errno.
#pragma once

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

namespace poly {

inline void cpu_relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

inline uint64_t monotonic_now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// Not FUTEX_PRIVATE: the word is in memory of two processes. Returns 0, -EAGAIN (the word was not
// `expected`), -ETIMEDOUT, -EINTR. timeout_ns 0: none.
inline int futex_wait(const std::atomic<uint32_t>& word, uint32_t expected, uint64_t timeout_ns) {
  timespec timeout{static_cast<time_t>(timeout_ns / 1'000'000'000),
                   static_cast<long>(timeout_ns % 1'000'000'000)};
  long rc = syscall(SYS_futex, &word, FUTEX_WAIT, expected, timeout_ns ? &timeout : nullptr, nullptr, 0);
  return rc == 0 ? 0 : -errno;
}

inline void futex_wake(const std::atomic<uint32_t>& word, int waiters) {
  (void)syscall(SYS_futex, &word, FUTEX_WAKE, waiters, nullptr, nullptr, 0);
}

// The CPU this thread runs on at this moment; from rseq(2)'s memory or the vdso, a few nanoseconds.
inline uint32_t current_cpu() {
  int cpu = sched_getcpu();
  return cpu < 0 ? 0 : static_cast<uint32_t>(cpu);
}

// How long a waiter spins for a peer on another core: longer than a round trip and a short operation, shorter
// than what sleeping and being woken on an idle core costs (30-100 us).
inline constexpr uint64_t kSpinNs = 20'000;

// About what so many bytes take to cross once, by memcpy(3) or a system call: how much longer to wait for who
// is at it.
constexpr uint64_t crossing_ns(uint64_t bytes) {
  return bytes / 8;
}

// Looks at `ready` until it is true or `limit_ns` is over; true when it was ready.
template <typename Ready>
bool spin_until(Ready ready, uint64_t limit_ns) {
  constexpr int kLooksPerClock = 32;
  const uint64_t start = monotonic_now();
  for (;;) {
    for (int i = 0; i < kLooksPerClock; i++) {
      if (ready()) return true;
      cpu_relax();
    }
    if (monotonic_now() - start > limit_ns) return false;
  }
}

}  // namespace poly
