#include "fastpath/unix_socket.hpp"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <cerrno>
#include <cstring>

namespace poly {
namespace {

constexpr std::size_t kControlBytes = CMSG_SPACE(sizeof(int) * kMaxFdsPerMessage);

int fill_address(const std::string& path, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.find('\0') != std::string::npos) return -EINVAL;
  if (path.size() >= sizeof(address.sun_path)) return -ENAMETOOLONG;
  std::memcpy(address.sun_path, path.data(), path.size());
  return 0;
}

int new_socket(int type, Fd& out) {
  Fd sock(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  if (!sock) return -errno;
  out = std::move(sock);
  return 0;
}

int connect_address(int sock, const sockaddr_un& address) {
  // An interrupted connect() of a unix socket has not begun: it may simply be called again.
  while (::connect(sock, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    if (errno != EINTR) return -errno;
  }
  return 0;
}

int bind_address(int sock, const sockaddr_un& address) {
  return ::bind(sock, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ? 0 : -errno;
}

// Removes the socket file of a listener that is dead; anything else stays and is -EADDRINUSE.
int remove_stale(const sockaddr_un& address, int type) {
  struct stat st;
  if (::lstat(address.sun_path, &st) != 0) return errno == ENOENT ? 0 : -errno;
  if (!S_ISSOCK(st.st_mode)) return -EADDRINUSE;
  Fd probe;
  // Non-blocking: a live listener whose backlog is full must not hold us (EAGAIN).
  if (int rc = new_socket(type | SOCK_NONBLOCK, probe); rc < 0) return rc;
  if (connect_address(probe.get(), address) != -ECONNREFUSED) return -EADDRINUSE;
  return ::unlink(address.sun_path) == 0 || errno == ENOENT ? 0 : -errno;
}

void take_fds(msghdr& message, std::vector<Fd>& out) {
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
      out.emplace_back(fd);
    }
  }
}

}  // namespace

ssize_t send_with_fds(int sock, std::span<const std::byte> data, std::span<const int> fds, int flags) {
  if (fds.size() > kMaxFdsPerMessage) return -EINVAL;
  alignas(cmsghdr) char control[kControlBytes];
  iovec iov{const_cast<std::byte*>(data.data()), data.size()};
  msghdr message{};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    std::memset(control, 0, message.msg_controllen);
    cmsghdr* c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(c), fds.data(), fds.size_bytes());
  }
  for (;;) {
    const ssize_t n = ::sendmsg(sock, &message, flags | MSG_NOSIGNAL);
    if (n >= 0) return n;
    if (errno != EINTR) return -errno;
  }
}

ssize_t recv_with_fds(int sock, std::span<std::byte> data, std::vector<Fd>& out, int flags) {
  alignas(cmsghdr) char control[kControlBytes];
  for (;;) {
    iovec iov{data.data(), data.size()};
    msghdr message{};
    message.msg_iov = &iov;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t n = ::recvmsg(sock, &message, flags | MSG_CMSG_CLOEXEC);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    take_fds(message, out);
    // The control buffer holds all that a message can carry, so a cut one means the descriptor limit (or a
    // security module) stopped the kernel half way.
    if ((message.msg_flags & MSG_CTRUNC) != 0) return -EMFILE;
    if ((message.msg_flags & MSG_TRUNC) != 0) return -EMSGSIZE;
    return n;
  }
}

int peer_credentials(int sock, PeerCredentials& out) {
  ucred cred{};
  socklen_t size = sizeof(cred);
  if (::getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &size) != 0) return -errno;
  out = {cred.pid, cred.uid, cred.gid};
  return 0;
}

int listen_unix(const std::string& path, int type, mode_t mode, Fd& out) {
  sockaddr_un address;
  if (int rc = fill_address(path, address); rc < 0) return rc;
  Fd sock;
  if (int rc = new_socket(type, sock); rc < 0) return rc;
  int rc = bind_address(sock.get(), address);
  if (rc == -EADDRINUSE) {
    rc = remove_stale(address, type);
    if (rc == 0) rc = bind_address(sock.get(), address);
  }
  if (rc < 0) return rc;
  // Connections are refused until listen(), so the mode is right before the first can be made.
  if (::chmod(path.c_str(), mode) != 0 || ::listen(sock.get(), SOMAXCONN) != 0) {
    rc = -errno;
    ::unlink(path.c_str());
    return rc;
  }
  out = std::move(sock);
  return 0;
}

int connect_unix(const std::string& path, int type, Fd& out) {
  sockaddr_un address;
  if (int rc = fill_address(path, address); rc < 0) return rc;
  Fd sock;
  if (int rc = new_socket(type, sock); rc < 0) return rc;
  if (int rc = connect_address(sock.get(), address); rc < 0) return rc;
  out = std::move(sock);
  return 0;
}

}  // namespace poly
