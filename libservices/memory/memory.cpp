#include "libservices/memory/memory.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "fastpath/unix_socket.hpp"

namespace poly {
namespace {

int set_option(int context, const char* key, const std::string& value) {
  return syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, key, value.c_str(), 0) == 0 ? 0 : -errno;
}

int mount_tmpfs(const MemoryOptions& options, Fd& root) {
  Fd context(static_cast<int>(syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC)));
  if (!context) return -errno;
  char mode[16];
  snprintf(mode, sizeof mode, "%o", options.mode & 07777u);
  int err = set_option(context.get(), "mode", mode);
  if (!err) err = set_option(context.get(), "uid", std::to_string(options.uid));
  if (!err) err = set_option(context.get(), "gid", std::to_string(options.gid));
  if (!err && options.size) err = set_option(context.get(), "size", std::to_string(options.size));
  if (!err && options.inodes) err = set_option(context.get(), "nr_inodes", std::to_string(options.inodes));
  if (!err && !options.huge.empty()) err = set_option(context.get(), "huge", options.huge);
  // 64-bit inode numbers never wrap, so a number names one file for ever.
  if (!err)
    err = syscall(SYS_fsconfig, context.get(), FSCONFIG_SET_FLAG, "inode64", nullptr, 0) == 0 ? 0 : -errno;
  if (err) return err;
  if (syscall(SYS_fsconfig, context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) return -errno;
  Fd mount(static_cast<int>(syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, 0)));
  if (!mount) return -errno;
  int fd = openat(mount.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  root.reset(fd);
  return 0;
}

bool write_file(const char* path, const std::string& text) {
  Fd fd(open(path, O_WRONLY | O_CLOEXEC));
  return fd && write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// In the child: become root of a new user and mount namespace that maps only the caller, and send the tmpfs
// back.
int serve_from_namespace(int socket, const MemoryOptions& options) {
  std::string uid = std::to_string(geteuid()), gid = std::to_string(getegid());
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return errno;
  if (!write_file("/proc/self/setgroups", "deny") ||
      !write_file("/proc/self/uid_map", uid + " " + uid + " 1") ||
      !write_file("/proc/self/gid_map", gid + " " + gid + " 1"))
    return EPERM;
  Fd root;
  if (int err = mount_tmpfs(options, root)) return -err;
  int fds[]{root.get()};
  std::byte byte{};
  ssize_t sent = send_with_fds(socket, std::span(&byte, 1), fds, 0);
  return sent < 0 ? static_cast<int>(-sent) : 0;
}

int mount_in_namespace(const MemoryOptions& options, Fd& root) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return -errno;
  Fd ours(ends[0]), theirs(ends[1]);
  pid_t child = fork();
  if (child < 0) return -errno;
  if (child == 0) _exit(serve_from_namespace(theirs.get(), options));
  theirs.reset();
  std::vector<Fd> fds;
  std::byte byte;
  ssize_t got = recv_with_fds(ours.get(), std::span(&byte, 1), fds, 0);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (got == 1 && fds.size() == 1) {
    root = std::move(fds[0]);
    return 0;
  }
  return WIFEXITED(status) && WEXITSTATUS(status) ? -WEXITSTATUS(status) : -EIO;
}

}  // namespace

int make_memory(const MemoryOptions& options, Fd& root) {
  int err = mount_tmpfs(options, root);
  return err == -EPERM ? mount_in_namespace(options, root) : err;
}

}  // namespace poly
