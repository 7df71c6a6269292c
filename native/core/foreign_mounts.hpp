// Foreign mounts: what others have mounted below mounts of ours, and the mount table's kernel entries for
// them.
//
// The kernel says what is mounted in /proc/self/mountinfo, proc(5). A mount is foreign when its chain of
// parents leads through a mount of the table and it is none itself: there, and below it, the kernel has the
// say. Paths are bytes here; a kernel entry that stood at a wrong spelling would let a wrong file be served.
//
// Called by the mount table's one writer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fastpath/mount_table.hpp"

namespace poly {

struct MountLine {
  uint64_t id = 0;      // also statx(2)'s stx_mnt_id
  uint64_t parent = 0;  // of the mount it stands on
  uint64_t device = 0;  // st_dev
  std::string path;     // as this process sees it
};

// Lines that are no mountinfo lines are left out.
[[nodiscard]] std::vector<MountLine> parse_mountinfo(std::string_view text);

struct ForeignMounts {
  size_t entries = 0;  // kernel entries there are now
  size_t hidden =
      0;  // mounts of ours taken out of lookups, since the table had no room for what is below them
};

// Makes the kernel entries what `mountinfo` says, and starts a new generation. 0 or -errno of the table.
[[nodiscard]] int follow_mounts(MountTable& table, std::string_view mountinfo, ForeignMounts& out);

// All of /proc/self/mountinfo. 0 or -errno.
[[nodiscard]] int read_mountinfo(std::string& out);

}  // namespace poly
