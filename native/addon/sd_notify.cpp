#include "native/addon/sd_notify.hpp"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "fastpath/unix_socket.hpp"

namespace poly {

int sd_notify(const std::string& message, std::span<const int> fds) {
  const char* path = getenv("NOTIFY_SOCKET");
  if (!path || !*path) return 0;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  size_t length = strlen(path);
  if (length >= sizeof address.sun_path) return -ENAMETOOLONG;
  memcpy(address.sun_path, path, length);
  if (path[0] == '@') address.sun_path[0] = '\0';  // abstract
  Fd sock(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!sock) return -errno;
  auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
  if (connect(sock.get(), reinterpret_cast<sockaddr*>(&address), size) != 0) return -errno;
  ssize_t sent = send_with_fds(sock.get(), std::as_bytes(std::span(message)), fds, 0);
  return sent < 0 ? static_cast<int>(sent) : 1;
}

}  // namespace poly
