// The table of FUSE opcodes: what the kernel calls an operation, and the function that decodes, dispatches
// and encodes it.
#pragma once

#include <cstdint>

namespace poly {

class Call;

struct Opcode {
  // 0 or -errno for the reply; LockTable::kParked.
  int (*handle)(Call&);
  // Keeps an exactly-once record (core/replay.hpp): has effects, or opens something that an unsent reply
  // would leak.
  bool replays;
};

// Null for what is answered with ENOSYS.
const Opcode* find_opcode(uint32_t opcode);

}  // namespace poly
