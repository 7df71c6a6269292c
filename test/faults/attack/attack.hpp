// What hostile clients of the fast path do to a service. Each function is run in a process of its own, which
// may be killed at any moment.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "test/faults/workload/random.hpp"

namespace attack {

using faults::Random;

struct Target {
  std::string socket;  // where clients attach
  std::string mount;   // "junk" below it can be written by anybody
  uint32_t instance = 0;
  int silent_root = -1;  // O_PATH descriptor of a filesystem that does not answer, or -1
};

// How many clients there were, or tried to be.
using Tally = std::atomic<uint64_t>&;

// Attaches, and writes random bytes into everything that is shared, calls that lie included.
void scribble(const Target&, Random&, Tally);
// Messages of any size with any descriptors, half handshakes, proofs of what is no mount.
void speak_nonsense(const Target&, Random&, Tally);
// Hundreds at once.
void crowd(const Target&, Random&, Tally);
// One after the other; most go in the middle of a call.
void come_and_go(const Target&, Random&, Tally);

}  // namespace attack
