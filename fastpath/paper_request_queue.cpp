#include "fastpath/paper_request_queue.hpp"

namespace poly {

size_t PaperRequestQueue::bytes(uint32_t capacity) {
  return (sizeof(Layout) + capacity * sizeof(Slot) + 4095) & ~size_t{4095};
}

void PaperRequestQueue::format(void* memory, uint32_t capacity) {
  auto* layout = static_cast<Layout*>(memory);
  for (uint32_t i = 0; i < capacity; i++)
    layout->slots[i].lock.store(Slot::kEmpty, std::memory_order_relaxed);
  layout->head.store(0, std::memory_order_relaxed);
  layout->tail.store(0, std::memory_order_release);
}

PaperRequestQueue::PaperRequestQueue(void* memory, uint32_t capacity, QueueOwner)
    : layout_(static_cast<Layout*>(memory)), mask_(capacity - 1) {}

// The slot of this thread's ticket, locked; null while it is not `ready`. Threads of different turns may wait
// for one slot: whichever comes first goes first, hence "relaxed".
PaperRequestQueue::Slot* PaperRequestQueue::lock(std::atomic<uint64_t>& counter, Turn& turn, uint32_t ready) {
  if (!turn.held) turn = {counter.fetch_add(1, std::memory_order_relaxed), true};
  Slot& slot = layout_->slots[turn.ticket & mask_];
  // A look before the exchange keeps the line shared among those who wait.
  if (slot.lock.load(std::memory_order_relaxed) != ready) return nullptr;
  if (!slot.lock.compare_exchange_strong(ready, Slot::kLocked, std::memory_order_acquire,
                                         std::memory_order_relaxed))
    return nullptr;
  turn.held = false;
  return &slot;
}

bool PaperRequestQueue::enqueue(Hint hint) {
  Slot* slot = lock(layout_->tail, enqueue_, Slot::kEmpty);
  if (slot == nullptr) return false;
  slot->hint = hint;
  slot->lock.store(Slot::kFull, std::memory_order_release);
  return true;
}

bool PaperRequestQueue::dequeue(Hint& out) {
  Slot* slot = lock(layout_->head, dequeue_, Slot::kFull);
  if (slot == nullptr) return false;
  out = slot->hint;
  slot->lock.store(Slot::kEmpty, std::memory_order_release);
  return true;
}

}  // namespace poly
