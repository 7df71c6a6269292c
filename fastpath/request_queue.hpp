// The request queue: Relaxed Concurrent Queue Blocking (paper, "RCQB"), one per core group and uid, in memory
// that the processes of one uid share with the filesystem service.
//
// Operations are distributed in order and complete in parallel, potentially out of FIFO order. The queue is
// of fixed size; an enqueuer that finds it full is told so and tries again: nothing is lost.
//
// Slots are hints: which buffer of which client to look at. A forged one costs the service a look, a lost one
// is found by the client, which posts again when nobody has taken its call. This is the crash-tolerant form,
// the default; paper_request_queue.hpp is the published one, the measured reference, behind the same
// HintQueue.
//
// How it works. Tickets count up from 0; ticket k belongs to slot k % capacity, as that slot's turn
// k / capacity. `tail` is the next ticket to enqueue, `head` the first whose turn may not be over: both are
// only where to begin looking, the truth is in the slots' state words, whose turns never go back:
//
//   EMPTY(t) --enqueuer claims--> FILLING(t, owner) --publishes--> FULL(t) --dequeuer--> EMPTY(t + 1)
//                                       |                                                   ^
//                                       +--a dequeuer, after kHoleNs--> SKIPPED(t, owner) --+ owner or
//                                       repair()
//
//   * A dequeuer copies the hint and claims it by the very compare-and-swap that gives the slot back (a
//     sequence lock, with the state as the sequence): it holds nothing at any time, so its death costs at
//     most the hint that it has just taken.
//   * A slot being filled holds nobody up: dequeuers look past it. One that stays so (a hole: its owner
//   sleeps
//     or died) would stop the enqueuers a lap later, therefore it is skipped: from then on tail and head pass
//     it, turn by turn. A sleeper that wakes finds its publishing refused, gives the slot back, and enqueues
//     again elsewhere; a dead one's is given back by repair(). Nobody else ever fills the slot before that.
//   * `head` passes only slots whose turn is over, so nothing can be published behind it.
//
// Memory order. Publishing (release) makes the hint visible to who reads FULL (acquire). The hint's own loads
// acquire and its stores release, so that a dequeuer that saw words of the next turn sees the claim before
// them and fails its compare-and-swap. Nothing here needs a total order; who sleeps between maybe_any() and
// enqueue() brings a full fence along (queue_memory.hpp).
//
// Everything in the shared memory may be garbage: indices are masked, every call is bounded (kMaxLooks), and
// the worst outcome is a wrong hint or none. repair() makes a scribbled-over queue usable again.
//
// `Layout` is what lies in shared memory; the object is each process's private view of it, with everything
// that must be trusted (capacity, addresses) kept in private memory. No allocation, no exceptions, libc only.
#pragma once

#include <atomic>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>

namespace poly {

// A hint. client: service's number of the client; buffer: index in its request memory; sequence: of the call.
struct Hint {
  uint32_t client = 0;
  uint16_t buffer = 0;
  uint32_t sequence = 0;
  bool operator==(const Hint&) const = default;
};

// Who is at the queue: distinguishes living owners of slots from dead ones, in the face of pid reuse: a
// number that is given to one process image and never again while the queue exists. 0 is nobody.
using QueueOwner = uint32_t;

// False of enqueue: full; of dequeue: nothing to take. Call again.
template <class Queue>
concept HintQueue = requires(Queue queue, void* memory, uint32_t capacity, QueueOwner owner, Hint hint) {
  { Queue::bytes(capacity) } -> std::same_as<size_t>;
  Queue::format(memory, capacity);
  Queue(memory, capacity, owner);
  { queue.enqueue(hint) } -> std::same_as<bool>;
  { queue.dequeue(hint) } -> std::same_as<bool>;
  { queue.capacity() } -> std::same_as<uint32_t>;
};

enum class SlotPhase : uint32_t { kEmpty, kFilling, kFull, kSkipped };

// A slot's state word. Turns wrap: only their distance counts.
struct SlotState {
  static constexpr uint32_t kTurnBits = 30, kTurnMask = (1u << kTurnBits) - 1;

  SlotPhase phase;
  uint32_t turn;
  QueueOwner owner;  // of FILLING and SKIPPED

  static constexpr SlotState of(uint64_t word) {
    const auto low = static_cast<uint32_t>(word);
    return {static_cast<SlotPhase>(low & 3), low >> 2, static_cast<QueueOwner>(word >> 32)};
  }
  static constexpr uint64_t word(SlotPhase phase, uint32_t turn, QueueOwner owner = 0) {
    return static_cast<uint64_t>(owner) << 32 | (turn & kTurnMask) << 2 | static_cast<uint32_t>(phase);
  }
  // How many turns the slot is ahead of `other`; negative: behind.
  constexpr int32_t ahead_of(uint32_t other) const { return static_cast<int32_t>((turn - other) << 2) >> 2; }
};

// What the queue stands on. The model test puts another in its place, which stops at every access.
struct SharedMemory {
  using Word = std::atomic<uint64_t>;
  static uint64_t now_ns();  // CLOCK_MONOTONIC
};
static_assert(SharedMemory::Word::is_always_lock_free && sizeof(SharedMemory::Word) == 8);

template <class Memory>
class BasicRequestQueue {
 public:
  using Word = typename Memory::Word;

  static constexpr uint32_t kMinCapacity = 2, kMaxCapacity = 1u << 16;  // powers of two
  static constexpr uint64_t kHoleNs = 1'000'000;
  // Slots that one call looks at. A dequeue that gives up leaves maybe_any() true; an enqueue says "full".
  static constexpr uint32_t kMaxLooks = 256;

  // Lines of their own: neighbours are worked on by different threads.
  struct Slot {
    alignas(64) Word state;
    Word call;    // hint: client << 32 | sequence
    Word buffer;  // hint
  };
  struct Layout {
    alignas(64) Word tail;
    alignas(64) Word head;
    // The slot that keeps head from moving: low half of its ticket << 32 | since when, in 1024 ns.
    alignas(64) Word hole;
    Slot slots[];
  };
  static_assert(sizeof(Slot) == 64 && sizeof(Layout) == 192);

  // Bytes that a queue of `capacity` needs, a multiple of 4096.
  [[nodiscard]] static constexpr size_t bytes(uint32_t capacity) {
    return (sizeof(Layout) + capacity * sizeof(Slot) + 4095) & ~size_t{4095};
  }
  // Makes an empty queue in zeroed memory, aligned to 64. The service's, once. `first`: the first ticket.
  static void format(void* memory, uint32_t capacity, uint64_t first = 0);

  BasicRequestQueue() = default;
  // A view of a queue that somebody has formatted with this capacity (which comes from a trusted place, not
  // from the memory). `owner`: what this process writes into slots it works on.
  BasicRequestQueue(void* memory, uint32_t capacity, QueueOwner owner)
      : layout_(static_cast<Layout*>(memory)),
        mask_(capacity - 1),
        shift_(static_cast<uint32_t>(std::countr_zero(capacity))),
        owner_(owner) {}

  // False: full. Lock-free; any thread, signal handlers too.
  [[nodiscard]] bool enqueue(Hint hint);
  // False: nothing to take. Never waits. Lock-free; any thread.
  [[nodiscard]] bool dequeue(Hint& out);
  // Cheap look without a claim: false only when nothing was there at that moment (of what enqueue() has
  // returned true for). True as long as there is anything that dequeue() has to get over.
  [[nodiscard]] bool maybe_any() const {
    const uint64_t head = layout_->head.load(std::memory_order_acquire);
    return distance(layout_->tail.load(std::memory_order_acquire), head) > 0;
  }
  // Gives back slots whose owner is dead: alive(owner) says so, which must never call dead who may still be
  // inside enqueue(); and whatever cannot have come about by the rules. The service's, now and then (about
  // every 20 ms), beside everybody else. Returns how many.
  template <class Alive>
  uint32_t repair(Alive alive);

  uint32_t capacity() const { return mask_ + 1; }

 private:
  enum class Look { kItem, kBeingFilled, kOver, kNothing };
  static constexpr int64_t kImplausible = 4096;  // turns or tickets; threads that lag differ by a few

  static int64_t distance(uint64_t to, uint64_t from) { return static_cast<int64_t>(to - from); }
  Slot& slot_of(uint64_t ticket) const { return layout_->slots[ticket & mask_]; }
  uint32_t turn_of(uint64_t ticket) const {
    return static_cast<uint32_t>(ticket >> shift_) & SlotState::kTurnMask;
  }
  static bool change(Word& word, uint64_t from, uint64_t to) {
    return word.compare_exchange_strong(from, to, std::memory_order_acq_rel, std::memory_order_acquire);
  }

  bool fill(Slot&, uint64_t state, uint64_t ticket, Hint);
  bool tail_passes(uint64_t state, uint64_t ticket) const;
  void give_back(Slot&);
  Look look(uint64_t state, uint64_t ticket) const;
  bool take(Slot&, uint64_t state, Hint& out);
  bool is_hole(uint64_t ticket);
  bool before_tail(uint64_t ticket) const;
  void end_turn(Slot&, uint64_t state, uint64_t ticket);
  bool plausible(SlotState, uint64_t slot, uint64_t head_before, uint64_t head_after) const;
  bool repair_tail();

  Layout* layout_ = nullptr;
  uint32_t mask_ = 0;
  uint32_t shift_ = 0;
  QueueOwner owner_ = 0;
};

template <class Memory>
void BasicRequestQueue<Memory>::format(void* memory, uint32_t capacity, uint64_t first) {
  BasicRequestQueue queue(memory, capacity, 0);
  for (uint64_t ticket = first; ticket != first + capacity; ticket++) {
    const uint64_t empty = SlotState::word(SlotPhase::kEmpty, queue.turn_of(ticket));
    queue.slot_of(ticket).state.store(empty, std::memory_order_relaxed);
  }
  queue.layout_->hole.store((first - 1) << 32, std::memory_order_relaxed);
  queue.layout_->head.store(first, std::memory_order_relaxed);
  queue.layout_->tail.store(first, std::memory_order_release);
}

template <class Memory>
bool BasicRequestQueue<Memory>::enqueue(Hint hint) {
  for (uint32_t looks = 0; looks < kMaxLooks; looks++) {
    const uint64_t ticket = layout_->tail.load(std::memory_order_acquire);
    Slot& slot = slot_of(ticket);
    const uint64_t word = slot.state.load(std::memory_order_acquire);
    const SlotState state = SlotState::of(word);
    if (state.phase == SlotPhase::kEmpty && state.turn == turn_of(ticket)) {
      if (fill(slot, word, ticket, hint)) return true;
    } else if (tail_passes(word, ticket)) {
      change(layout_->tail, ticket, ticket + 1);
    } else {
      return false;  // its last turn is not over
    }
  }
  return false;
}

// The slot is somebody's already, or a hole that head has passed.
template <class Memory>
bool BasicRequestQueue<Memory>::tail_passes(uint64_t word, uint64_t ticket) const {
  const SlotState state = SlotState::of(word);
  const int32_t ahead = state.ahead_of(turn_of(ticket));
  if (ahead == -1) return state.phase == SlotPhase::kSkipped;
  return ahead > 0 || (ahead == 0 && state.phase != SlotPhase::kEmpty);
}

// Tail moves on last: idle dequeuers look at it alone, and leave the slot's line to the enqueuer until there
// is something. Other enqueuers need not wait for that, they move it on themselves. False: another has
// claimed the slot, or it was skipped because this took too long.
template <class Memory>
bool BasicRequestQueue<Memory>::fill(Slot& slot, uint64_t state, uint64_t ticket, Hint hint) {
  const uint32_t turn = turn_of(ticket);
  const uint64_t filling = SlotState::word(SlotPhase::kFilling, turn, owner_);
  if (!change(slot.state, state, filling)) return false;
  slot.call.store(static_cast<uint64_t>(hint.client) << 32 | hint.sequence, std::memory_order_release);
  slot.buffer.store(hint.buffer, std::memory_order_release);
  const bool published = change(slot.state, filling, SlotState::word(SlotPhase::kFull, turn));
  change(layout_->tail, ticket, ticket + 1);
  if (published) return true;
  give_back(slot);
  return false;
}

// Dequeuers may be passing it, which puts its turn forward.
template <class Memory>
void BasicRequestQueue<Memory>::give_back(Slot& slot) {
  for (uint32_t looks = 0; looks < kMaxLooks; looks++) {
    const uint64_t word = slot.state.load(std::memory_order_acquire);
    const SlotState state = SlotState::of(word);
    if (state.phase != SlotPhase::kSkipped || state.owner != owner_) return;
    if (change(slot.state, word, SlotState::word(SlotPhase::kEmpty, state.turn + 1))) return;
  }
}

template <class Memory>
auto BasicRequestQueue<Memory>::look(uint64_t word, uint64_t ticket) const -> Look {
  const SlotState state = SlotState::of(word);
  const int32_t ahead = state.ahead_of(turn_of(ticket));
  if (ahead != 0) return ahead > 0 ? Look::kOver : Look::kNothing;
  switch (state.phase) {
    case SlotPhase::kEmpty:
      return Look::kNothing;
    case SlotPhase::kFilling:
      return Look::kBeingFilled;
    case SlotPhase::kFull:
      return Look::kItem;
    case SlotPhase::kSkipped:
      break;
  }
  return Look::kOver;
}

template <class Memory>
bool BasicRequestQueue<Memory>::dequeue(Hint& out) {
  const uint64_t begin = layout_->head.load(std::memory_order_acquire);
  uint64_t over = begin;  // every turn before this ticket's is over
  uint64_t ticket = begin;
  bool found = false, more = before_tail(begin);
  for (uint32_t looks = 0; more && looks < kMaxLooks; looks++) {
    Slot& slot = slot_of(ticket);
    const uint64_t state = slot.state.load(std::memory_order_acquire);
    switch (look(state, ticket)) {
      case Look::kItem:
        if (!take(slot, state, out)) break;  // another dequeuer has: look again
        if (over == ticket) over++;
        found = true;
        more = false;
        break;
      case Look::kBeingFilled:
        if (over == ticket && is_hole(ticket)) {
          const SlotState hole = SlotState::of(state);
          change(slot.state, state, SlotState::word(SlotPhase::kSkipped, hole.turn, hole.owner));
        } else {
          ticket++;
        }
        break;
      case Look::kOver:
        if (over == ticket) over++;
        ticket++;
        break;
      case Look::kNothing:
        more = before_tail(ticket);
        if (more) end_turn(slot, state, ticket);
    }
  }
  if (over != begin) change(layout_->head, begin, over);
  return found;
}

// The hint is copied before it is ours: had it been overwritten meanwhile, the state would be another.
template <class Memory>
bool BasicRequestQueue<Memory>::take(Slot& slot, uint64_t state, Hint& out) {
  const uint64_t call = slot.call.load(std::memory_order_acquire);
  const uint64_t buffer = slot.buffer.load(std::memory_order_acquire);
  const uint64_t empty = SlotState::word(SlotPhase::kEmpty, SlotState::of(state).turn + 1);
  if (!change(slot.state, state, empty)) return false;
  out = {static_cast<uint32_t>(call >> 32), static_cast<uint16_t>(buffer), static_cast<uint32_t>(call)};
  return true;
}

// Starts the clock of the slot that head stands at, or reads it. It is shared and may lie: a hole is then
// skipped too early, which costs its owner another try, or too late.
template <class Memory>
bool BasicRequestQueue<Memory>::is_hole(uint64_t ticket) {
  const uint64_t seen = layout_->hole.load(std::memory_order_relaxed);
  const auto now = static_cast<uint32_t>(Memory::now_ns() >> 10);
  if (seen >> 32 == static_cast<uint32_t>(ticket)) return now - static_cast<uint32_t>(seen) >= kHoleNs >> 10;
  layout_->hole.store(ticket << 32 | now, std::memory_order_relaxed);
  return false;
}

// Loaded after the slot's state: what has been published before this call began is before the tail.
template <class Memory>
bool BasicRequestQueue<Memory>::before_tail(uint64_t ticket) const {
  return distance(layout_->tail.load(std::memory_order_acquire), ticket) > 0;
}

// Tail has passed a slot that is not filled: it was skipped in an earlier turn, and may have been given back
// since. Its turn is declared over, so that a slow enqueuer does not fill it behind the head.
template <class Memory>
void BasicRequestQueue<Memory>::end_turn(Slot& slot, uint64_t word, uint64_t ticket) {
  const SlotState state = SlotState::of(word);
  const bool skipped = state.phase == SlotPhase::kSkipped;
  const uint32_t turn = turn_of(ticket);
  change(slot.state, word,
         skipped ? SlotState::word(SlotPhase::kSkipped, turn, state.owner)
                 : SlotState::word(SlotPhase::kEmpty, turn + 1));
}

template <class Memory>
template <class Alive>
uint32_t BasicRequestQueue<Memory>::repair(Alive alive) {
  uint32_t repaired = repair_tail();
  for (uint64_t index = 0; index <= mask_; index++) {
    Slot& slot = layout_->slots[index];
    const uint64_t before = layout_->head.load(std::memory_order_acquire);
    const uint64_t word = slot.state.load(std::memory_order_acquire);
    const uint64_t head = layout_->head.load(std::memory_order_acquire);
    const SlotState state = SlotState::of(word);
    const bool held = state.phase == SlotPhase::kFilling || state.phase == SlotPhase::kSkipped;
    uint32_t turn = state.turn + 1;
    if (!plausible(state, index, before, head)) {
      turn = turn_of(head + ((index - head) & mask_));  // of the slot's first ticket from head on
    } else if (!held || (state.owner != 0 && alive(state.owner))) {
      continue;
    }
    repaired += change(slot.state, word, SlotState::word(SlotPhase::kEmpty, turn));
  }
  return repaired;
}

// Head passes only turns that are over, and nobody is far ahead of it. The state was loaded between the two
// looks at head.
template <class Memory>
bool BasicRequestQueue<Memory>::plausible(SlotState state, uint64_t slot, uint64_t head_before,
                                          uint64_t head_after) const {
  const auto first_turn = [&](uint64_t head) { return turn_of(head + ((slot - head) & mask_)); };
  const int32_t next = state.phase == SlotPhase::kSkipped ? 1 : 0;  // the turn that it can be filled for
  return state.ahead_of(first_turn(head_before)) + next >= 0 &&
         state.ahead_of(first_turn(head_after)) + next <= kImplausible;
}

// Loaded in this order tail is never really ahead by more than a lap (and what dequeuers lag), and when it
// looks behind, it has moved and the change fails. An enqueuer that died after publishing may have left its
// item behind the tail; the next one would find it.
template <class Memory>
bool BasicRequestQueue<Memory>::repair_tail() {
  const uint64_t tail = layout_->tail.load(std::memory_order_acquire);
  const uint64_t head = layout_->head.load(std::memory_order_acquire);
  const int64_t waiting = distance(tail, head);
  if (waiting < -1 || waiting > int64_t{capacity()} + kImplausible) return change(layout_->tail, tail, head);
  const uint64_t state = slot_of(tail).state.load(std::memory_order_acquire);
  if (SlotState::of(state).phase == SlotPhase::kFull && tail_passes(state, tail))
    change(layout_->tail, tail, tail + 1);
  return false;
}

using RequestQueue = BasicRequestQueue<SharedMemory>;
extern template class BasicRequestQueue<SharedMemory>;
static_assert(HintQueue<RequestQueue>);

}  // namespace poly
