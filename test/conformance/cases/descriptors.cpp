// Descriptors as such: flags, duplicates, passing them to other processes.
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "test/conformance/suite/suite.hpp"

namespace {

// Sends a descriptor over a socket (unix(7)).
int send_fd(int socket, int fd) {
  char byte = 'x', control[CMSG_SPACE(sizeof(int))] = {};
  iovec data{&byte, 1};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  return static_cast<int>(sendmsg(socket, &message, 0));
}

int receive_fd(int socket) {
  char byte, control[CMSG_SPACE(sizeof(int))] = {};
  iovec data{&byte, 1};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (recvmsg(socket, &message, 0) != 1) return -1;
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
  return fd;
}

}  // namespace

CASE(descriptors, lowest_free_number) {
  const int a = OK(open("f", O_CREAT | O_RDWR, 0644));
  OK(close(a));
  EQ(OK(open("f", O_RDONLY)), a);
  const int b = OK(fcntl(a, F_DUPFD, 100));
  EQ(b, 100);
  EQ(OK(dup2(a, 200)), 200);
  FAILS(EINVAL, dup3(a, a, 0));
  FAILS(EBADF, dup(-1));
}

CASE(descriptors, close_on_exec) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR | O_CLOEXEC, 0644));
  EQ(OK(fcntl(fd, F_GETFD)), FD_CLOEXEC);
  const Fd copy = OK(dup(fd));
  EQ(OK(fcntl(copy, F_GETFD)), 0);
}

CASE(descriptors, inherited_across_exec) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  OK(write(fd, "before ", 7));
  in_child([&] {
    dup2(fd, 1);
    FAILS(0, execl("/bin/echo", "echo", "from exec", nullptr));
  });
  OK(write(fd, "after", 5));
  EQ(content("f"), "before from exec\nafter");
}

CASE(descriptors, shell_redirections_share_one_offset) {
  in_child([] {
    FAILS(0,
          execl("/bin/sh", "sh", "-c", "(echo one; /bin/echo two; echo three) >f; echo four >>f", nullptr));
  });
  EQ(content("f"), "one\ntwo\nthree\nfour\n");
}

CASE(descriptors, passed_over_a_socket) {
  int ends[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
  OK(make_file("f", "0123456789"));
  in_child([&] {
    const Fd fd = OK(open("f", O_RDONLY));
    OK(lseek(fd, 4, SEEK_SET));
    OK(send_fd(ends[0], fd));
  });
  const Fd fd = OK(receive_fd(ends[1]));
  char buffer[4];
  EQ(OK(read(fd, buffer, 3)), 3);
  EQ(std::string(buffer, 3), "456");
}

CASE(descriptors, status_flags) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR | O_NONBLOCK, 0644));
  CHECK((OK(fcntl(fd, F_GETFL)) & (O_NONBLOCK | O_ACCMODE)) == (O_NONBLOCK | O_RDWR));
  OK(fcntl(fd, F_SETFL, 0));
  CHECK((OK(fcntl(fd, F_GETFL)) & O_NONBLOCK) == 0);
}

CASE(descriptors, files_are_always_ready) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  pollfd wanted{fd, POLLIN | POLLOUT, 0};
  EQ(OK(poll(&wanted, 1, 0)), 1);
  EQ(wanted.revents, POLLIN | POLLOUT);
}

CASE(descriptors, ioctls) {
  OK(make_file("f", "0123456789"));
  const Fd fd = OK(open("f", O_RDWR));
  OK(lseek(fd, 3, SEEK_SET));
  int left = 0;
  OK(ioctl(fd, FIONREAD, &left));
  EQ(left, 7);
  FAILS(ENOTTY, ioctl(fd, TIOCGWINSZ, &left));
  EQ(isatty(fd), 0);
}

CASE(descriptors, working_directory_after_rename_of_parents) {
  OK(mkdir("a", 0755));
  OK(mkdir("a/b", 0755));
  OK(make_file("a/b/f", "text"));
  const Fd dir = OK(open("a/b", O_RDONLY));
  OK(rename("a", "z"));
  EQ(content(static_cast<int>(Fd(OK(openat(dir, "f", O_RDONLY))))), "text");
  const Fd up = OK(openat(dir, "..", O_RDONLY));
  OK(fchdir(up));
  EQ(names("."), "b");
}

CASE(descriptors, advice_is_taken) {
  OK(make_file("f", pattern(100000)));
  const Fd fd = OK(open("f", O_RDONLY));
  OK(from_error(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL)));
  OK(from_error(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)));
  OK(readahead(fd, 0, 65536));
  CHECK(content(static_cast<int>(fd)) == pattern(100000));
  FAILS(EINVAL, from_error(posix_fadvise(fd, 0, 0, 99)));
}
