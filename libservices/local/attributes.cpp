// Attributes, extended attributes, filesystem statistics, and the handles that outlive the service.
#include <fcntl.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "libservices/identity.hpp"
#include "libservices/local/local.hpp"

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452  // Linux 6.6
#endif

namespace poly {
namespace {

LocalNode& local(Node& node) {
  return static_cast<LocalNode&>(node);
}

int change_times(int fd, const SetAttr& set) {
  auto time = [&](uint32_t given, uint32_t now, const timespec& value) {
    if (set.mask & now) return timespec{0, UTIME_NOW};
    return set.mask & given ? value : timespec{0, UTIME_OMIT};
  };
  timespec times[2]{time(kSetAtime, kSetAtimeNow, set.atime), time(kSetMtime, kSetMtimeNow, set.mtime)};
  if (utimensat(fd, "", times, AT_EMPTY_PATH) == 0) return 0;
  return errno == EINVAL && utimensat(AT_FDCWD, ProcPath(fd).c_str(), times, 0) == 0 ? 0 : -errno;
}

// The bytes of a NodeHandle, before the name or the host handle.
struct HandleHeader {
  NodeIdentity identity;
  NodeIdentity parent;
  uint32_t type;
  uint32_t handle_size;
  int32_t handle_type;
  uint32_t name_size;
};
static_assert(sizeof(HandleHeader) == 80 && sizeof(HandleHeader) + NAME_MAX <= NodeHandle::kMax);

}  // namespace

int change_mode(int fd, mode_t mode) {
  static std::atomic<bool> has_fchmodat2{true};
  if (has_fchmodat2.load(std::memory_order_relaxed)) {
    if (syscall(SYS_fchmodat2, fd, "", mode, AT_EMPTY_PATH) == 0) return 0;
    if (errno != ENOSYS) return -errno;
    has_fchmodat2.store(false, std::memory_order_relaxed);
  }
  return chmod(ProcPath(fd).c_str(), mode) == 0 ? 0 : -errno;
}

int Local::getattr(Node& node, File* file, Attr& out) {
  if (file) return stat_fd(static_cast<LocalFile*>(file)->fd->get(), out);
  Ref<SharedFd> fd;
  if (int err = path_fd(local(node), fd)) return err;
  return stat_fd(fd->get(), out);
}

int Local::setattr(const Caller& caller, Node& node, File* file, const SetAttr& set, Attr& out) {
  Ref<SharedFd> path;
  if (int err = path_fd(local(node), path)) return err;
  int fd = path->get();
  const bool changes_owner = set.mask & (kSetUid | kSetGid);
  Attr before;
  if (changes_owner && (set.mask & kSetKillPriv)) {
    if (int err = stat_fd(fd, before)) return err;
  }
  // Owner first: chown(2) clears set-id bits that the mode may then set.
  // A request to set nothing at all is chown(path, -1, -1), which clears them too (chown_common, fs/open.c).
  if (changes_owner || set.mask == 0) {
    uid_t uid = set.mask & kSetUid ? set.uid : static_cast<uid_t>(-1);
    gid_t gid = set.mask & kSetGid ? set.gid : static_cast<gid_t>(-1);
    if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0) return -errno;
  }
  if (set.mask & kSetMode) {
    if (int err = change_mode(fd, set.mode & 07777)) return err;
  }
  if (set.mask & kSetSize) {
    auto size = static_cast<off_t>(set.size);
    int result = file ? ftruncate(static_cast<LocalFile*>(file)->fd->get(), size)
                      : truncate(ProcPath(fd).c_str(), size);
    if (result != 0) return -errno;
  }
  if (set.mask & (kSetAtime | kSetMtime | kSetAtimeNow | kSetMtimeNow)) {
    if (int err = change_times(fd, set)) return err;
  }
  if (int err = stat_fd(fd, out)) return err;
  if ((set.mask & kSetKillPriv) == 0 || (out.stx_mode & (S_ISUID | S_ISGID)) == 0) return 0;
  // chown(2) is judged by the group the file had, and root may keep what others may not; of a write by root
  // we are told only when it may not.
  const bool keeps_group =
      changes_owner ? caller.uid == 0 || in_group(caller, before.stx_gid) : in_group(caller, out.stx_gid);
  const mode_t kept = without_set_ids(out.stx_mode, keeps_group);
  if (kept == out.stx_mode) return 0;
  if (int err = change_mode(fd, kept & 07777)) return err;
  return stat_fd(fd, out);
}

ssize_t Local::readlink(Node& node, std::span<char> out) {
  Ref<SharedFd> fd;
  if (int err = path_fd(local(node), fd)) return err;
  ssize_t n = readlinkat(fd->get(), "", out.data(), out.size());
  if (n >= 0) return n;
  return errno == ENOENT ? -EINVAL : -errno;  // ENOENT: no symlink (readlinkat with an empty path)
}

int Local::setxattr(Node& node, const char* name, std::span<const std::byte> value, int flags) {
  Ref<SharedFd> fd;
  if (int err = path_fd(local(node), fd)) return err;
  return ::setxattr(ProcPath(fd->get()).c_str(), name, value.data(), value.size(), flags) == 0 ? 0 : -errno;
}

ssize_t Local::getxattr(Node& node, const char* name, std::span<std::byte> value) {
  Ref<SharedFd> fd;
  if (int err = path_fd(local(node), fd)) return err;
  ssize_t n = ::getxattr(ProcPath(fd->get()).c_str(), name, value.data(), value.size());
  return n < 0 ? -errno : n;
}

ssize_t Local::listxattr(Node& node, std::span<std::byte> names) {
  Ref<SharedFd> fd;
  if (int err = path_fd(local(node), fd)) return err;
  ssize_t n = ::listxattr(ProcPath(fd->get()).c_str(), reinterpret_cast<char*>(names.data()), names.size());
  return n < 0 ? -errno : n;
}

int Local::removexattr(Node& node, const char* name) {
  Ref<SharedFd> fd;
  if (int err = path_fd(local(node), fd)) return err;
  return ::removexattr(ProcPath(fd->get()).c_str(), name) == 0 ? 0 : -errno;
}

int Local::statfs(Node& node, struct statvfs& out) {
  Ref<SharedFd> fd;
  if (int err = path_fd(local(node), fd)) return err;
  return fstatvfs(fd->get(), &out) == 0 ? 0 : -errno;
}

int Local::syncfs(Node&) {
  return ::syncfs(root_fd_.get()) == 0 ? 0 : -errno;
}

int Local::encode(Node& node, NodeHandle& out) {
  LocalNode& n = local(node);
  std::lock_guard guard(n.lock);
  const std::string& name = n.known.name;
  const auto name_size = n.handle.size ? 0 : static_cast<uint32_t>(name.size());
  HandleHeader header{n.identity, n.known.parent_identity, n.type, n.handle.size, n.handle.type, name_size};
  std::memcpy(out.bytes.data(), &header, sizeof header);
  std::byte* rest = out.bytes.data() + sizeof header;
  if (n.handle.size)
    std::memcpy(rest, n.handle.bytes.data(), n.handle.size);
  else
    std::memcpy(rest, name.data(), name.size());
  out.size = static_cast<uint16_t>(sizeof header + header.handle_size + header.name_size);
  return 0;
}

Ref<Node> Local::handle_parent(Node& node) {
  LocalNode& n = local(node);
  if (n.handle.size != 0) return nullptr;
  {
    std::lock_guard guard(n.lock);
    if (n.is_root) return nullptr;
  }
  const Ref<LocalNode> parent = known_name(n).parent;
  return parent && parent.get() != root_.get() ? Ref<Node>::share(parent.get()) : nullptr;
}

int Local::decode(const NodeHandle& handle, Ref<Node>& out) {
  HandleHeader header;
  if (handle.size < sizeof header) return -ESTALE;
  std::memcpy(&header, handle.bytes.data(), sizeof header);
  if (header.handle_size > HostHandle::kMax || header.name_size > NAME_MAX ||
      handle.size != sizeof header + header.handle_size + header.name_size)
    return -ESTALE;
  const std::byte* rest = handle.bytes.data() + sizeof header;
  if (Ref<LocalNode> known = find(header.identity)) {
    {
      std::lock_guard guard(known->lock);
      known->restored = true;
    }
    out = std::move(known);
    return 0;
  }
  auto node = Ref<LocalNode>::adopt(new LocalNode(*this, header.identity, header.type));
  node->restored = true;
  node->handle.size = header.handle_size;
  node->handle.type = header.handle_type;
  std::memcpy(node->handle.bytes.data(), rest, header.handle_size);
  if (header.name_size) {
    node->known.name.assign(reinterpret_cast<const char*>(rest), header.name_size);
    node->known.parent_identity = header.parent;
  }
  {
    std::lock_guard guard(adopt_lock_);
    auto it = adoptable_.find(header.identity);
    if (it != adoptable_.end()) {
      node->pin = Ref<SharedFd>::adopt(new SharedFd(std::move(it->second.fd)));
      node->parked_name = std::move(it->second.name);
      node->unnamed = true;
      adoptable_.erase(it);
    }
  }
  out = publish(std::move(node));
  return 0;
}

}  // namespace poly
