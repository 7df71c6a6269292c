// Operations on names: lookup, the makers of new entries, and what takes names away.
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libservices/identity.hpp"
#include "libservices/local/local.hpp"

namespace poly {
namespace {
LocalNode& local(Node& node) {
  return static_cast<LocalNode&>(node);
}
constexpr int kKeptOpenFlags = O_ACCMODE | O_TRUNC | O_EXCL | O_SYNC | O_DSYNC | O_NOATIME | O_DIRECTORY;
}  // namespace

int Local::lookup(const Caller&, Node& dir, const char* name, Entry& out) {
  if (!is_component(name)) return -EINVAL;
  Ref<SharedFd> fd;
  if (int err = path_fd(local(dir), fd)) return err;
  return entry_at(local(dir), fd->get(), name, out);
}

int Local::stat(const Caller&, Node& dir, const char* name, Attr& out) {
  if (!is_component(name)) return -EINVAL;
  Ref<SharedFd> fd;
  if (int err = path_fd(local(dir), fd)) return err;
  return stat_at(fd->get(), name, out);
}

int Local::mknod(const Caller& caller, Node& dir, const char* name, mode_t mode, dev_t device, Entry& out) {
  if (!is_component(name)) return -EINVAL;
  Ref<SharedFd> fd;
  if (int err = path_fd(local(dir), fd)) return err;
  assume(caller);
  if (mknodat(fd->get(), name, mode, device) != 0) return -errno;
  return entry_at(local(dir), fd->get(), name, out);
}

int Local::mkdir(const Caller& caller, Node& dir, const char* name, mode_t mode, Entry& out) {
  if (!is_component(name)) return -EINVAL;
  Ref<SharedFd> fd;
  if (int err = path_fd(local(dir), fd)) return err;
  assume(caller);
  if (mkdirat(fd->get(), name, mode) != 0) return -errno;
  return entry_at(local(dir), fd->get(), name, out);
}

int Local::symlink(const Caller& caller, Node& dir, const char* name, const char* target, Entry& out) {
  if (!is_component(name)) return -EINVAL;
  Ref<SharedFd> fd;
  if (int err = path_fd(local(dir), fd)) return err;
  assume(caller);
  if (symlinkat(target, fd->get(), name) != 0) return -errno;
  return entry_at(local(dir), fd->get(), name, out);
}

int Local::link(const Caller&, Node& node, Node& dir, const char* name, Entry& out) {
  if (!is_component(name)) return -EINVAL;
  Ref<SharedFd> source, fd;
  if (int err = path_fd(local(node), source)) return err;
  if (int err = path_fd(local(dir), fd)) return err;
  // The kernel in front has applied fs.protected_hardlinks to the caller; here the service links as itself.
  assume(Caller{});
  if (linkat(source->get(), "", fd->get(), name, AT_EMPTY_PATH) != 0) {
    // AT_EMPTY_PATH wants CAP_DAC_READ_SEARCH and answers ENOENT without it; /proc wants nothing (open(2),
    // O_TMPFILE).
    if (errno != ENOENT) return -errno;
    if (linkat(AT_FDCWD, ProcPath(source->get()).c_str(), fd->get(), name, AT_SYMLINK_FOLLOW) != 0)
      return -errno;
  }
  return entry_at(local(dir), fd->get(), name, out);
}

// The node that loses the name, if any is known; ENOENT when there is no such name.
int Local::victim(int dir_fd, const char* name, Ref<LocalNode>& out, Attr& attr) {
  if (int err = stat_at(dir_fd, name, attr)) return err;
  out = find(NodeIdentity::of(attr));
  return 0;
}

namespace {
// When the name by which it was found goes.
uint32_t names_left(const Attr& attr) {
  return S_ISDIR(attr.stx_mode) || attr.stx_nlink == 0 ? 0 : attr.stx_nlink - 1;
}
}  // namespace

int Local::remove(Node& dir, const char* name, const Entry& victim, int flags) {
  if (!is_component(name)) return -EINVAL;
  Ref<SharedFd> fd;
  if (int err = path_fd(local(dir), fd)) return err;
  LocalNode& node = local(*victim.node);
  const bool directory = S_ISDIR(victim.attr.stx_mode);
  if (directory != (flags == AT_REMOVEDIR)) return directory ? -EISDIR : -ENOTDIR;
  const uint32_t left = names_left(victim.attr);
  if (int err = begin_change(node, left)) return err;
  const int err = unlinkat(fd->get(), name, flags) == 0 ? 0 : -errno;
  end_change(node, err != 0 || lost_name(node, left, local(dir), name));
  return err;
}

int Local::unlink(const Caller&, Node& dir, const char* name, const Entry& victim) {
  return remove(dir, name, victim, 0);
}

int Local::rmdir(const Caller&, Node& dir, const char* name, const Entry& victim) {
  return remove(dir, name, victim, AT_REMOVEDIR);
}

int Local::rename(const Caller& caller, Node& dir, const char* name, Node& new_dir, const char* new_name,
                  uint32_t flags) {
  if (!is_component(name) || !is_component(new_name)) return -EINVAL;
  Ref<SharedFd> from, to;
  if (int err = path_fd(local(dir), from)) return err;
  if (int err = path_fd(local(new_dir), to)) return err;
  Ref<LocalNode> moving, other;
  Attr attr;
  if (int err = victim(from->get(), name, moving, attr)) return err;
  if (int err = victim(to->get(), new_name, other, attr); err && err != -ENOENT) return err;
  const bool exchange = flags & RENAME_EXCHANGE;
  const uint32_t left = exchange ? 1 : names_left(attr);
  // Two names of one inode stay what they are. What is reached by its handle may move as it likes.
  if ((flags & RENAME_NOREPLACE) || moving.get() == other.get()) other = nullptr;
  if (moving && (moving->handle.size != 0 || moving.get() == other.get())) moving = nullptr;
  if (other && other->handle.size != 0 && exchange) other = nullptr;
  if (moving) {
    if (int err = begin_change(*moving, 1)) return err;
  }
  if (other) {
    if (int err = begin_change(*other, left)) {
      if (moving) end_change(*moving, true);
      return err;
    }
  }
  if (flags & RENAME_WHITEOUT) assume(caller);
  const int err = renameat2(from->get(), name, to->get(), new_name, flags) == 0 ? 0 : -errno;
  LocalNode &old_dir = local(dir), &next_dir = local(new_dir);
  if (moving) end_change(*moving, err != 0 || moved(*moving, old_dir, name, next_dir, new_name));
  if (other) {
    end_change(*other, err != 0 || (exchange ? moved(*other, next_dir, new_name, old_dir, name)
                                             : lost_name(*other, left, next_dir, new_name)));
  }
  return err;
}

int Local::create(const Caller& caller, Node& dir, const char* name, int flags, mode_t mode, Entry& out,
                  Ref<File>& file) {
  if (!is_component(name)) return -EINVAL;
  Ref<SharedFd> fd;
  if (int err = path_fd(local(dir), fd)) return err;
  const uint64_t version = local(dir).names_version.load();
  assume(caller);
  int raw = openat(fd->get(), name,
                   (flags & kKeptOpenFlags) | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, mode);
  if (raw < 0) return -errno;
  Fd made(raw);
  if (int err = stat_fd(raw, out.attr)) return err;
  if (!S_ISREG(out.attr.stx_mode))
    return -ESTALE;  // a special file took the name meanwhile: the kernel looks again
  Ref<LocalNode> node;
  if (int err = intern(fd->get(), name, raw, out.attr, node)) return err;
  found_at(*node, local(dir), name, out.attr, version);
  if (int err = count_open(*node)) return err;
  out.node = Ref<Node>::share(node.get());
  file = Ref<File>::adopt(new LocalFile(std::move(node), std::move(made)));
  return 0;
}

int Local::tmpfile(const Caller& caller, Node& dir, int flags, mode_t mode, Entry& out, Ref<File>& file) {
  Ref<SharedFd> fd;
  if (int err = path_fd(local(dir), fd)) return err;
  assume(caller);
  int raw = openat(fd->get(), ".", (flags & kKeptOpenFlags & ~O_DIRECTORY) | O_TMPFILE | O_CLOEXEC, mode);
  if (raw < 0) return -errno;
  Fd made(raw);
  if (int err = stat_fd(raw, out.attr)) return err;
  Ref<LocalNode> node;
  if (int err = intern(-1, "", raw, out.attr, node)) return err;
  int path = ::open(ProcPath(raw).c_str(), O_PATH | O_CLOEXEC);
  if (path < 0) return -errno;
  {
    std::lock_guard guard(node->lock);
    node->pin = Ref<SharedFd>::adopt(new SharedFd(Fd(path)));
    node->unnamed = true;
  }
  if (int err = count_open(*node)) return err;
  out.node = Ref<Node>::share(node.get());
  file = Ref<File>::adopt(new LocalFile(std::move(node), std::move(made)));
  return 0;
}

int Local::open(const Caller&, Node& node, int flags, bool restored, Ref<File>& file) {
  LocalNode& n = local(node);
  if (!S_ISREG(n.type) && !S_ISDIR(n.type))
    return -ENXIO;  // the kernel in front opens devices, pipes and sockets itself
  int kept = flags & kKeptOpenFlags & ~(O_EXCL | (restored ? O_TRUNC : 0));
  Ref<SharedFd> shared;
  if (options_.read_fds != 0 && kept == O_RDONLY && S_ISREG(n.type) && !restored) {
    if (int err = open_to_read(n, shared)) return err;
  } else {
    Fd fd;
    if (int err = restored ? open_again(n, kept, fd) : open_real(n, kept, fd)) return err;
    shared = Ref<SharedFd>::adopt(new SharedFd(std::move(fd)));
  }
  if (int err = count_open(n)) return err;
  file = Ref<File>::adopt(new LocalFile(Ref<LocalNode>::share(&n), std::move(shared)));
  return 0;
}

}  // namespace poly
