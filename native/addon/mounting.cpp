#include "native/addon/mounting.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "fastpath/unix_socket.hpp"

namespace poly {

int mount_fuse(const std::string& target, int fuse_fd, const std::string& source, unsigned long flags,
               const std::string& options) {
  std::string data = "fd=" + std::to_string(fuse_fd) + ",rootmode=40000,user_id=" + std::to_string(getuid()) +
                     ",group_id=" + std::to_string(getgid());
  if (!options.empty()) data += "," + options;
  return mount(source.c_str(), target.c_str(), "fuse.poly", flags, data.c_str()) == 0 ? 0 : -errno;
}

namespace {

// fusermount3 finds its end of the socket by number in _FUSE_COMMFD; dup2 to a fixed number also clears
// close-on-exec.
constexpr int kCommFd = 3;

int spawn_fusermount(const std::string& target, const std::string& options, int comm, int errors,
                     pid_t& child) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO);
  posix_spawn_file_actions_adddup2(&actions, comm, kCommFd);
  std::string comm_variable = "_FUSE_COMMFD=" + std::to_string(kCommFd);
  std::vector<char*> environment;
  for (char** e = environ; *e; e++) environment.push_back(*e);
  environment.push_back(comm_variable.data());
  environment.push_back(nullptr);
  std::string name = "fusermount3", o = "-o", list = options, dashes = "--", where = target;
  char* arguments[]{name.data(), o.data(), list.data(), dashes.data(), where.data(), nullptr};
  int err = posix_spawnp(&child, "fusermount3", &actions, nullptr, arguments, environment.data());
  posix_spawn_file_actions_destroy(&actions);
  return -err;
}

std::string read_all(int fd) {
  std::string text;
  char chunk[512];
  for (ssize_t n; (n = read(fd, chunk, sizeof chunk)) > 0;) text.append(chunk, static_cast<size_t>(n));
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace

int fusermount(const std::string& target, const std::string& options, Fd& fuse_fd, std::string& message) {
  int ends[2], pipe_ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return -errno;
  Fd ours(ends[0]), theirs(ends[1]);
  if (pipe2(pipe_ends, O_CLOEXEC) != 0) return -errno;
  Fd errors(pipe_ends[0]), errors_in(pipe_ends[1]);
  pid_t child;
  if (int err = spawn_fusermount(target, options, theirs.get(), errors_in.get(), child)) return err;
  theirs.reset();
  errors_in.reset();
  message = read_all(errors.get());
  std::byte byte;
  std::vector<Fd> fds;
  ssize_t got = recv_with_fds(ours.get(), std::span(&byte, 1), fds, 0);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (got < 1 || fds.size() != 1 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) return -EPERM;
  fuse_fd = std::move(fds[0]);
  return 0;
}

}  // namespace poly
