// Place: where a path of the program lies in one of our mounts; locate() finds it, or leaves the path to the
// kernel.
//
// Only the text up to the mount point is looked at here, and only when it holds no "..". What is below goes
// to the service as it is spelt, which walks it as the kernel would. A relative path begins at a directory
// handle of the service, which stands for the kernel's directory when device and inode number are the same.
#pragma once

#include <cstdint>

#include "fastpath/wire.hpp"
#include "preload/mounts.hpp"
#include "preload/open_file.hpp"
#include "preload/program_memory.hpp"

namespace poly {

struct Place {
  Mount* mount = nullptr;
  FileRef directory;      // where the walk begins; null: the instance's root
  const char* text = "";  // the program's
  uint32_t size = 0;
  uint16_t walk = 0;  // WalkFlags
  bool is_root() const { return size == 0 && !directory; }
};

// False: the kernel's, found out in some nanoseconds; so for all paths of a process that has nothing to do
// with our mounts. `path` may be anything.
[[nodiscard]] bool may_be_ours(int directory, const char* path);

// False: the kernel's. `walk`: kWalkFollow, kWalkRealUid as the call wants them.
[[nodiscard]] bool locate(int directory, const char* path, uint16_t walk, Place& out);
// For calls that make or remove names: the mount point itself is the kernel's too.
[[nodiscard]] bool locate_name(int directory, const char* path, Place& out);

// A path such as /proc/self/fd/7 names one of the library's descriptors: promotes it, for what is behind it
// is a placeholder.
void promote_named(const char* path);

}  // namespace poly
