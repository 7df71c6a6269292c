// Making the libservice, and how nodes are found and reached.
#include "libservices/local/local.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <memory>

namespace poly {
namespace {

constexpr uint32_t kWanted = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID;
constexpr int kFileIdIno32Generation = 1;  // FILEID_INO32_GEN, include/linux/exportfs.h

// struct file_handle has a flexible member; this is its layout with room.
struct HandleBuffer {
  uint32_t handle_bytes;
  int32_t handle_type;
  std::byte bytes[HostHandle::kMax];
};
static_assert(offsetof(HandleBuffer, bytes) == sizeof(struct file_handle));

struct file_handle* as_kernel(HandleBuffer& buffer) {
  return reinterpret_cast<struct file_handle*>(&buffer);
}

// For ext4-like (ino, generation) and tmpfs (generation, ino low, ino high) handles the inode number inside
// can be compared, which proves that name and handle meant the same file although they were asked for in two
// calls.
bool names_inode(const HandleBuffer& handle, uint64_t ino) {
  if (handle.handle_type != kFileIdIno32Generation) return false;
  uint32_t words[3]{};
  if (handle.handle_bytes == 8) {
    std::memcpy(words, handle.bytes, 8);
    return words[0] == static_cast<uint32_t>(ino) && ino >> 32 == 0;
  }
  if (handle.handle_bytes == 12) {
    std::memcpy(words, handle.bytes, 12);
    return (uint64_t{words[2]} << 32 | words[1]) == ino;
  }
  return false;
}

// Filesystems without a flush operation, where close(2) has nothing to say.
bool closes_silently(int fd) {
  struct statfs st;
  if (fstatfs(fd, &st) != 0) return false;
  return st.f_type == TMPFS_MAGIC || st.f_type == EXT4_SUPER_MAGIC || st.f_type == XFS_SUPER_MAGIC ||
         st.f_type == BTRFS_SUPER_MAGIC;
}

// Since Linux 6.11 open_by_handle_at(2) lets some opens pass without it, of directories and below the
// caller's own mounts only.
bool has_capability(int capability) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3]{};
  if (syscall(SYS_capget, &header, data) != 0) return false;
  return data[capability / 32].effective & 1u << capability % 32;
}

}  // namespace

int open_by_handle(int mount_fd, const HostHandle& handle, int flags, Fd& out) {
  HandleBuffer buffer{handle.size, handle.type, {}};
  std::memcpy(buffer.bytes, handle.bytes.data(), handle.size);
  // ENOMEM is also what a race with a removal in the same directory comes to: asked again, it is ESTALE or
  // opens.
  int fd = -1;
  for (int attempt = 0; attempt < 16 && fd < 0; attempt++) {
    fd = open_by_handle_at(mount_fd, as_kernel(buffer), flags | O_CLOEXEC);
    if (fd < 0 && errno != ENOMEM) return -errno;
  }
  if (fd < 0) return -ESTALE;
  out.reset(fd);
  return 0;
}

ProcPath::ProcPath(int fd) {
  std::memcpy(text_, "/proc/self/fd/", 14);
  *std::to_chars(text_ + 14, text_ + sizeof text_ - 1, fd).ptr = '\0';
}

int Local::stat_at(int dir, const char* name, Attr& out) {
  return statx(dir, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, kWanted, &out) == 0 ? 0 : -errno;
}

int Local::stat_fd(int fd, Attr& out) {
  return statx(fd, "", AT_EMPTY_PATH, kWanted, &out) == 0 ? 0 : -errno;
}

Local::Local(Fd root, LocalOptions options)
    : root_fd_(std::move(root)),
      options_(std::move(options)),
      cache_(options_.path_fds),
      readers_(options_.read_fds) {}

Local::~Local() = default;

int Local::create(Fd root, LocalOptions options, std::unique_ptr<Local>& out) {
  std::unique_ptr<Local> local(new Local(std::move(root), std::move(options)));
  Attr attr;
  if (int err = stat_fd(local->root_fd_.get(), attr)) return err;
  if (!S_ISDIR(attr.stx_mode)) return -ENOTDIR;
  local->root_mount_ = attr.stx_mnt_id;
  local->flush_reports_ = !closes_silently(local->root_fd_.get());
  local->root_identity_ = NodeIdentity::of(attr);
  for (auto& parked : local->options_.parked) {
    Attr found;
    if (stat_fd(parked.fd.get(), found) != 0) continue;
    // Twice parked: one is left unclaimed.
    local->adoptable_.emplace(NodeIdentity::of(found), std::move(parked));
  }
  local->options_.parked.clear();

  auto node = Ref<LocalNode>::adopt(new LocalNode(*local, local->root_identity_, S_IFDIR));
  Fd probe;
  local->use_handles_ =
      local->options_.use_handles && local->make_handle(local->root_fd_.get(), "", attr, node->handle) == 0 &&
      open_by_handle(local->root_fd_.get(), node->handle, O_RDONLY | O_DIRECTORY, probe) == 0 &&
      has_capability(CAP_DAC_READ_SEARCH);
  if (!local->use_handles_) node->handle = {};  // what cannot be opened by it is reached otherwise
  int fd = fcntl(local->root_fd_.get(), F_DUPFD_CLOEXEC, 0);
  if (fd < 0) return -errno;
  node->pin = Ref<SharedFd>::adopt(new SharedFd(Fd(fd)));
  node->is_root = true;
  local->root_ = local->publish(std::move(node));
  out = std::move(local);
  return 0;
}

int Local::root(const char* subdirectory, Entry& out) {
  if (*subdirectory == '\0') {
    out.node = Ref<Node>::share(root_.get());
    return stat_fd(root_fd_.get(), out.attr);
  }
  struct open_how how {
    .flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .mode = 0, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
  };
  int raw = static_cast<int>(syscall(SYS_openat2, root_fd_.get(), subdirectory, &how, sizeof how));
  if (raw < 0) return -errno;
  Fd fd(raw);
  if (int err = stat_fd(fd.get(), out.attr)) return err;
  Ref<LocalNode> node;
  if (int err = intern(-1, "", fd.get(), out.attr, node)) return err;
  std::lock_guard guard(node->lock);
  // The root of an instance stays open: in path mode nothing else could find it again.
  if (!node->pin) node->pin = Ref<SharedFd>::adopt(new SharedFd(std::move(fd)));
  node->is_root = true;
  out.node = Ref<Node>::share(node.get());
  return 0;
}

Ref<LocalNode> Local::find(const NodeIdentity& identity) {
  Shard& s = shard(identity);
  std::lock_guard guard(s.lock);
  auto it = s.nodes.find(identity);
  if (it == s.nodes.end() || !it->second->try_acquire()) return nullptr;
  return Ref<LocalNode>::adopt(it->second);
}

Ref<LocalNode> Local::publish(Ref<LocalNode> fresh) {
  Shard& s = shard(fresh->identity);
  std::lock_guard guard(s.lock);
  auto [it, inserted] = s.nodes.try_emplace(fresh->identity, fresh.get());
  if (!inserted) {
    if (it->second->try_acquire()) return Ref<LocalNode>::adopt(it->second);
    it->second = fresh.get();  // the old one is dying
  }
  return fresh;
}

int Local::make_handle(int fd, const char* name, const Attr& attr, HostHandle& out) {
  HandleBuffer buffer{HostHandle::kMax, 0, {}};
  int mount;
  if (name_to_handle_at(fd, name, as_kernel(buffer), &mount, *name ? 0 : AT_EMPTY_PATH) != 0) return -errno;
  if (*name && !names_inode(buffer, attr.stx_ino)) {
    // The name may have changed hands between two calls: hold the file still and ask again.
    int raw = openat(fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (raw < 0) return -errno;
    Fd held(raw);
    Attr again;
    if (int err = stat_fd(held.get(), again)) return err;
    if (!(NodeIdentity::of(again) == NodeIdentity::of(attr))) return -ESTALE;
    return make_handle(held.get(), "", attr, out);
  }
  out.size = buffer.handle_bytes;
  out.type = buffer.handle_type;
  std::memcpy(out.bytes.data(), buffer.bytes, buffer.handle_bytes);
  return 0;
}

int Local::intern(int dir_fd, const char* name, int fd, const Attr& attr, Ref<LocalNode>& out) {
  auto identity = NodeIdentity::of(attr);
  out = find(identity);
  if (out) return 0;
  auto node = Ref<LocalNode>::adopt(new LocalNode(*this, identity, attr.stx_mode & S_IFMT));
  // Through another mount (a host submount) the root's descriptor cannot open handles: path mode.
  if (use_handles_ && attr.stx_mnt_id == root_mount_) {
    int err =
        fd >= 0 ? make_handle(fd, "", attr, node->handle) : make_handle(dir_fd, name, attr, node->handle);
    if (err == -ENOENT || err == -ESTALE) return err;
  }
  out = publish(std::move(node));
  return 0;
}

int Local::entry_at(LocalNode& dir, int dir_fd, const char* name, Entry& out) {
  Ref<LocalNode> node;
  // A name replaced between two calls is asked again; a host process doing that for ever gets ESTALE.
  for (int attempt = 0; attempt < 16; attempt++) {
    const uint64_t version = dir.names_version.load();
    if (int err = stat_at(dir_fd, name, out.attr)) return err;
    int err = intern(dir_fd, name, -1, out.attr, node);
    if (err == 0) {
      found_at(*node, dir, name, out.attr, version);
      out.node = std::move(node);
      return 0;
    }
    if (err != -ESTALE && err != -ENOENT) return err;
  }
  return -ESTALE;
}

void Local::all_restored() {
  std::lock_guard guard(adopt_lock_);
  for (auto& [key, parked] : adoptable_) options_.parking->drop(parked.name);
  adoptable_.clear();
}

void LocalNode::dispose() {
  owner.forget(*this);
}

// A node that goes may have been the last to hold its parent, and so on up: a loop, for trees may be deeper
// than stacks.
void Local::forget(LocalNode& first) {
  for (LocalNode* node = &first; node;) {
    {
      Shard& s = shard(node->identity);
      std::lock_guard guard(s.lock);
      auto it = s.nodes.find(node->identity);
      if (it != s.nodes.end() && it->second == node) s.nodes.erase(it);
    }
    cache_.erase(node);
    readers_.erase(node);
    if (!node->parked_name.empty()) options_.parking->drop(node->parked_name);
    LocalNode* parent = node->known.parent.leak();
    delete node;
    node = parent && parent->unref() ? parent : nullptr;
  }
}

LocalFile::~LocalFile() {
  std::lock_guard guard(node->lock);
  node->opens--;
}

}  // namespace poly
