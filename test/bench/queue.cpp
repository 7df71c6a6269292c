// poly-bench-queue PEER THREADS SPIN_NS MILLISECONDS | --list
//
// The paper's closed system: THREADS enqueuers, each waiting for the completion of its item before the next,
// and as many dequeuers that complete what they take. Everybody waits alike: spins for SPIN_NS, then sleeps
// in futex(2). Enqueuer i runs on CPU i, its dequeuer on the next, so that one pair is a pair of CPUs. Prints
// {enqueueMedianNs, enqueueP99Ns, tasksPerSecond}: enqueue latency is that of the push itself, without the
// wake-up of a sleeping dequeuer, which is the same for every queue.
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <x86intrin.h>

#include <array>
#include <bit>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>

#include "test/bench/queue_peers.hpp"

namespace poly_bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Settings {
  uint32_t threads;
  uint64_t spin_cycles;
  std::chrono::milliseconds time;
};

// Counts by cycles, 32 buckets to a power of two.
class Histogram {
 public:
  void add(uint64_t value) { counts_[bucket(value)]++; }
  void add(const Histogram& other) {
    for (size_t i = 0; i < counts_.size(); i++) counts_[i] += other.counts_[i];
  }
  uint64_t total() const {
    uint64_t sum = 0;
    for (const uint64_t count : counts_) sum += count;
    return sum;
  }
  // The middle of the bucket that `share` of all values lie below.
  double quantile(double share) const {
    const auto rank = static_cast<uint64_t>(static_cast<double>(total()) * share);
    uint64_t below = 0;
    for (size_t i = 0; i < counts_.size(); i++) {
      below += counts_[i];
      if (below > rank) return (lower(i) + lower(i + 1)) / 2;
    }
    return 0;
  }

 private:
  static size_t bucket(uint64_t value) {
    if (value < 32) return value;
    const auto power = static_cast<size_t>(std::bit_width(value)) - 6;
    return 32 * power + (value >> power);
  }
  static double lower(size_t bucket) {
    if (bucket < 64) return static_cast<double>(bucket);
    const size_t power = bucket / 32 - 1;
    return static_cast<double>((bucket - 32 * power) << power);
  }
  std::array<uint64_t, 64 * 32> counts_{};
};

// An enqueuer's completion: the number of its last completed item.
struct alignas(64) Completion {
  std::atomic<uint32_t> done{0};
  std::atomic<uint32_t> sleeping{0};

  void complete(uint32_t number) {
    done.store(number, std::memory_order_release);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (sleeping.load(std::memory_order_relaxed) != 0) futex(done, FUTEX_WAKE, 1);
  }
  void await(uint32_t number, uint64_t spin_cycles) {
    const uint64_t begin = __rdtsc();
    do {
      if (done.load(std::memory_order_acquire) == number) return;
      _mm_pause();
    } while (__rdtsc() - begin < spin_cycles);
    sleeping.store(1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    while (done.load(std::memory_order_acquire) != number) futex(done, FUTEX_WAIT, number - 1);
    sleeping.store(0, std::memory_order_relaxed);
  }
};

template <class Side>
bool spin_pop(Side& side, Hint& out, uint64_t spin_cycles) {
  const uint64_t begin = __rdtsc();
  do {
    if (side.pop(out)) return true;
    _mm_pause();
  } while (__rdtsc() - begin < spin_cycles);
  return false;
}

template <class Peer>
void run_dequeuer(Peer& peer, std::vector<Completion>& completions, const Settings& settings,
                  const Stop& stop) {
  typename Peer::Side side(peer);
  Hint hint;
  for (;;) {
    if (spin_pop(side, hint, settings.spin_cycles) || side.await(hint, stop)) {
      completions[hint.client].complete(hint.sequence);
    } else if (stop.load(std::memory_order_relaxed)) {
      return;
    }
  }
}

template <class Peer>
void run_enqueuer(Peer& peer, uint32_t number, Completion& completion, const Settings& settings,
                  const Stop& stop, Histogram& latency) {
  typename Peer::Side side(peer);
  for (uint32_t item = 1; !stop.load(std::memory_order_relaxed); item++) {
    const uint64_t begin = __rdtsc();
    while (!side.push({number, 0, item})) _mm_pause();
    const uint64_t end = __rdtsc();
    side.ring();
    completion.await(item, settings.spin_cycles);
    latency.add(end - begin);
  }
}

void pin(std::thread& thread, uint32_t number) {
  cpu_set_t allowed, one;
  CPU_ZERO(&one);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  number %= static_cast<uint32_t>(CPU_COUNT(&allowed));
  for (uint32_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (CPU_ISSET(cpu, &allowed) && number-- == 0) CPU_SET(cpu, &one);
  }
  pthread_setaffinity_np(thread.native_handle(), sizeof(one), &one);
}

template <class Peer>
int run(const Settings& settings) {
  const auto peer = std::make_unique<Peer>();
  std::vector<Completion> completions(settings.threads);
  std::vector<Histogram> latencies(settings.threads);
  std::vector<std::thread> enqueuers, dequeuers;
  Stop stop{false}, stop_dequeuers{false};
  const Clock::time_point begin = Clock::now();
  const uint64_t begin_cycles = __rdtsc();
  for (uint32_t i = 0; i < settings.threads; i++) {
    dequeuers.emplace_back([&] { run_dequeuer(*peer, completions, settings, stop_dequeuers); });
    enqueuers.emplace_back([&, i] { run_enqueuer(*peer, i, completions[i], settings, stop, latencies[i]); });
    pin(enqueuers.back(), i);
    pin(dequeuers.back(), i + 1);
  }
  std::this_thread::sleep_for(settings.time);
  stop = true;
  for (std::thread& thread : enqueuers) thread.join();
  const double ns = std::chrono::duration<double, std::nano>(Clock::now() - begin).count();
  const double ns_per_cycle = ns / static_cast<double>(__rdtsc() - begin_cycles);
  stop_dequeuers = true;
  peer->stop_all();
  for (std::thread& thread : dequeuers) thread.join();
  Histogram all;
  for (const Histogram& latency : latencies) all.add(latency);
  std::printf("{\"enqueueMedianNs\": %.1f, \"enqueueP99Ns\": %.1f, \"tasksPerSecond\": %.0f}\n",
              all.quantile(0.5) * ns_per_cycle, all.quantile(0.99) * ns_per_cycle,
              static_cast<double>(all.total()) * 1e9 / ns);
  return 0;
}

struct Named {
  const char* name;
  int (*run)(const Settings&);
};
constexpr Named kPeers[] = {
    {"rcqb", run<Rcqb>},
    {"rcqb-paper", run<PaperRcqb>},
    {"mutex-condvar", run<MutexRing>},
#ifdef POLY_HAVE_MOODYCAMEL
    {"moodycamel", run<Moodycamel>},
#endif
#ifdef POLY_HAVE_BOOST
    {"boost-lockfree", run<BoostLockfree>},
#endif
#ifdef POLY_HAVE_TBB
    {"tbb-bounded", run<TbbBounded>},
#endif
};

double cycles_per_ns() {
  const Clock::time_point begin = Clock::now();
  const uint64_t cycles = __rdtsc();
  while (Clock::now() - begin < std::chrono::milliseconds(5)) _mm_pause();
  const uint64_t passed = __rdtsc() - cycles;
  return static_cast<double>(passed) / std::chrono::duration<double, std::nano>(Clock::now() - begin).count();
}

}  // namespace
}  // namespace poly_bench

int main(int argc, char** argv) {
  using namespace poly_bench;
  if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
    for (const Named& peer : kPeers) std::puts(peer.name);
    return 0;
  }
  const unsigned long threads = argc == 5 ? std::strtoul(argv[2], nullptr, 10) : 0;
  if (threads < 1 || threads > kCapacity) {
    std::fprintf(stderr, "usage: poly-bench-queue PEER THREADS SPIN_NS MILLISECONDS | --list\n");
    return 1;
  }
  const auto spin = static_cast<uint64_t>(std::strtod(argv[3], nullptr) * cycles_per_ns());
  const Settings settings{static_cast<uint32_t>(threads), spin,
                          std::chrono::milliseconds(std::strtoul(argv[4], nullptr, 10))};
  for (const Named& peer : kPeers) {
    if (std::strcmp(peer.name, argv[1]) == 0) return peer.run(settings);
  }
  std::fprintf(stderr, "poly-bench-queue: %s: no such queue here\n", argv[1]);
  return 1;
}
