// Directories that relative paths begin at: the service's handles for kernel directories that this process
// uses, found again by inode number, and the descriptors that are known not to be of our mounts.
#pragma once

#include <cstdint>

#include "preload/mounts.hpp"
#include "preload/open_file.hpp"
#include "preload/paths.hpp"

namespace poly::directories {

// A new handle. `flags`: O_DIRECTORY, it is to be read; 0: relative paths begin there. 0, -errno or
// kDeclined.
[[nodiscard]] long open(const Place& place, uint32_t flags, FileRef& out);

// The handle that stands for the kernel's directory `fd` (or AT_FDCWD), and its mount; null: the kernel's.
[[nodiscard]] FileRef handle_of(int fd);

// The kernel's for certain: found so before, and nothing has changed.
[[nodiscard]] bool is_foreign(int fd);

// Hints, so that the kernel's directories cost nothing: a wrong one makes a path the kernel's, which is
// right.
void forget_fd(int fd);  // the number means something else from now on
void forget_working_directory();

void forget_all();

}  // namespace poly::directories
