// Calls about attributes, extended attributes and the filesystem's size.
#include <linux/limits.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cstring>

#include "native/fast/calls.hpp"

namespace poly {
namespace {

constexpr uint32_t kTimes = kSetAtime | kSetMtime | kSetAtimeNow | kSetMtimeNow;
constexpr uint32_t kOwner = kSetUid | kSetGid;

// One of chmod, chown, utimes and truncate, with values they can have. chown of nothing (mask 0) is the
// kernel's.
int32_t take_set(const WireCall& call, SetAttr& set) {
  const uint32_t mask = call.set_mask;
  if (mask == 0) return kDeclined;
  if (mask & ~kTimes && mask & ~kOwner && mask != kSetMode && mask != kSetSize) return -EINVAL;
  if (call.atime_nsec > 999'999'999 || call.mtime_nsec > 999'999'999) return -EINVAL;
  if (mask == kSetSize && call.set_size > INT64_MAX) return -EINVAL;
  if (((mask & kSetUid) && call.set_uid == UINT32_MAX) || ((mask & kSetGid) && call.set_gid == UINT32_MAX))
    return -EINVAL;
  set.mask = mask;
  set.mode = call.set_mode & 07777;
  set.uid = call.set_uid;
  set.gid = call.set_gid;
  set.size = call.set_size;
  set.atime = {call.atime_sec, call.atime_nsec};
  set.mtime = {call.mtime_sec, call.mtime_nsec};
  return 0;
}

}  // namespace

// stat(2) and, with bits in flags, access(2).
int32_t call_getattr(FastCall& c) {
  constexpr uint32_t kAccessBits = kMayRead | kMayWrite | kMayExec;
  if (c.call.flags & ~kAccessBits) return -EINVAL;
  if ((c.call.flags & kMayWrite) && c.read_only()) return kDeclined;
  Entry entry;
  if (c.by_handle() && !c.file.directory && c.call.flags == 0) {
    if (int32_t err = c.perform(Op::getattr)) return err;
    c.put_attributes(c.reply.entry.attr);
    return 0;
  }
  if (!c.by_handle() && c.call.flags == 0) {
    if (int32_t err = c.look(entry)) return err;
    c.put_attributes(entry.attr);
    return 0;
  }
  if (int32_t err = c.find(entry)) return err;
  if ((c.call.flags & kMayExec) && S_ISREG(entry.attr.stx_mode) && c.mount_flags().no_execution)
    return -EACCES;  // do_faccessat (fs/open.c)
  if (int err = c.permissions().may(*entry.node, entry.attr, static_cast<int>(c.call.flags))) return err;
  c.put_attributes(entry.attr);
  return 0;
}

int32_t call_setattr(FastCall& c) {
  if (int32_t err = take_set(c.call, c.request.set)) return err;
  Entry entry;
  if (c.by_handle()) {
    if (c.file.directory) return -EBADF;
    // do_ftruncate (fs/open.c)
    if (c.call.set_mask == kSetSize && (c.file.flags & O_ACCMODE) == O_RDONLY) return -EINVAL;
    entry.node = c.dispatcher.client_node(c.file);
  } else {
    if (int32_t err = c.lookup(entry)) return err;
    c.request.at = entry.node.get();
    if ((c.call.set_mask & kSetSize) && may_be_running(c, entry)) return kDeclined;
    // The kernel asks nobody who owns a file before it lets him set an ACL (vfs_set_acl, fs/posix_acl.c).
    if ((c.call.set_mask & (kSetUid | kSetGid)) && c.dispatcher.kernel_holds(*entry.node)) return kDeclined;
  }
  if ((c.call.set_mask & kSetSize) && entry.node &&
      c.dispatcher.kernel_believes_larger(*c.instance, *entry.node, c.call.set_size))
    return kDeclined;
  if (int32_t err = c.perform(Op::setattr)) return err;
  c.put_attributes(c.reply.entry.attr);
  return 0;
}

// A struct statvfs in the data area.
int32_t call_statfs(FastCall& c) {
  Entry entry;
  if (int32_t err = c.find(entry)) return err;
  c.request.at = entry.node.get();
  if (int32_t err = c.perform(Op::statfs)) return err;
  if (c.data.size() < sizeof c.reply.statfs) return -EINVAL;
  std::memcpy(c.data.data(), &c.reply.statfs, sizeof c.reply.statfs);
  c.answer.value = sizeof c.reply.statfs;
  return 0;
}

namespace {

// The name is path2.
class XattrName {
 public:
  explicit XattrName(std::string_view name) {
    const size_t size = std::min(name.size(), sizeof text_ - 1);
    std::memcpy(text_, name.data(), size);
    text_[size] = '\0';
  }
  const char* c_str() const { return text_; }
  bool is(const char* name) const { return std::strcmp(text_, name) == 0; }

 private:
  char text_[XATTR_NAME_MAX + 1];
};

bool bad_name(std::string_view name) {  // import_xattr_name (fs/xattr.c): ERANGE
  return name.empty() || name.size() > XATTR_NAME_MAX;
}

int32_t find_for_xattr(FastCall& c, Entry& entry) {
  if (int32_t err = c.find(entry)) return err;
  c.request.at = entry.node.get();
  return 0;
}

// The kernel lets everybody read ACLs (vfs_get_acl, fs/posix_acl.c); links have none.
bool is_acl(const XattrName& name, const Attr& attr) {
  return !S_ISLNK(attr.stx_mode) &&
         (name.is("system.posix_acl_access") || name.is("system.posix_acl_default"));
}

int32_t filled(FastCall& c, int32_t err) {
  if (err) return err;
  c.answer.value = c.reply.buffer.empty() ? c.reply.value : c.reply.size;
  return 0;
}

}  // namespace

int32_t call_getxattr(FastCall& c) {
  if (bad_name(c.path2)) return -ERANGE;
  const XattrName name(c.path2);
  Entry entry;
  if (int32_t err = find_for_xattr(c, entry)) return err;
  // What most files do not have needs no judging; the value does (cap_inode_getsecurity).
  const bool capability = name.is("security.capability");
  if (!capability && !is_acl(name, entry.attr)) {
    if (int err = c.permissions().may_xattr(*entry.node, entry.attr, name.c_str(), false)) return err;
  }
  c.request.name = name.c_str();
  c.reply.buffer = c.data.first(std::min<uint64_t>({c.call.size, XATTR_SIZE_MAX, c.data.size()}));
  const int32_t err = c.perform(Op::getxattr);
  return capability && err != -ENODATA ? kDeclined : filled(c, err);
}

int32_t call_listxattr(FastCall& c) {
  Entry entry;
  if (int32_t err = find_for_xattr(c, entry)) return err;
  c.reply.buffer = c.data.first(std::min<uint64_t>({c.call.size, XATTR_LIST_MAX, c.data.size()}));
  return filled(c, c.perform(Op::listxattr));
}

int32_t call_setxattr(FastCall& c) {
  if (c.call.flags & ~static_cast<uint32_t>(XATTR_CREATE | XATTR_REPLACE)) return -EINVAL;
  if (bad_name(c.path2)) return -ERANGE;
  if (c.call.size > XATTR_SIZE_MAX) return -E2BIG;
  if (c.call.size > c.data.size()) return -EINVAL;
  const XattrName name(c.path2);
  Entry entry;
  if (int32_t err = find_for_xattr(c, entry)) return err;
  if (int err = c.permissions().may_xattr(*entry.node, entry.attr, name.c_str(), true)) return err;
  c.request.name = name.c_str();
  c.request.data = c.data.first(c.call.size);
  c.request.flags = c.call.flags;
  return c.perform(Op::setxattr);
}

int32_t call_removexattr(FastCall& c) {
  if (bad_name(c.path2)) return -ERANGE;
  const XattrName name(c.path2);
  Entry entry;
  if (int32_t err = find_for_xattr(c, entry)) return err;
  if (int err = c.permissions().may_xattr(*entry.node, entry.attr, name.c_str(), true)) return err;
  c.request.name = name.c_str();
  return c.perform(Op::removexattr);
}

}  // namespace poly
