// RCQB as published (paper, "Relaxed Concurrent Queue Blocking"), for measurement beside RequestQueue: both
// sides take tickets by fetch-and-add; each then locks its slot, adds or removes the item, and unlocks.
//
// Blocking in the paper; here a call whose slot is not ready returns false and keeps its ticket for the next
// call, so that the waiting is the caller's and every queue in a comparison can wait in the same way.
// Therefore a view belongs to one thread, not to a process. A thread that ends while it holds a ticket stalls
// the slot's turn for good, which is why the service does not use this form.
#pragma once

#include "fastpath/request_queue.hpp"

namespace poly {

class PaperRequestQueue {
 public:
  struct Slot {
    enum : uint32_t { kEmpty, kLocked, kFull };
    alignas(64) std::atomic<uint32_t> lock;
    Hint hint;  // whoever has the lock
  };
  struct Layout {
    alignas(64) std::atomic<uint64_t> tail;
    alignas(64) std::atomic<uint64_t> head;
    Slot slots[];
  };
  static_assert(sizeof(Slot) == 64 && sizeof(Layout) == 128);

  // Bytes that a queue of `capacity` (a power of two) needs, a multiple of 4096.
  [[nodiscard]] static size_t bytes(uint32_t capacity);
  // Makes an empty queue in zeroed memory, aligned to 64.
  static void format(void* memory, uint32_t capacity);

  PaperRequestQueue() = default;
  PaperRequestQueue(void* memory, uint32_t capacity, QueueOwner owner);

  // False: the slot of this thread's ticket is not free yet. Call again; the hint may be another one then.
  [[nodiscard]] bool enqueue(Hint hint);
  // False: nothing in the slot of this thread's ticket yet. Call again, or the item that comes there is
  // stuck.
  [[nodiscard]] bool dequeue(Hint& out);

  // The slots that the last enqueue and dequeue of this thread used or still wait for.
  uint32_t enqueue_slot() const { return static_cast<uint32_t>(enqueue_.ticket) & mask_; }
  uint32_t dequeue_slot() const { return static_cast<uint32_t>(dequeue_.ticket) & mask_; }
  uint32_t capacity() const { return mask_ + 1; }

 private:
  struct Turn {
    uint64_t ticket = 0;
    bool held = false;
  };
  Slot* lock(std::atomic<uint64_t>& counter, Turn& turn, uint32_t ready);

  Layout* layout_ = nullptr;
  uint32_t mask_ = 0;
  Turn enqueue_, dequeue_;
};
static_assert(HintQueue<PaperRequestQueue>);

}  // namespace poly
