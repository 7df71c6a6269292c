// The flags of a mount that decide what the library may serve on it.
#pragma once

#include <cstdint>

namespace poly {

struct MountFlags {
  bool read_only = false;
  bool no_execution = false;  // noexec
  bool no_symlinks = false;   // nosymfollow, Linux 5.10

  // `fd`: of the mount's root, O_PATH; `unique_id`: STATX_MNT_ID_UNIQUE, 0 if not known. 0 or -errno.
  // With statmount(2) (Linux 6.8) the filesystem is not asked; statfs(2) is a round trip to its server.
  [[nodiscard]] int read(int fd, uint64_t unique_id);
};

}  // namespace poly
