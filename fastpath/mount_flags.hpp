// The flags of a mount that decide what may be served on it, and that calls are judged by.
#pragma once

#include <cstdint>

namespace poly {

inline constexpr unsigned kUniqueMountId = 0x4000;  // STATX_MNT_ID_UNIQUE, Linux 6.8

struct MountFlags {
  bool read_only = false;
  bool no_execution = false;  // noexec
  bool no_symlinks = false;   // nosymfollow, Linux 5.10

  // `fd`: of the mount's root, O_PATH; `unique_id`: STATX_MNT_ID_UNIQUE, 0 if not known. 0 or -errno.
  // With statmount(2) (Linux 6.8) the filesystem is not asked. Before it, and for a mount of another mount
  // namespace, by statfs(2), a round trip to its server: a service that asks for its own mount's asks itself,
  // and should it be killed while one of its threads waits for another's answer, the process does not end.
  [[nodiscard]] int read(int fd, uint64_t unique_id);
};

}  // namespace poly
