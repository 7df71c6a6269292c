// Which attributes a setattr changes: in calls of the fast path (wire.hpp) and in libservice.hpp.
#pragma once

#include <cstdint>

namespace poly {

// Which members of a SetAttr count (values of our own: FUSE's FATTR_* are translated by the front end).
enum SetAttrMask : uint32_t {
  kSetMode = 1u << 0,
  kSetUid = 1u << 1,
  kSetGid = 1u << 2,
  kSetSize = 1u << 3,
  kSetAtime = 1u << 4,
  kSetMtime = 1u << 5,
  kSetAtimeNow = 1u << 6,
  kSetMtimeNow = 1u << 7,
  // Clear set-id bits as a write by an unprivileged process would (FUSE_HANDLE_KILLPRIV_V2).
  kSetKillPriv = 1u << 8,
};

}  // namespace poly
