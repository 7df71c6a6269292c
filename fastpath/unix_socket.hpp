// Unix sockets that carry file descriptors and vouch for their peer (unix(7)).
//
// Every socket made here and every descriptor received here is close-on-exec. Functions return >= 0 or
// -errno, restart on EINTR, never raise SIGPIPE, and hold no state: they are as thread safe as the system
// calls.
#pragma once

#include <sys/types.h>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "fastpath/fd.hpp"

namespace poly {

// The kernel's SCM_MAX_FD: the most descriptors that one message carries.
inline constexpr std::size_t kMaxFdsPerMessage = 253;

struct PeerCredentials {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
};

// Sends one message with `fds` attached; they stay the caller's. On a stream `data` must not be empty when
// there are fds (nothing would carry them). Returns the bytes sent; -EINVAL for more than kMaxFdsPerMessage;
// on a stream a short count means that the fds went with the first byte.
[[nodiscard]] ssize_t send_with_fds(int sock, std::span<const std::byte> data, std::span<const int> fds,
                                    int flags);

// Receives one message (or some stream bytes); its descriptors are appended to `out`. Returns the bytes
// received (0: end of file, or an empty packet), or -errno: -EMFILE when this process could not take all
// descriptors, -EMSGSIZE when a packet was longer than `data`. The packet is consumed then, too, and what has
// come with it is in `out`: to close it may take as long as its sender likes.
[[nodiscard]] ssize_t recv_with_fds(int sock, std::span<std::byte> data, std::vector<Fd>& out, int flags);

// Who was at the other end when the connection (or socketpair) was made: SO_PEERCRED.
[[nodiscard]] int peer_credentials(int sock, PeerCredentials& out);

// Binds and listens on `path` with permission bits `mode`. `type` is SOCK_STREAM or SOCK_SEQPACKET, with
// SOCK_NONBLOCK if wanted. A socket file that nobody listens on any more is replaced; -EADDRINUSE when
// somebody does; -ENAMETOOLONG when `path` does not fit sun_path (107 bytes). Two processes that start on one
// path at the same instant need a lock of their own.
[[nodiscard]] int listen_unix(const std::string& path, int type, mode_t mode, Fd& out);

// Connects to `path`. -ECONNREFUSED: nobody listens; -ENOENT: no such socket file.
[[nodiscard]] int connect_unix(const std::string& path, int type, Fd& out);

}  // namespace poly
