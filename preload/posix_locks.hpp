// POSIX record locks belong to the process and the inode: closing *any* descriptor of the file releases them
// (fcntl_locking(2)). The kernel sees no close of a library descriptor. So the library remembers which inodes
// this process has locked, and a library descriptor of such an inode is promoted before it is closed: then
// the kernel closes it, and releases what is to be released.
#pragma once

#include <cstdint>

namespace poly::posix_locks {

// The process takes or has taken a lock through descriptor `fd`, whatever it is.
void remember(int fd);
[[nodiscard]] bool may_hold(uint64_t device, uint64_t inode);
// For a forked child, which inherits no locks.
void forget_all();

}  // namespace poly::posix_locks
