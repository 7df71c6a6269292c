// The request queue's two forms: order, laps, full and empty, holes, repair, threads.
// request_queue_hostile_test.cpp has killed processes and garbage, request_queue_model_test.cpp the
// interleavings.
#include <algorithm>
#include <memory>

#include "fastpath/paper_request_queue.hpp"
#include "test/unit/request_queue_rig.hpp"

namespace {

using namespace queue_test;
using poly::PaperRequestQueue;

// ---- One thread ----

template <HintQueue Queue>
void first_in_first_out(uint32_t capacity) {
  const Rig<Queue> rig(capacity);
  Queue queue = rig.view();
  CHECK_EQ(queue.capacity(), capacity);
  uint32_t in = 0, out = 0;
  Hint hint;
  for (uint32_t lap = 0; lap < 10; lap++) {
    // A lap that leaves the slots' numbers and the laps' out of step.
    const uint32_t batch = 1 + lap % capacity;
    for (uint32_t i = 0; i < batch; i++) CHECK(queue.enqueue(numbered(in++)));
    for (uint32_t i = 0; i < batch; i++) {
      CHECK(queue.dequeue(hint));
      CHECK(hint == numbered(out++));
    }
  }
  CHECK(!queue.dequeue(hint));
}

TEST(order) {
  for (const uint32_t capacity : {2u, 4u, 1024u}) {
    first_in_first_out<RequestQueue>(capacity);
    first_in_first_out<PaperRequestQueue>(capacity);
  }
}

template <HintQueue Queue>
void full_then_room() {
  const Rig<Queue> rig(4);
  Queue queue = rig.view();
  Hint hint;
  for (uint32_t lap = 0; lap < 3; lap++) {
    for (uint32_t i = 0; i < 4; i++) CHECK(queue.enqueue(numbered(i)));
    CHECK(!queue.enqueue(numbered(4)));
    CHECK(!queue.enqueue(numbered(4)));
    CHECK(queue.dequeue(hint) && hint == numbered(0));
    CHECK(queue.enqueue(numbered(4)));
    for (uint32_t i = 1; i < 5; i++) CHECK(queue.dequeue(hint) && hint == numbered(i));
    CHECK(!queue.dequeue(hint));
  }
}

TEST(full) {
  full_then_room<RequestQueue>();
  full_then_room<PaperRequestQueue>();
}

TEST(whole_hint_comes_through) {
  const Rig<RequestQueue> rig(2);
  RequestQueue queue = rig.view(~0u);
  const Hint extremes{~0u, 0xffff, ~0u};
  Hint hint;
  CHECK(queue.enqueue(extremes) && queue.enqueue(Hint{}));
  CHECK(queue.dequeue(hint) && hint == extremes);
  CHECK(queue.dequeue(hint) && hint == Hint{});
}

TEST(maybe_any_tells_when_to_sleep) {
  const Rig<RequestQueue> rig(2);
  RequestQueue queue = rig.view();
  Hint hint;
  CHECK(!queue.maybe_any());
  CHECK(queue.enqueue(numbered(1)));
  CHECK(queue.maybe_any());
  CHECK(queue.dequeue(hint));
  CHECK(!queue.maybe_any());
}

// Turns have 30 bits, tickets 64: both wrap.
TEST(counters_wrap) {
  const uint64_t turns = uint64_t{SlotState::kTurnMask} + 1;
  for (const uint64_t first : {turns * 4 - 9, ~uint64_t{0} - 8, turns * 2 - 3, uint64_t{0xffffffff} - 5}) {
    const Rig<RequestQueue> rig(4);
    RequestQueue::format(rig.memory.get(), 4, first);
    RequestQueue queue = rig.view();
    Hint hint;
    for (uint32_t i = 0; i < 20; i++) {
      for (uint32_t k = 0; k < 4; k++) CHECK(queue.enqueue(numbered(i * 4 + k)));
      CHECK(!queue.enqueue(numbered(0)));
      for (uint32_t k = 0; k < 4; k++) CHECK(queue.dequeue(hint) && hint == numbered(i * 4 + k));
      CHECK(!queue.dequeue(hint) && !queue.maybe_any());
    }
    CHECK_EQ(queue.repair([](uint32_t) { return true; }), 0);
  }
}

TEST(bytes_are_whole_pages) {
  for (uint32_t capacity = 2; capacity <= RequestQueue::kMaxCapacity; capacity *= 2) {
    const size_t bytes = RequestQueue::bytes(capacity);
    CHECK(bytes % 4096 == 0 && bytes >= 192 + size_t{capacity} * 64);
  }
}

// ---- Holes ----

// An enqueuer that has claimed a slot and then stands still, dead or asleep.
uint64_t claim_and_stop(const Rig<RequestQueue>& rig, uint32_t owner) {
  RequestQueue::Layout& layout = rig.layout();
  const uint64_t ticket = layout.tail.fetch_add(1);
  auto& state = layout.slots[ticket % rig.capacity].state;
  const auto turn = static_cast<uint32_t>(ticket / rig.capacity);
  REQUIRE(state.load() == SlotState::word(SlotPhase::kEmpty, turn));
  state.store(SlotState::word(SlotPhase::kFilling, turn, owner));
  return ticket;
}

TEST(hole_holds_nobody_up) {
  const Rig<RequestQueue> rig(4);
  RequestQueue queue = rig.view();
  Hint hint;
  claim_and_stop(rig, 77);
  // Looked past at once, in the way of enqueuers until it is skipped.
  for (uint32_t i = 0; i < 3; i++) CHECK(queue.enqueue(numbered(i)));
  for (uint32_t i = 0; i < 3; i++) CHECK(queue.dequeue(hint) && hint == numbered(i));
  CHECK(!queue.dequeue(hint));
  const Clock::time_point begin = Clock::now();
  while (!queue.enqueue(numbered(9))) {
    CHECK(!queue.dequeue(hint));
    REQUIRE(milliseconds_since(begin) < 1000);
  }
  CHECK(queue.dequeue(hint) && hint == numbered(9));
  // Many laps with a slot less.
  for (uint32_t i = 0; i < 100; i++) {
    CHECK(queue.enqueue(numbered(i)) && queue.enqueue(numbered(i + 1)) && queue.enqueue(numbered(i + 2)));
    CHECK(!queue.enqueue(numbered(0)));
    for (uint32_t k = 0; k < 3; k++) CHECK(queue.dequeue(hint) && hint == numbered(i + k));
    CHECK(!queue.dequeue(hint) && !queue.maybe_any());
  }
}

TEST(hole_is_not_skipped_early) {
  const Rig<RequestQueue> rig(4);
  RequestQueue queue = rig.view();
  Hint hint;
  const uint64_t ticket = claim_and_stop(rig, 77);
  const Clock::time_point begin = Clock::now();
  CHECK(!queue.dequeue(hint));  // its clock starts
  while (rig.layout().head.load() == ticket) {
    CHECK(!queue.dequeue(hint));
    REQUIRE(milliseconds_since(begin) < 1000);
  }
  CHECK(milliseconds_since(begin) > 0.99);
}

TEST(every_slot_a_hole) {
  const Rig<RequestQueue> rig(4);
  RequestQueue queue = rig.view();
  Hint hint;
  for (uint32_t i = 0; i < 4; i++) claim_and_stop(rig, 77 + i);
  CHECK(!queue.enqueue(numbered(0)));
  const Clock::time_point begin = Clock::now();
  while (queue.maybe_any()) {
    CHECK(!queue.dequeue(hint));
    REQUIRE(milliseconds_since(begin) < 5000);
  }
  CHECK(!queue.enqueue(numbered(0)));
  CHECK_EQ(queue.repair([](uint32_t owner) { return owner == 78; }), 3);
  for (uint32_t lap = 0; lap < 5; lap++) {
    for (uint32_t i = 0; i < 3; i++) {
      // Tail and head may be a lap apart around the hole that is left: both get over it.
      while (!queue.enqueue(numbered(i))) CHECK(!queue.dequeue(hint));
    }
    for (uint32_t i = 0; i < 3; i++) CHECK(queue.dequeue(hint) && hint == numbered(i));
  }
  CHECK_EQ(queue.repair([](uint32_t) { return false; }), 1);
  CHECK_EQ(queue.repair([](uint32_t) { return false; }), 0);
}

TEST(repair_before_anybody_skipped) {
  const Rig<RequestQueue> rig(2);
  RequestQueue queue = rig.view();
  Hint hint;
  claim_and_stop(rig, 5);
  CHECK(queue.enqueue(numbered(1)));
  CHECK_EQ(queue.repair([](uint32_t) { return true; }), 0);
  CHECK_EQ(queue.repair([](uint32_t owner) { return owner != 5; }), 1);
  CHECK(queue.enqueue(numbered(2)));
  CHECK(queue.dequeue(hint) && hint == numbered(1));
  CHECK(queue.dequeue(hint) && hint == numbered(2));
  CHECK(!queue.dequeue(hint));
}

// Words that put the thread to sleep in front of its n-th store or exchange.
struct Pause {
  std::atomic<bool> reached{false}, go_on{false};
  int left = 0;
};
thread_local Pause* pause_here = nullptr;

struct PausingWord : std::atomic<uint64_t> {
  static void pass() {
    if (pause_here == nullptr || --pause_here->left != 0) return;
    pause_here->reached = true;
    while (!pause_here->go_on) std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  void store(uint64_t value, std::memory_order order) {
    pass();
    std::atomic<uint64_t>::store(value, order);
  }
  bool compare_exchange_strong(uint64_t& expected, uint64_t desired, std::memory_order success,
                               std::memory_order failure) {
    pass();
    return std::atomic<uint64_t>::compare_exchange_strong(expected, desired, success, failure);
  }
};
struct PausingMemory {
  using Word = PausingWord;
  static uint64_t now_ns() { return poly::SharedMemory::now_ns(); }
};

// The sleeper's steps: 1 claim, 2 and 3 hint, 4 publish, 5 tail.
TEST(sleeping_enqueuer_delivers_once_it_wakes) {
  using Queue = poly::BasicRequestQueue<PausingMemory>;
  for (int steps = 1; steps <= 4; steps++) {
    const Rig<Queue> rig(4);
    Pause pause;
    pause.left = steps;
    std::thread sleeper([&] {
      pause_here = &pause;
      CHECK(rig.view(2).enqueue(numbered(1000)));
      pause_here = nullptr;
    });
    while (!pause.reached) std::this_thread::sleep_for(std::chrono::microseconds(100));
    Queue queue = rig.view(1);
    Hint hint;
    for (uint32_t i = 0; i < 50; i++) {
      const Clock::time_point begin = Clock::now();
      for (uint32_t k = 0; k < 3; k++) {
        while (!queue.enqueue(numbered(k))) {
          CHECK(!queue.dequeue(hint));
          REQUIRE(milliseconds_since(begin) < 1000);
        }
      }
      for (uint32_t k = 0; k < 3; k++) CHECK(queue.dequeue(hint) && hint == numbered(k));
      CHECK(!queue.dequeue(hint));
    }
    pause.go_on = true;
    sleeper.join();
    CHECK(queue.dequeue(hint) && hint == numbered(1000));
    CHECK(!queue.dequeue(hint));
    CHECK_EQ(queue.repair([](uint32_t) { return false; }), 0);  // it has given its slot back
  }
}

// Between publishing and moving the tail: what looks only at the tail finds it when somebody else has moved
// it.
TEST(enqueuer_asleep_before_the_tail_moves) {
  using Queue = poly::BasicRequestQueue<PausingMemory>;
  for (const bool sweep : {false, true}) {
    const Rig<Queue> rig(4);
    Pause pause;
    pause.left = 5;
    std::thread sleeper([&] {
      pause_here = &pause;
      CHECK(rig.view(2).enqueue(numbered(1000)));
      pause_here = nullptr;
    });
    while (!pause.reached) std::this_thread::sleep_for(std::chrono::microseconds(100));
    Queue queue = rig.view(1);
    Hint hint;
    CHECK(!queue.maybe_any());
    if (sweep) {
      CHECK_EQ(queue.repair([](uint32_t) { return true; }), 0);
    } else {
      CHECK(queue.enqueue(numbered(1)));
    }
    CHECK(queue.maybe_any());
    CHECK(queue.dequeue(hint) && hint == numbered(1000));
    CHECK_EQ(queue.dequeue(hint), !sweep);
    pause.go_on = true;
    sleeper.join();
    CHECK(!queue.dequeue(hint) && !queue.maybe_any());
  }
}

// ---- Threads ----

// Every item exactly once, over many laps of a small queue.
template <HintQueue Queue>
void every_item_once(uint32_t capacity, uint32_t threads, uint32_t items) {
  const Rig<Queue> rig(capacity);
  const uint32_t total = threads * items;
  auto seen = std::make_unique<std::atomic<uint8_t>[]>(total);
  std::atomic<uint32_t> taken{0};
  std::atomic<uint64_t> sum{0};
  std::vector<std::thread> all;
  for (uint32_t t = 0; t < threads; t++) {
    all.emplace_back([&, t] {
      Queue queue = rig.view(t + 1);
      Patience patience;
      for (uint32_t i = 0; i < items; i++) {
        while (!queue.enqueue(numbered(t * items + i))) patience.wait();
      }
    });
    all.emplace_back([&, t] {
      Queue queue = rig.view(t + 1);
      Patience patience;
      Hint hint;
      while (taken.load() < total) {
        if (!queue.dequeue(hint)) {
          patience.wait();
          continue;
        }
        taken.fetch_add(1);
        sum.fetch_add(hint.client);
        if (CHECK(hint.client < total && hint == numbered(hint.client))) seen[hint.client].fetch_add(1);
      }
    });
  }
  for (std::thread& thread : all) thread.join();
  CHECK_EQ(sum.load(), uint64_t{total} * (total - 1) / 2);
  CHECK(std::all_of(&seen[0], &seen[total], [](const auto& count) { return count.load() == 1; }));
}

TEST(threads) {
  for (const uint32_t capacity : {2u, 8u, 256u}) {
    const uint32_t items = capacity * 2'000 / kScale;  // a small queue is mostly waited for
    every_item_once<RequestQueue>(capacity, 2, std::min(items, 100'000 / kScale));
    every_item_once<RequestQueue>(capacity, 8, std::min(items, 20'000 / kScale));
    every_item_once<PaperRequestQueue>(capacity, 2, std::min(items, 20'000 / kScale));
  }
}

TEST(repair_beside_living_threads_takes_nothing) {
  const Rig<RequestQueue> rig(2);
  std::atomic<bool> stop{false};
  std::atomic<uint32_t> repaired{0};
  std::thread sweep([&] {
    RequestQueue queue = rig.view(99);
    Patience patience;
    for (; !stop; patience.wait()) repaired += queue.repair([](uint32_t) { return true; });
  });
  std::vector<std::thread> pair;
  std::atomic<uint64_t> in{0}, out{0};
  for (uint32_t t = 0; t < 2; t++) {
    pair.emplace_back([&, t] {
      RequestQueue queue = rig.view(t + 1);
      Patience patience;
      for (uint32_t i = 0; i < 10'000 / kScale; i++) {
        while (!queue.enqueue(numbered(i))) patience.wait();
        in++;
      }
    });
  }
  RequestQueue queue = rig.view(9);
  Patience patience;
  Hint hint;
  while (out < 2 * (10'000 / kScale)) {
    if (queue.dequeue(hint)) {
      out++;
    } else {
      patience.wait();
    }
  }
  for (std::thread& thread : pair) thread.join();
  stop = true;
  sweep.join();
  CHECK_EQ(repaired.load(), 0);
  CHECK(!queue.dequeue(hint) && in == out);
}

}  // namespace

CHECK_MAIN()
