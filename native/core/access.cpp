#include "native/core/access.hpp"

#include <fcntl.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "fastpath/fd.hpp"
#include "fastpath/wire.hpp"

namespace poly {
namespace {

constexpr char kAccessAcl[] = "system.posix_acl_access";
constexpr size_t kAclRoom = 4096;  // what FUSE's kernel side asks with (fs/fuse/acl.c)
constexpr int kNoAcl = -EAGAIN;
constexpr int64_t kSecond = 1'000'000'000;

int64_t ctime_of(const Attr& attr) {
  return attr.stx_ctime.tv_sec * kSecond + attr.stx_ctime.tv_nsec;
}

int read_sysctl(const char* name) {
  Fd fd(open(name, O_RDONLY | O_CLOEXEC));
  char digit = 0;
  if (!fd || read(fd.get(), &digit, 1) != 1 || digit < '0' || digit > '9') return 2;
  return digit - '0';
}

// posix_acl_permission (fs/posix_acl.c). Entries stand in the order of their tags.
int evaluate(std::span<const posix_acl_xattr_entry> acl, const Credentials& who, const Attr& attr, int want) {
  auto allows = [&](const posix_acl_xattr_entry& entry, int limit) {
    return (entry.e_perm & limit & want) == want ? 0 : -EACCES;
  };
  auto masked = [&](size_t at) {
    for (size_t i = at + 1; i < acl.size(); i++) {
      if (acl[i].e_tag == ACL_MASK) return allows(acl[at], acl[i].e_perm);
    }
    return allows(acl[at], ~0);
  };
  bool in_some_group = false;
  for (size_t i = 0; i < acl.size(); i++) {
    const posix_acl_xattr_entry& entry = acl[i];
    switch (entry.e_tag) {
      case ACL_USER_OBJ:
        if (attr.stx_uid == who.uid) return allows(entry, ~0);
        break;
      case ACL_USER:
        if (entry.e_id == who.uid) return masked(i);
        break;
      case ACL_GROUP_OBJ:
      case ACL_GROUP:
        if (!who.in_group(entry.e_tag == ACL_GROUP ? entry.e_id : attr.stx_gid)) break;
        in_some_group = true;
        if ((entry.e_perm & want) == want) return masked(i);
        break;
      case ACL_MASK:
        break;
      case ACL_OTHER:
        return in_some_group ? -EACCES : allows(entry, ~0);
      default:
        return -EIO;
    }
  }
  return -EIO;
}

}  // namespace

bool Credentials::in_group(gid_t group) const {
  return group == gid || std::ranges::binary_search(groups, group);
}

Hardening Hardening::current() {
  static std::atomic<int64_t> valid_until{0};
  static std::atomic<uint32_t> values{0};
  timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  const int64_t at = now.tv_sec * kSecond + now.tv_nsec;
  if (at >= valid_until.load(std::memory_order_acquire)) {
    const auto symlinks = static_cast<uint32_t>(read_sysctl("/proc/sys/fs/protected_symlinks"));
    const auto hardlinks = static_cast<uint32_t>(read_sysctl("/proc/sys/fs/protected_hardlinks"));
    const auto regular = static_cast<uint32_t>(read_sysctl("/proc/sys/fs/protected_regular"));
    const auto fifos = static_cast<uint32_t>(read_sysctl("/proc/sys/fs/protected_fifos"));
    values.store(symlinks | hardlinks << 8 | regular << 16 | fifos << 24, std::memory_order_relaxed);
    valid_until.store(at + kSecond, std::memory_order_release);
  }
  const uint32_t v = values.load(std::memory_order_relaxed);
  return {static_cast<int>(v & 0xff), static_cast<int>(v >> 8 & 0xff), static_cast<int>(v >> 16 & 0xff),
          static_cast<int>(v >> 24)};
}

// check_acl (fs/namei.c). An ACL's coming changes ctime, so its absence is remembered with the ctime it was
// seen with, once that is too old to be given again by the clock's granularity. Without ctime it is looked
// for each time.
int Permissions::by_acl(Node& node, const Attr& attr, int mask) const {
  const int64_t ctime = attr.stx_mask & STATX_CTIME ? ctime_of(attr) : 0;
  if (ctime != 0 && node.no_acl_ctime.load(std::memory_order_relaxed) == ctime) return kNoAcl;
  alignas(posix_acl_xattr_entry) std::byte room[kAclRoom];
  const ssize_t size = libservice_.getxattr(node, kAccessAcl, room);
  if (size == 0 || size == -ENODATA || size == -EOPNOTSUPP) {
    timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (ctime != 0 && now.tv_sec * kSecond + now.tv_nsec - ctime > kSecond)
      node.no_acl_ctime.store(ctime, std::memory_order_relaxed);
    return kNoAcl;
  }
  if (size < 0) return size == -ERANGE ? -E2BIG : static_cast<int>(size);
  posix_acl_xattr_header header;
  const size_t entries = static_cast<size_t>(size) - sizeof header;
  if (static_cast<size_t>(size) < sizeof header || entries % sizeof(posix_acl_xattr_entry) != 0)
    return -EINVAL;
  std::memcpy(&header, room, sizeof header);
  if (header.a_version != POSIX_ACL_XATTR_VERSION) return -EOPNOTSUPP;
  const auto* first = reinterpret_cast<const posix_acl_xattr_entry*>(room + sizeof header);
  return evaluate({first, entries / sizeof *first}, who, attr, mask);
}

// acl_permission_check (fs/namei.c).
int Permissions::by_mode_and_acl(Node& node, const Attr& attr, int mask) const {
  int mode = attr.stx_mode;
  if (attr.stx_uid == who.uid) return mask & ~(mode >> 6) ? -EACCES : 0;
  // With an ACL the group bits are its mask and the others' its last entry: what neither grants nobody gets.
  if ((mask & ~(mode >> 3)) && (mask & ~mode)) return -EACCES;
  if (mode & S_IRWXG) {
    if (int err = by_acl(node, attr, mask); err != kNoAcl) return err;
  }
  if ((mask & (mode ^ mode >> 3)) && who.in_group(attr.stx_gid)) mode >>= 3;
  return mask & ~mode ? -EACCES : 0;
}

// generic_permission (fs/namei.c): CAP_DAC_OVERRIDE stops only at executing what nobody may execute.
int Permissions::may(Node& node, const Attr& attr, int mask) const {
  if (mask == 0) return 0;
  if (who.capable && (S_ISDIR(attr.stx_mode) || !(mask & kMayExec) || (attr.stx_mode & 0111))) return 0;
  return by_mode_and_acl(node, attr, mask);
}

int Permissions::may_create(Node& dir) const {
  if (who.capable) return 0;
  Attr attr;
  if (int err = libservice_.getattr_access(dir, attr)) return err;
  if (attr.stx_nlink == 0) return -ENOENT;  // removed (IS_DEADDIR)
  return may(dir, attr, kMayWrite | kMayExec);
}

int Permissions::may_delete(Node& dir, const Attr& victim, bool as_directory) const {
  if (!who.capable) {
    Attr attr;
    if (int err = libservice_.getattr_access(dir, attr)) return err;
    if (int err = may(dir, attr, kMayWrite | kMayExec)) return err;
    if ((attr.stx_mode & S_ISVTX) && victim.stx_uid != who.uid && attr.stx_uid != who.uid) return -EPERM;
  }
  if (as_directory == static_cast<bool>(S_ISDIR(victim.stx_mode))) return 0;
  return as_directory ? -ENOTDIR : -EISDIR;
}

int Permissions::may_rename(Node& dir, Node& new_dir, const Entry& from, const Entry* to,
                            bool exchange) const {
  const bool directory = S_ISDIR(from.attr.stx_mode);
  if (int err = may_delete(dir, from.attr, directory)) return err;
  if (to) {
    const bool to_directory = S_ISDIR(to->attr.stx_mode);
    if (int err = may_delete(new_dir, to->attr, exchange ? to_directory : directory)) return err;
  } else if (int err = may_create(new_dir)) {
    return err;
  }
  if (&dir == &new_dir) return 0;
  // Their ".." changes.
  if (directory) {
    if (int err = may(*from.node, from.attr, kMayWrite)) return err;
  }
  return exchange && to && S_ISDIR(to->attr.stx_mode) ? may(*to->node, to->attr, kMayWrite) : 0;
}

int Permissions::may_link(Node& node, const Attr& attr) const {
  if (!hardening_.hardlinks || owner_or_capable(attr)) return 0;
  const mode_t mode = attr.stx_mode;
  const bool safe = S_ISREG(mode) && !(mode & S_ISUID) &&
                    (mode & (S_ISGID | S_IXGRP)) != (S_ISGID | S_IXGRP) &&
                    may(node, attr, kMayRead | kMayWrite) == 0;
  return safe ? 0 : -EPERM;
}

int Permissions::may_follow(const Attr& dir, const Attr& link) const {
  constexpr mode_t kSharedDirectory = S_ISVTX | S_IWOTH;
  if (!hardening_.symlinks || link.stx_uid == who.uid) return 0;
  if ((dir.stx_mode & kSharedDirectory) != kSharedDirectory || dir.stx_uid == link.stx_uid) return 0;
  return -EACCES;
}

int Permissions::may_reuse(const Attr& dir, const Attr& file) const {
  if (!(dir.stx_mode & S_ISVTX)) return 0;
  const bool regular = S_ISREG(file.stx_mode), fifo = S_ISFIFO(file.stx_mode);
  if ((regular && !hardening_.regular) || (fifo && !hardening_.fifos)) return 0;
  if (file.stx_uid == dir.stx_uid || file.stx_uid == who.uid) return 0;
  if (dir.stx_mode & S_IWOTH) return -EACCES;
  const bool strict = (regular && hardening_.regular >= 2) || (fifo && hardening_.fifos >= 2);
  return (dir.stx_mode & S_IWGRP) && strict ? -EACCES : 0;
}

int Permissions::may_open(Node& node, const Attr& attr, uint32_t flags) const {
  const uint32_t access = flags & O_ACCMODE;
  int mask = access == O_RDONLY ? kMayRead : access == O_WRONLY ? kMayWrite : kMayRead | kMayWrite;
  if (flags & O_TRUNC) mask |= kMayWrite;
  if (int err = may(node, attr, mask)) return err;
  return (flags & O_NOATIME) && !owner_or_capable(attr) ? -EPERM : 0;
}

// setattr_prepare (fs/attr.c), the part about owner and mode.
int Permissions::may_chmod_chown(const Attr& attr, SetAttr& set) const {
  const bool own = attr.stx_uid == who.uid;
  if ((set.mask & kSetUid) && !who.capable && !(own && set.uid == attr.stx_uid)) return -EPERM;
  if ((set.mask & kSetGid) && !who.capable && !(own && (set.gid == attr.stx_gid || who.in_group(set.gid))))
    return -EPERM;
  if (set.mask & kSetMode) {
    if (!owner_or_capable(attr)) return -EPERM;
    if (!who.capable && !who.in_group(set.mask & kSetGid ? set.gid : attr.stx_gid))
      set.mode &= ~static_cast<mode_t>(S_ISGID);
  }
  // fuse_do_setattr (fs/fuse/dir.c): a change of owner ends set-id.
  if ((set.mask & (kSetUid | kSetGid)) && !S_ISDIR(attr.stx_mode)) set.mask |= kSetKillPriv;
  return 0;
}

int Permissions::may_set(Node& node, const Attr& attr, bool open, SetAttr& set) const {
  constexpr uint32_t kNow = kSetAtimeNow | kSetMtimeNow, kTimes = kSetAtime | kSetMtime | kNow;
  if ((set.mask & kSetMode) && S_ISLNK(attr.stx_mode)) return -EOPNOTSUPP;  // notify_change
  if ((set.mask & kTimes) && !owner_or_capable(attr)) {
    // Both of them to now is a touch, which who may write may do too (vfs_utimes, fs/utimes.c).
    if ((set.mask & kNow) != kNow) return -EPERM;
    if (int err = may(node, attr, kMayWrite)) return err;
  }
  if (set.mask & kSetSize) {  // vfs_truncate (fs/open.c)
    if (S_ISDIR(attr.stx_mode)) return -EISDIR;
    if (!S_ISREG(attr.stx_mode)) return -EINVAL;
    if (int err = open ? 0 : may(node, attr, kMayWrite)) return err;
    if (!who.capable) set.mask |= kSetKillPriv;
  }
  return may_chmod_chown(attr, set);
}

int Permissions::may_xattr(Node& node, const Attr& attr, const char* name, bool write) const {
  auto in_namespace = [name](const char* prefix) { return std::strncmp(name, prefix, strlen(prefix)) == 0; };
  const bool directory = S_ISDIR(attr.stx_mode);
  // security.* and system.* are for the kernel and its security modules to judge, trusted.* is for
  // CAP_SYS_ADMIN, which is no file capability.
  if (!in_namespace("user.") || (!S_ISREG(attr.stx_mode) && !directory)) return kDeclined;
  if (directory && (attr.stx_mode & S_ISVTX) && write && !owner_or_capable(attr)) return -EPERM;
  return may(node, attr, write ? kMayWrite : kMayRead);
}

mode_t Permissions::new_mode(const Attr& dir, mode_t mode) const {
  constexpr mode_t kGroupExec = S_ISGID | S_IXGRP;
  if ((mode & kGroupExec) != kGroupExec || S_ISDIR(mode) || !(dir.stx_mode & S_ISGID)) return mode;
  return who.capable || who.in_group(dir.stx_gid) ? mode : mode & ~static_cast<mode_t>(S_ISGID);
}

}  // namespace poly
