#include "fastpath/attach_socket.hpp"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cstring>

#include "fastpath/raw_calls.hpp"

namespace poly {
namespace {

constexpr time_t kAnswerSeconds = 5;

union FdMessage {
  cmsghdr header;
  char room[CMSG_SPACE(sizeof(int))];
};

int send_message(int socket, const void* message, size_t size, int fd) {
  iovec data{const_cast<void*>(message), size};
  FdMessage control{};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  if (fd >= 0) {
    header.msg_control = control.room;
    header.msg_controllen = sizeof control.room;
    control.header = {CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS};
    std::memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
  }
  long sent;
  do sent = raw::call(SYS_sendmsg, socket, &header, MSG_NOSIGNAL);
  while (sent == -EINTR);
  return sent < 0 ? static_cast<int>(sent) : 0;
}

}  // namespace

int connect_attach(const char* path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (std::strlen(path) >= sizeof address.sun_path) return -ENAMETOOLONG;
  std::strcpy(address.sun_path, path);
  auto fd = static_cast<int>(raw::call(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (fd < 0) return fd;
  timeval limit{kAnswerSeconds, 0};
  long rc = raw::call(SYS_setsockopt, fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (rc == 0) rc = raw::call(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (rc == 0) rc = raw::call(SYS_connect, fd, &address, sizeof address);
  if (rc == 0) return fd;
  raw::close(fd);
  return static_cast<int>(rc);
}

int exchange(int socket, const void* message, size_t size, int fd, void* answer, size_t answer_size,
             int& answer_fd) {
  answer_fd = -1;
  if (int err = send_message(socket, message, size, fd)) return err == -EPIPE ? -ECONNRESET : err;
  iovec data{answer, answer_size};
  FdMessage control{};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  header.msg_control = control.room;
  header.msg_controllen = sizeof control.room;
  long got;
  do got = raw::call(SYS_recvmsg, socket, &header, MSG_CMSG_CLOEXEC);
  while (got == -EINTR);
  if (got < 0) return static_cast<int>(got);
  if (cmsghdr* c = CMSG_FIRSTHDR(&header); c && c->cmsg_type == SCM_RIGHTS)
    std::memcpy(&answer_fd, CMSG_DATA(c), sizeof answer_fd);
  if (static_cast<size_t>(got) == answer_size) return 0;
  if (answer_fd >= 0) raw::close(answer_fd);
  answer_fd = -1;
  return got == 0 ? -ECONNRESET : -EPROTO;
}

}  // namespace poly
