// Mounting and unmounting, in the calling process's mount namespace.
#pragma once

#include <string>

#include "fastpath/fd.hpp"

namespace poly {

// mount(2) of type fuse.poly. `options` are the filesystem's own ("default_permissions,allow_other").
[[nodiscard]] int mount_fuse(const std::string& target, int fuse_fd, const std::string& source,
                             unsigned long flags, const std::string& options);

// Runs fusermount3(1), which mounts for ordinary users and passes the /dev/fuse fd back. `message`: what it
// complained about.
[[nodiscard]] int fusermount(const std::string& target, const std::string& options, Fd& fuse_fd,
                             std::string& message);

}  // namespace poly
