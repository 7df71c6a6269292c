#include "fastpath/attach_table.hpp"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cstring>

namespace poly {
namespace {

constexpr char kName[] = "/table.sock";

int connect_table(const char* directory, Fd& out) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::size_t size = std::strlen(directory);
  if (size + sizeof(kName) > sizeof(address.sun_path)) return -ENAMETOOLONG;
  std::memcpy(address.sun_path, directory, size);
  std::memcpy(address.sun_path + size, kName, sizeof(kName));
  Fd sock(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!sock) return -errno;
  const timeval patience{1, 0};
  if (::setsockopt(sock.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) != 0 ||
      ::setsockopt(sock.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) != 0)
    return -errno;
  if (::connect(sock.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    return errno == EAGAIN ? -ETIMEDOUT : -errno;
  out = static_cast<Fd&&>(sock);
  return 0;
}

// One packet of one byte, with the descriptor.
int receive_fd(int sock, Fd& out) {
  char byte;
  iovec vector{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t size = ::recvmsg(sock, &message, MSG_CMSG_CLOEXEC);
  if (size < 0) return errno == EAGAIN ? -ETIMEDOUT : -errno;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (size == 0 || header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
    return -ENODATA;
  int fd;
  std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
  out = Fd(fd);
  return 0;
}

}  // namespace

int attach_table(const char* directory, MountTable& out) {
  Fd sock, table;
  if (int rc = connect_table(directory, sock); rc != 0) return rc;
  if (int rc = receive_fd(sock.get(), table); rc != 0) return rc;
  return MountTable::attach_reader(table.get(), out);
}

}  // namespace poly
