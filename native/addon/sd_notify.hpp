// sd_notify(3) without libsystemd: one datagram to NOTIFY_SOCKET. Node has no unix datagram sockets.
#pragma once

#include <span>
#include <string>

namespace poly {

// 1 sent, 0 no NOTIFY_SOCKET, -errno.
[[nodiscard]] int sd_notify(const std::string& message, std::span<const int> fds);

}  // namespace poly
