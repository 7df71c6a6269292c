// Attributes, filesystem statistics, and the handles that outlive the service.
#include "libservices/ceph/attributes.hpp"

#include <sys/sysmacros.h>
#include <time.h>

#include <cstring>

#include "libservices/ceph/ceph.hpp"
#include "libservices/identity.hpp"

namespace poly {
namespace ceph {
namespace {

void to_time(const timespec& from, statx_timestamp& out) {
  out.tv_sec = from.tv_sec;
  out.tv_nsec = static_cast<uint32_t>(from.tv_nsec);
}

}  // namespace

dev_t to_device(dev_t kernel_form) {
  return makedev(static_cast<unsigned>(kernel_form >> 20), static_cast<unsigned>(kernel_form & 0xfffff));
}

dev_t from_device(dev_t device) {
  return dev_t{major(device)} << 20 | minor(device);
}

void to_attr(const Statx& from, Attr& out) {
  out = {};
  out.stx_mask = STATX_BASIC_STATS | STATX_BTIME;
  out.stx_blksize = from.blksize;
  out.stx_nlink = from.nlink;
  out.stx_uid = from.uid;
  out.stx_gid = from.gid;
  out.stx_mode = from.mode;
  out.stx_ino = from.ino;
  out.stx_size = from.size;
  out.stx_blocks = from.blocks;
  to_time(from.atime, out.stx_atime);
  to_time(from.btime, out.stx_btime);
  to_time(from.ctime, out.stx_ctime);
  to_time(from.mtime, out.stx_mtime);
  const dev_t special = to_device(from.rdev);
  out.stx_rdev_major = major(special);
  out.stx_rdev_minor = minor(special);
  // Tells the snapshots of an inode apart.
  out.stx_dev_major = static_cast<uint32_t>(from.dev >> 32);
  out.stx_dev_minor = static_cast<uint32_t>(from.dev);
}

}  // namespace ceph

namespace {

using namespace ceph;

// The bytes of a NodeHandle.
struct Handle {
  VersionedInode id;
  uint32_t type;
  uint32_t reserved;
};
static_assert(sizeof(Handle) == 24);

timespec now() {
  timespec time;
  (void)clock_gettime(CLOCK_REALTIME, &time);  // fails for no known clock
  return time;
}

int translate(const SetAttr& set, Statx& out) {
  constexpr uint32_t kTimes = kSetAtime | kSetAtimeNow | kSetMtime | kSetMtimeNow;
  const timespec time = set.mask & (kTimes | kSetSize) ? now() : timespec{};
  int mask = 0;
  if (set.mask & kSetMode) {
    out.mode = static_cast<uint16_t>(set.mode & 07777);
    mask |= kMode;
  }
  if (set.mask & kSetUid) {
    out.uid = set.uid;
    mask |= kUid;
  }
  if (set.mask & kSetGid) {
    out.gid = set.gid;
    mask |= kGid;
  }
  if (set.mask & kSetSize) {
    out.size = set.size;
    mask |= kSize;
  }
  if (set.mask & (kSetAtime | kSetAtimeNow)) {
    out.atime = set.mask & kSetAtimeNow ? time : set.atime;
    mask |= kAtime;
  }
  // Of a truncation to the size the file has, Ceph notes no time; do_truncate (fs/open.c) does.
  if (set.mask & (kSetMtime | kSetMtimeNow | kSetSize)) {
    out.mtime = set.mask & kSetMtime && !(set.mask & kSetMtimeNow) ? set.mtime : time;
    mask |= kMtime;
  }
  return mask;
}

}  // namespace

int Ceph::attributes(Inode* inode, Statx& out, unsigned wanted) {
  return client_->ll_getattr(client_.mount(), inode, &out, wanted, 0, ourselves());
}

int Ceph::getattr(Node& node, File*, Attr& out) {
  Inode* in;
  Statx st;
  if (int err = inode(node, in)) return err;
  if (int err = attributes(in, st)) return err;
  to_attr(st, out);
  return 0;
}

// A directory's times are the metadata server's while it writes down a change in it (its file lock), and not
// always ours when other clients know the directory: who asked for them after each name made would wait for
// the journal.
int Ceph::getattr_access(Node& dir, Attr& out) {
  Inode* in;
  Statx st;
  if (int err = inode(dir, in)) return err;
  if (int err = attributes(in, st, kStatxAccess)) return err;
  to_attr(st, out);
  out.stx_mask = STATX_TYPE | STATX_MODE | STATX_NLINK | STATX_UID | STATX_GID | STATX_INO;
  return 0;
}

int Ceph::setattr(const Caller& caller, Node& node, File*, const SetAttr& set, Attr& out) {
  Inode* in;
  if (int err = inode(node, in)) return err;
  Statx change{};
  int mask = translate(set, change);
  // A request to set nothing at all is chown(path, -1, -1), which clears set-id bits too (chown_common,
  // fs/open.c). What the mode is set to outright stays.
  const bool changes_owner = (set.mask & (kSetUid | kSetGid)) || set.mask == 0;
  if ((changes_owner || (set.mask & kSetKillPriv)) && !(set.mask & kSetMode)) {
    Statx before;
    if (int err = attributes(in, before)) return err;
    const bool keeps_group = !(set.mask & kSetKillPriv) || (changes_owner && caller.uid == 0) ||
                             (before.mode & S_ISGID) == 0 || in_group(caller, before.gid);
    const mode_t kept = without_set_ids(before.mode, keeps_group);
    if (kept != before.mode) {
      change.mode = static_cast<uint16_t>(kept & 07777);
      mask |= kMode;
    }
  }
  if ((mask & kSize) || changes_owner) {
    auto& n = static_cast<CephNode&>(node);
    if (has_capability(in)) drop_capability(n, in);
  }
  // An empty mask makes the library set the change time.
  if (mask || set.mask == 0) {
    if (int err = client_->ll_setattr(client_.mount(), in, &change, mask, ourselves())) return err;
  }
  return getattr(node, nullptr, out);
}

ssize_t Ceph::readlink(Node& node, std::span<char> out) {
  Inode* in;
  if (int err = inode(node, in)) return err;
  return client_->ll_readlink(client_.mount(), in, out.data(), out.size(), ourselves());
}

int Ceph::statfs(Node& node, struct statvfs& out) {
  Inode* in;
  if (int err = inode(node, in)) return err;
  if (int err = client_->ll_statfs(client_.mount(), in, &out)) return err;
  // Ceph sets no limit to inodes, and libcephfs says that -1 of them are free; "0 of 0" is how others say it.
  out.f_files = out.f_ffree = out.f_favail = 0;
  return 0;
}

int Ceph::syncfs(Node&) {
  return client_->sync_fs(client_.mount());
}

int Ceph::encode(Node& node, NodeHandle& out) {
  const auto& n = static_cast<CephNode&>(node);
  const Handle handle{n.id, n.type, 0};
  std::memcpy(out.bytes.data(), &handle, sizeof handle);
  out.size = sizeof handle;
  return 0;
}

// Nothing is asked of the cluster: there may be very many, and it may be away.
int Ceph::decode(const NodeHandle& from, Ref<Node>& out) {
  Handle handle;
  if (from.size != sizeof handle) return -ESTALE;
  std::memcpy(&handle, from.bytes.data(), sizeof handle);
  out = publish(Ref<CephNode>::adopt(new CephNode(*this, handle.id, handle.type)));
  return 0;
}

}  // namespace poly
