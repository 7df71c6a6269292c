// Every interleaving of the request queue's accesses to shared memory: 2 enqueuers, 2 dequeuers and the
// sweep, capacity 2, with a crash after any access.
//
// The very code of fastpath/request_queue.hpp runs over a Memory whose words stop it at every access. A call
// is resumed by running it again from its start with the results of its earlier accesses (it is a function of
// them), so a state is plain data: the words, the clock, and what each actor's call has seen so far. The
// search goes through all states depth first and remembers their hashes (two states of equal hash would be
// taken for one: at 10^7 states and 64 bits the odds are 1 in 10^5).
//
// What it shows holds under sequential consistency, which on x86 leaves out only that a store may be delayed
// past a later load of another word; weaker orders are argued for in request_queue.hpp, and TSan looks at
// data races. At every look the clock may find a hole young or old: both are tried.
#include "test/unit/request_queue_model.hpp"

namespace {

using namespace queue_model;

using poly::Hint;
using poly::SlotPhase;
using poly::SlotState;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSmall = true;
#else
constexpr bool kSmall = false;
#endif

constexpr uint8_t kProbe = 4 + kCapacity;  // the item that is enqueued last of all
constexpr size_t kActors = 5, kMaxItems = 4;

// ---- What the actors do, and a state of the search ----

struct Scenario {
  const char* name;
  uint8_t items[2] = {1, 1};  // of each enqueuer
  uint8_t tries = 1;          // how often each item is tried while the queue is full
  uint8_t takes[2] = {1, 1};  // calls of each dequeuer
  uint8_t sweeps = 0;         // calls of repair(), by the fifth actor
  uint8_t crashes = 0;        // how many of the first four may crash
  uint64_t first = 0;         // ticket to begin with
  uint8_t filled = 0;         // items that are there at the beginning
  bool late = true;           // holes may be found old
};

struct Actor {
  uint8_t calls = 0;
  bool crashed = false;
  Log log;
};

struct State {
  uint64_t words[9] = {};
  Actor actors[kActors];
  uint8_t crashes = 0;
  uint8_t hands = 0;     // dequeuers that crashed within a call: what they took is lost
  uint8_t accepted = 0;  // bits of items that enqueue() said yes to
  uint8_t refused = 0;   // ... of items given up, as the queue was full
  uint8_t delivered[kProbe + 1] = {};
};

class Search {
 public:
  Search(const Scenario& scenario) : scenario_(scenario) {}

  void run() {
    State state;
    replay = {};
    Queue::format(arena, kCapacity, scenario_.first);
    Queue setup(arena, kCapacity, 9);
    for (uint8_t i = 0; i < scenario_.filled; i++) REQUIRE(setup.enqueue(hint_of(kMaxItems + i)));
    save(state);
    explore(state);
    std::printf("%s: %zu states, %zu ends\n", scenario_.name, seen_.size(), ends_);
    CHECK(ends_ > 0);
  }

 private:
  static Hint hint_of(uint8_t item) { return {100u + item, static_cast<uint16_t>(200 + item), 300u + item}; }
  static Queue view(size_t actor) { return Queue(arena, kCapacity, static_cast<uint32_t>(actor + 1)); }

  static ModelWord* words(size_t index) {
    if (index < 3) return index == 0 ? &layout().tail : index == 1 ? &layout().head : &layout().hole;
    Queue::Slot& slot = layout().slots[(index - 3) / 3];
    return (index - 3) % 3 == 0 ? &slot.state : (index - 3) % 3 == 1 ? &slot.call : &slot.buffer;
  }
  static void load(const State& state) {
    for (size_t i = 0; i < std::size(state.words); i++) words(i)->value = state.words[i];
  }
  static void save(State& state) {
    for (size_t i = 0; i < std::size(state.words); i++) state.words[i] = words(i)->value;
    state.words[2] &= ~uint64_t{0xffffffff};  // all holes are of time 0
  }

  uint8_t calls_of(size_t actor) const {
    if (actor < 2) return scenario_.items[actor] * scenario_.tries;
    return actor < 4 ? scenario_.takes[actor - 2] : scenario_.sweeps;
  }
  bool at_end(const State& state, size_t actor) const {
    return state.actors[actor].crashed || state.actors[actor].calls >= calls_of(actor);
  }

  bool first_visit(const State& state);
  bool step(State& state, size_t actor, bool late);
  void call(State& state, size_t actor);
  void enqueue(State& state, size_t actor);
  void deliver(State& state, const Hint& hint);
  void explore(const State& state);
  void check_end(State state);
  void drain(State& state);
  int waiting(const State& state) const;
  void check_items(const State& state);
  void check_flows();
  void check_usable();

  const Scenario scenario_;
  HashSet seen_;
  size_t ends_ = 0;
};

uint64_t mixed(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15;
  return hash ^ hash >> 32;
}

bool Search::first_visit(const State& state) {
  uint64_t hash = mixed(1, state.crashes | state.hands << 8 | state.accepted << 16 |
                               static_cast<uint64_t>(state.refused) << 24);
  for (const uint64_t word : state.words) hash = mixed(hash, word);
  for (const uint8_t count : state.delivered) hash = mixed(hash, count);
  for (const Actor& actor : state.actors) {
    hash = mixed(hash, actor.calls | actor.crashed << 8 | actor.log.size << 16);
    for (uint8_t i = 0; i < actor.log.size; i++) hash = mixed(hash, actor.log.values[i]);
  }
  return seen_.insert(hash);
}

// Runs the actor's call up to and with its next access; true when the clock was looked at.
bool Search::step(State& state, size_t actor, bool late) {
  load(state);
  replay.log = &state.actors[actor].log;
  replay.at = 0;
  replay.stepped = replay.clock_read = false;
  replay.late = late;
  replay.enqueuer = actor < 2;
  replay.dequeuer = actor == 2 || actor == 3;
  if (setjmp(replay.out) == 0) call(state, actor);
  replay.log = nullptr;
  save(state);
  return replay.clock_read;
}

// Reached behind the call itself only when it has come to its end.
void Search::call(State& state, size_t actor) {
  if (actor < 2) {
    enqueue(state, actor);
  } else if (actor < 4) {
    Hint hint;
    const bool found = view(actor).dequeue(hint);
    if (found) deliver(state, hint);
    state.actors[actor].calls++;
  } else {
    const uint32_t repaired = view(actor).repair([&](uint32_t owner) {
      return access([&] { return uint64_t{!state.actors[owner - 1].crashed}; }) != 0;
    });
    CHECK(repaired <= state.crashes);
    state.actors[actor].calls++;
  }
  state.actors[actor].log = {};
}

void Search::enqueue(State& state, size_t actor) {
  uint8_t& calls = state.actors[actor].calls;
  const uint8_t item = static_cast<uint8_t>((actor == 0 ? 0 : scenario_.items[0]) + calls / scenario_.tries);
  const bool accepted = view(actor).enqueue(hint_of(item));
  if (accepted) {
    state.accepted |= 1u << item;
    calls = static_cast<uint8_t>((calls / scenario_.tries + 1) * scenario_.tries);
  } else if (++calls % scenario_.tries == 0) {
    state.refused |= 1u << item;
  }
}

void Search::deliver(State& state, const Hint& hint) {
  const uint32_t item = hint.client - 100;
  REQUIRE(item < std::size(state.delivered) && hint == hint_of(static_cast<uint8_t>(item)));
  state.delivered[item]++;
  REQUIRE(state.delivered[item] == 1);
}

void Search::explore(const State& state) {
  if (!first_visit(state)) return;
  bool end = true;
  for (size_t actor = 0; actor < kActors; actor++) {
    if (at_end(state, actor)) continue;
    end = false;
    State next = state;
    if (step(next, actor, false) && scenario_.late) {
      explore(next);
      next = state;
      step(next, actor, true);
    }
    explore(next);
    // Between calls a crash is the same as a shorter life.
    const uint8_t seen = state.actors[actor].log.size;
    if (actor == 4 || seen == 0 || state.crashes == scenario_.crashes) continue;
    next = state;
    next.actors[actor].crashed = true;
    next.actors[actor].log = {};
    next.crashes++;
    next.hands += actor >= 2;
    explore(next);
  }
  if (end) check_end(state);
}

// What is still in the queue comes out with nobody's help but time and one more item, which uncovers what an
// enqueuer published before it died; then, with the sweep, the queue is as new.
void Search::check_end(State state) {
  ends_++;
  load(state);
  Queue queue = view(2);
  Hint hint;
  if (waiting(state) > state.hands) REQUIRE(queue.maybe_any());
  drain(state);
  if (state.crashes < kCapacity) {
    REQUIRE(queue.enqueue(hint_of(kProbe)));
    drain(state);
    REQUIRE(state.delivered[kProbe] == 1);
    check_flows();
  }
  check_items(state);
  const auto alive = [&](uint32_t owner) { return !state.actors[owner - 1].crashed; };
  REQUIRE(queue.repair(alive) <= state.crashes);
  drain(state);
  check_usable();
}

void Search::drain(State& state) {
  Hint hint;
  for (int calls = 0; calls < 16; calls++) {
    if (view(2).dequeue(hint)) deliver(state, hint);
  }
  REQUIRE(!view(2).dequeue(hint) && !view(2).maybe_any());
}

// Items that were accepted and have not come out.
int Search::waiting(const State& state) const {
  int count = 0;
  for (uint32_t item = 0; item < kMaxItems; item++)
    count += (state.accepted >> item & 1) != 0 && state.delivered[item] == 0;
  for (uint32_t i = 0; i < scenario_.filled; i++) count += state.delivered[kMaxItems + i] == 0;
  return count;
}

void Search::check_items(const State& state) {
  REQUIRE(waiting(state) <= state.hands);
  for (uint32_t item = 0; item < kMaxItems; item++) {
    if ((state.refused >> item & 1) != 0) REQUIRE(state.delivered[item] == 0);
  }
  const bool room = scenario_.items[0] + scenario_.items[1] + scenario_.filled <= int{kCapacity};
  if (room && !scenario_.late) REQUIRE(state.refused == 0);
}

// Around the slots that dead enqueuers hold, before anybody has repaired them.
void Search::check_flows() {
  Queue queue = view(2);
  Hint hint;
  for (uint8_t item = 0; item < 4; item++) {
    REQUIRE(queue.enqueue(hint_of(item)));
    REQUIRE(queue.maybe_any());
    REQUIRE(queue.dequeue(hint) && hint == hint_of(item));
    REQUIRE(!queue.dequeue(hint) && !queue.maybe_any());
  }
}

void Search::check_usable() {
  Queue queue = view(2);
  Hint hint;
  for (uint8_t lap = 0; lap < 3; lap++) {
    REQUIRE(!queue.maybe_any());
    for (uint8_t item = 0; item < kCapacity; item++) REQUIRE(queue.enqueue(hint_of(item)));
    REQUIRE(!queue.enqueue(hint_of(3)));
    for (uint8_t item = 0; item < kCapacity; item++) {
      REQUIRE(queue.dequeue(hint));
      REQUIRE(hint == hint_of(item));
    }
    REQUIRE(!queue.dequeue(hint));
  }
}

// ---- Scenarios ----

// What is asked for: two by two, an item each, and each of the four may crash after any access.
TEST(two_by_two) {
  if (kSmall) return;
  Search({.name = "2 enqueuers, 2 dequeuers, all may crash", .crashes = 4}).run();
}

// With the sweep as the fifth at work, the full search is out of reach; from a full queue it is not.
TEST(two_by_two_and_sweep_from_full) {
  if (kSmall) return;
  Search({.name = "... and the sweep, from a full queue", .sweeps = 1, .crashes = 2, .filled = 2}).run();
}

// Where the turns' count wraps.
TEST(two_by_two_from_one) {
  const uint64_t first = (uint64_t{SlotState::kTurnMask} + 1) * kCapacity - 1;
  Search({.name = "2x2 from one item", .crashes = 4, .first = first, .filled = 1}).run();
}
TEST(two_by_two_from_full) {
  Search({.name = "2x2 from a full queue, 2 tries", .tries = 2, .crashes = 4, .filled = 2}).run();
}
TEST(two_by_two_without_holes) {
  if (kSmall) return;
  Search({.name = "2x2 without skipping", .late = false}).run();
}
TEST(two_by_one_and_sweep) {
  if (kSmall) return;
  Search({.name = "2x1 and the sweep", .takes = {1, 0}, .sweeps = 1, .crashes = 3}).run();
}
TEST(one_by_two_and_sweep) {
  Search({.name = "1x2 and the sweep", .items = {1, 0}, .sweeps = 1, .crashes = 3}).run();
}

// Over the queue's end: more items than slots.
TEST(one_by_two_over_a_lap) {
  if (kSmall) return;
  Search({.name = "1x2, 4 items", .items = {4, 0}, .takes = {3, 1}, .crashes = 3}).run();
}
TEST(two_by_one_over_a_lap) {
  if (kSmall) return;
  Search({.name = "2x1, 3 items", .items = {2, 1}, .takes = {3, 0}, .crashes = 3}).run();
}

}  // namespace

CHECK_MAIN()
