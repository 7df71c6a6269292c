// What runs the request queue's code one access at a time: words that stop the call that uses them, by
// longjmp(3), and that give it again what it has seen before. A set of hashes of visited states.
#pragma once

#include <csetjmp>
#include <vector>

#include "fastpath/request_queue.hpp"
#include "test/unit/check.hpp"

namespace queue_model {

inline constexpr uint32_t kCapacity = 2;
inline constexpr size_t kMaxLog = 24;

// What a call has seen so far, as far as it still matters: where the queue's loops begin anew with nothing of
// the past but a count of looks, which is out of reach here, the past is dropped, so that equal states are
// seen to be equal. Enqueuers begin anew when they load the tail, dequeuers when they look again at the slot
// whose state they have just tried to change.
struct Log {
  uint8_t size = 0;
  uint8_t look = 0;  // where the last look at a slot's state is, and of which slot
  const void* looked_at = nullptr;
  const void* changed = nullptr;  // by the last access
  uint64_t values[kMaxLog] = {};

  void look_again(const void* word) {
    if (changed == word && looked_at == word) size = look;
    looked_at = word;
    look = size;
  }
};

// The call that runs now. Without a log, accesses are simply done.
struct Replay {
  Log* log = nullptr;
  bool enqueuer = false, dequeuer = false;
  uint32_t at = 0;
  bool stepped = false;
  bool late = false;        // the clock, if it is looked at in this step, says that a hole is old
  bool clock_read = false;  // it was
  std::jmp_buf out;
};
inline Replay replay;

inline bool is_tail(const void* word);
inline bool is_slot_state(const void* word);

template <class Perform>
uint64_t access(Perform perform, const void* loaded = nullptr, const void* changed = nullptr) {
  if (replay.log == nullptr) return perform();
  Log& log = *replay.log;
  if (replay.at < log.size) return log.values[replay.at++];
  if (replay.stepped) std::longjmp(replay.out, 1);  // no frame in between has a destructor
  replay.stepped = true;
  if (replay.enqueuer && is_tail(loaded)) log.size = 0;
  if (replay.dequeuer && is_slot_state(loaded)) log.look_again(loaded);
  log.changed = changed;
  REQUIRE(log.size < kMaxLog);
  log.values[log.size++] = perform();
  replay.at = log.size;
  return log.values[log.size - 1];
}

struct ModelWord {
  uint64_t value;

  uint64_t load(std::memory_order) const {
    return access([this] { return value; }, this);
  }
  void store(uint64_t desired, std::memory_order) {
    access([&] { return value = desired; });
  }
  bool compare_exchange_strong(uint64_t& expected, uint64_t desired, std::memory_order, std::memory_order) {
    const auto exchange = [&] {
      const uint64_t old = value;
      if (old == expected) value = desired;
      return old;
    };
    const uint64_t seen = access(exchange, nullptr, this);
    if (seen == expected) return true;
    expected = seen;
    return false;
  }
};

struct ModelMemory {
  using Word = ModelWord;
  static uint64_t now_ns();
};
using Queue = poly::BasicRequestQueue<ModelMemory>;

alignas(64) inline std::byte arena[Queue::bytes(kCapacity)];

inline Queue::Layout& layout() {
  return *reinterpret_cast<Queue::Layout*>(arena);
}
inline bool is_tail(const void* word) {
  return word == &layout().tail;
}
inline bool is_slot_state(const void* word) {
  return word == &layout().slots[0].state || word == &layout().slots[1].state;
}

// Holes begin at time 0; every later look may find them young or old. Outside of the search time passes.
inline uint64_t ModelMemory::now_ns() {
  static uint64_t clock = 0;
  if (replay.log == nullptr) return clock += Queue::kHoleNs + 1024;
  return access([] {
    replay.clock_read = true;
    return replay.late ? Queue::kHoleNs + 1024 : 0;
  });
}

// Open addressing: 8 bytes a state.
class HashSet {
 public:
  size_t size() const { return size_; }
  // False: was there.
  bool insert(uint64_t hash) {
    if (size_ * 3 >= table_.size() * 2) grow();
    hash += hash == 0;
    for (size_t at = hash & (table_.size() - 1);; at = (at + 1) & (table_.size() - 1)) {
      if (table_[at] == hash) return false;
      if (table_[at] != 0) continue;
      table_[at] = hash;
      size_++;
      return true;
    }
  }

 private:
  void grow() {
    std::vector<uint64_t> old(table_.size() * 2);
    old.swap(table_);
    size_ = 0;
    for (const uint64_t hash : old) {
      if (hash != 0) insert(hash);
    }
  }
  std::vector<uint64_t> table_ = std::vector<uint64_t>(1u << 16);
  size_t size_ = 0;
};

}  // namespace queue_model
