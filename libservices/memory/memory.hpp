// `memory`: the machinery of `local` over a private tmpfs that is mounted nowhere. Its mount fd lives with
// the keeper, so contents survive the service; size= and inodes= are the tmpfs's own limits (ENOSPC from the
// kernel, never a crash).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "fastpath/fd.hpp"

namespace poly {

struct MemoryOptions {
  uint64_t size = 0;    // bytes; 0: tmpfs's default, half of the machine's memory
  uint64_t inodes = 0;  // 0: tmpfs's default
  mode_t mode = 0755;
  uid_t uid = 0;
  gid_t gid = 0;
  std::string huge;  // tmpfs(5); "": its default
};

// A new detached tmpfs's root directory (fsopen(2), Linux 5.2). Without CAP_SYS_ADMIN it is made in a user
// namespace by a short-lived child (the caller's own uid and gid are mapped); EPERM where the host forbids
// those.
[[nodiscard]] int make_memory(const MemoryOptions& options, Fd& root);

}  // namespace poly
