// The request queue among processes that are killed at any instruction, and over garbage in the shared
// memory.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "test/unit/request_queue_rig.hpp"

namespace {

using namespace queue_test;

// ---- Processes that are killed ----

constexpr uint32_t kKills = 500 / (kScale == 1 ? 1 : 5), kItemsPerProcess = 4096;

// The children's accesses take their time now and then, so that SIGKILL finds them in the middle of a call.
struct SlowWord : std::atomic<uint64_t> {
  static void dawdle() {
    static thread_local uint32_t turn = static_cast<uint32_t>(getpid());
    turn = turn * 1664525 + 1013904223;
    if (turn >> 24 == 0) std::this_thread::sleep_for(std::chrono::microseconds(turn >> 12 & 2047));
  }
  void store(uint64_t value, std::memory_order order) {
    dawdle();
    std::atomic<uint64_t>::store(value, order);
  }
  bool compare_exchange_strong(uint64_t& expected, uint64_t desired, std::memory_order success,
                               std::memory_order failure) {
    const bool done = std::atomic<uint64_t>::compare_exchange_strong(expected, desired, success, failure);
    if (done) dawdle();
    return done;
  }
};
struct SlowMemory {
  using Word = SlowWord;
  static uint64_t now_ns() { return poly::SharedMemory::now_ns(); }
};
using SlowQueue = poly::BasicRequestQueue<SlowMemory>;

// What survives a killed process: how far it came. Indexed by its number, which is also its QueueOwner.
struct Life {
  std::atomic<uint32_t> begun, completed;
  std::atomic<uint8_t> delivered[kItemsPerProcess];
};

class Killing {
 public:
  Killing() : rig_(64), lives_(sizeof(Life) * (2 * kKills + 8)) {}

  void run();

 private:
  Life& life(uint32_t number) const { return static_cast<Life*>(lives_.get())[number]; }
  // Children that enqueue own odd numbers, those that dequeue even ones.
  pid_t spawn(uint32_t number) const;
  [[noreturn]] void live_enqueuing(uint32_t number) const;
  [[noreturn]] void live_dequeuing(uint32_t number) const;
  template <class Queue>
  bool take_one(Queue& queue) const;
  void kill_one(size_t victim);
  void drain();
  void check_lives() const;

  struct Child {
    uint32_t number;
    pid_t pid;
  };

  Rig<RequestQueue> rig_;
  Shared lives_;
  Child children_[4] = {};
  uint32_t next_odd_ = 1, next_even_ = 2;
  uint32_t dead_dequeuers_ = 0;
  uint32_t repaired_ = 0;
};

template <class Queue>
bool Killing::take_one(Queue& queue) const {
  Hint hint;
  if (!queue.dequeue(hint)) return false;
  life(hint.client).delivered[hint.sequence % kItemsPerProcess].fetch_add(1);
  return true;
}

void Killing::live_enqueuing(uint32_t number) const {
  SlowQueue queue(rig_.memory.get(), rig_.capacity, number);
  Life& mine = life(number);
  for (uint32_t i = 0; i < kItemsPerProcess; i++) {
    mine.begun.store(i + 1);
    while (!queue.enqueue({number, 0, i})) {
    }
    mine.completed.store(i + 1);
  }
  for (;;) pause();
}

void Killing::live_dequeuing(uint32_t number) const {
  SlowQueue queue(rig_.memory.get(), rig_.capacity, number);
  for (;;) take_one(queue);
}

pid_t Killing::spawn(uint32_t number) const {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  if (number % 2 == 1) live_enqueuing(number);
  live_dequeuing(number);
}

void Killing::kill_one(size_t victim) {
  Child& child = children_[victim];
  REQUIRE(kill(child.pid, SIGKILL) == 0 && waitpid(child.pid, nullptr, 0) == child.pid);
  const uint32_t dead = child.number;
  dead_dequeuers_ += dead % 2 == 0;
  uint32_t& next = dead % 2 == 1 ? next_odd_ : next_even_;
  child.number = next;
  next += 2;
  child.pid = spawn(child.number);
}

void Killing::run() {
  for (Child& child : children_) {
    uint32_t& next = (&child - children_) % 2 == 0 ? next_odd_ : next_even_;
    child = {next, 0};
    next += 2;
    child.pid = spawn(child.number);
  }
  RequestQueue queue = rig_.view(0x8000'0001);  // the service's own
  const auto alive = [&](uint32_t owner) {
    return std::any_of(std::begin(children_), std::end(children_),
                       [&](const Child& child) { return child.number == owner; });
  };
  for (uint32_t kills = 0; kills < kKills; kills++) {
    // The service dequeues all the while, for up to 3 ms: sometimes a hole's time, sometimes not.
    const Clock::time_point begin = Clock::now();
    const double life_ms = static_cast<double>(check::random()() % 3000) / 1000;
    while (milliseconds_since(begin) < life_ms) take_one(queue);
    kill_one(check::random()() % 4);
    if (kills % 8 == 0) repaired_ += queue.repair(alive);
  }
  for (const Child& child : children_) {
    REQUIRE(kill(child.pid, SIGKILL) == 0 && waitpid(child.pid, nullptr, 0) == child.pid);
    dead_dequeuers_ += child.number % 2 == 0;
  }
  drain();
  check_lives();
}

// Nobody is left: the queue empties in bounded time, and then holds as much as a new one.
void Killing::drain() {
  RequestQueue queue = rig_.view(0x8000'0001);
  const Clock::time_point begin = Clock::now();
  // The second time for what a process published just before its end.
  for (int times = 0; times < 2; times++) {
    while (queue.maybe_any()) {
      take_one(queue);
      REQUIRE(milliseconds_since(begin) < 5000);
    }
    repaired_ += queue.repair([](uint32_t) { return false; });
  }
  while (take_one(queue)) {
  }
  Hint hint;
  for (uint32_t i = 0; i < rig_.capacity; i++) CHECK(queue.enqueue(numbered(i)));
  CHECK(!queue.enqueue(numbered(0)));
  for (uint32_t i = 0; i < rig_.capacity; i++) CHECK(queue.dequeue(hint) && hint == numbered(i));
  CHECK(!queue.dequeue(hint) && !queue.maybe_any());
}

// Of a process, what it was told of has been delivered; what it was killed in the middle of, perhaps; nothing
// twice. A killed dequeuer may have taken one with it.
void Killing::check_lives() const {
  uint32_t missing = 0, items = 0, unfinished = 0;
  for (uint32_t number = 1; number < next_odd_; number += 2) {
    const Life& it = life(number);
    const uint32_t completed = it.completed.load();
    items += completed;
    for (uint32_t i = 0; i < kItemsPerProcess; i++) {
      const uint8_t count = it.delivered[i].load();
      REQUIRE(count <= 1);
      missing += i < completed && count == 0;
      unfinished += i >= completed && count == 1;
      if (i >= it.begun.load()) REQUIRE(count == 0);
    }
  }
  std::printf(
      "%u kills, %u items, %u lost with a dequeuer, %u published but unknown to their killed owner, %u slots "
      "repaired\n",
      kKills + 4, items, missing, unfinished, repaired_);
  CHECK(missing <= dead_dequeuers_);
  CHECK(items > 0);
}

TEST(processes_killed_under_load) {
  Killing().run();
}

// ---- Hostile memory ----

void scribble(const Rig<RequestQueue>& rig, std::mt19937_64& random) {
  auto* words = static_cast<std::atomic<uint64_t>*>(rig.memory.get());
  const size_t count = rig.memory.size() / sizeof(uint64_t);
  // Bytes at random, or few bits at random so that counters and turns look nearly right.
  const uint64_t mask = random() % 2 == 0 ? ~0ull : (random() & random() & random());
  for (size_t i = 0; i < count; i++) words[i].store(random() & mask, std::memory_order_relaxed);
}

// Calls on garbage: each ends, soon; repair makes a queue of it again.
TEST(garbage) {
  std::mt19937_64& random = check::random();
  double longest = 0;
  for (uint32_t round = 0; round < 100 / kScale; round++) {
    const Rig<RequestQueue> rig(2u << random() % 8);
    RequestQueue queue = rig.view();
    scribble(rig, random);
    Hint hint;
    const Clock::time_point begin = Clock::now();
    for (uint32_t i = 0; i < 1000; i++) {
      (void)queue.maybe_any();
      switch (random() % 64) {
        case 0:
          queue.repair([&](uint32_t owner) { return owner % 2 == 0; });
          break;
        case 1:
          scribble(rig, random);
          break;
        default:
          if (random() % 2 == 0) {
            (void)queue.enqueue(numbered(i));
          } else {
            (void)queue.dequeue(hint);
          }
      }
    }
    longest = std::max(longest, milliseconds_since(begin));
  }
  std::printf("longest 1000 calls on garbage: %.2f ms\n", longest);
  CHECK(longest < 2000);
}

TEST(repair_makes_garbage_usable) {
  std::mt19937_64& random = check::random();
  for (uint32_t round = 0; round < 2000 / kScale; round++) {
    const Rig<RequestQueue> rig(2u << random() % 6);
    RequestQueue queue = rig.view();
    scribble(rig, random);
    Hint hint;
    const auto nobody = [](uint32_t) { return false; };
    queue.repair(nobody);
    // What is left of the garbage comes out or is passed.
    const Clock::time_point begin = Clock::now();
    uint32_t laps = 0;
    while (laps < 3) {
      while (queue.maybe_any()) (void)queue.dequeue(hint);
      uint32_t in = 0, out = 0;
      while (in < rig.capacity && queue.enqueue(numbered(in))) in++;
      while (out < in && queue.dequeue(hint)) out += hint == numbered(out);
      laps = in == rig.capacity && out == in ? laps + 1 : 0;
      if (laps == 0) queue.repair(nobody);
      REQUIRE(milliseconds_since(begin) < 2000);
    }
  }
}

// The owner in an EMPTY state means nothing, and must not stop anybody.
TEST(empty_slot_with_an_owner) {
  const Rig<RequestQueue> rig(2);
  RequestQueue queue = rig.view();
  rig.layout().slots[0].state.store(SlotState::word(SlotPhase::kEmpty, 0, 5));
  Hint hint;
  CHECK(queue.enqueue(numbered(1)));
  CHECK(queue.dequeue(hint) && hint == numbered(1));
}

TEST(scribbler_beside_honest_threads) {
  const Rig<RequestQueue> rig(16);
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> calls{0};
  std::vector<std::thread> honest;
  for (uint32_t t = 0; t < 2; t++) {
    honest.emplace_back([&, t] {
      RequestQueue queue = rig.view(t + 1);
      Hint hint;
      while (!stop) {
        (void)queue.enqueue(numbered(t));
        (void)queue.dequeue(hint);
        (void)queue.repair([](uint32_t) { return true; });
        calls++;
      }
    });
  }
  std::mt19937_64 random(check::seed());
  auto* words = static_cast<std::atomic<uint64_t>*>(rig.memory.get());
  const Clock::time_point begin = Clock::now();
  while (milliseconds_since(begin) < 300) {
    words[random() % (rig.memory.size() / 8)].store(random() >> random() % 64, std::memory_order_relaxed);
  }
  stop = true;
  for (std::thread& thread : honest) thread.join();
  CHECK(calls > 100);
}

}  // namespace

CHECK_MAIN()
