// The flags of a mount that calls are judged by, without asking its filesystem.
#pragma once

namespace poly {

// `fd`: of anything on the mount, O_PATH; `out`: of statvfs(3)'s f_flag ST_RDONLY, ST_NOEXEC and
// ST_NOSYMFOLLOW. 0 or -errno. With statmount(2) (Linux 6.8) nobody is asked. Before
// it, and for a mount of another mount namespace, by statfs(2), which FUSE sends to its server: to ourselves,
// for our own mounts, and should we be killed while one of our threads waits for another's answer, the
// process does not end.
[[nodiscard]] int read_mount_flags(int fd, unsigned long& out);

}  // namespace poly
