// Opening: open(2) as fs/namei.c does it (Linux 6.18: open_last_lookups, lookup_open, do_open), for regular
// files; and directory handles, which are for walking, and for reading where the opener may.
#include <fcntl.h>

#include "native/fast/calls.hpp"

namespace poly {
namespace {

// What is served; O_PATH, O_TMPFILE, O_DIRECTORY, O_DIRECT, O_ASYNC and what is not known are the kernel's.
constexpr uint32_t kServed = O_ACCMODE | O_CREAT | O_EXCL | O_TRUNC | O_APPEND | O_NONBLOCK | O_SYNC |
                             O_DSYNC | O_NOFOLLOW | O_NOATIME | O_CLOEXEC | O_NOCTTY | O_LARGEFILE |
                             0100000 /* the kernel's O_LARGEFILE, which glibc has as 0 on 64 bits */;
constexpr int kMostTries = 8;

bool serves(const FastCall& c, uint32_t flags) {
  if ((flags & ~kServed) || (flags & O_ACCMODE) == O_ACCMODE) return false;
  const bool changes = (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC));
  return !changes || !c.read_only();
}

int32_t answer_open(FastCall& c, const Attr& attr) {
  c.put_file();
  c.put_attributes(attr);
  return 0;
}

// The name was not there, or must not be: made exclusively, so that what others have put there meanwhile is
// judged before it is opened.
int32_t create(FastCall& c, Walk& walk) {
  if (walk.name_too_long()) return -ENAMETOOLONG;
  if (int32_t err = c.set_mode(walk, c.call.mode & 07777)) return err;
  c.request.at = &walk.directory();
  c.request.name = walk.name();
  c.request.flags = (c.call.flags & ~static_cast<uint32_t>(O_TRUNC)) | O_CREAT | O_EXCL;
  if (int32_t err = c.perform(Op::create)) return err;
  return answer_open(c, c.reply.entry.attr);
}

// do_open for what was there.
int32_t open_existing(FastCall& c, Walk& walk, const Entry& entry) {
  const uint32_t flags = c.call.flags;
  if (flags & O_CREAT) {
    if (flags & O_EXCL) return -EEXIST;
    if (!S_ISREG(entry.attr.stx_mode)) return kDeclined;
    const Attr* directory;
    if (int err = walk.access(directory)) return err;
    if (int err = c.permissions().may_reuse(*directory, entry.attr)) return err;
  }
  if (S_ISLNK(entry.attr.stx_mode)) return -ELOOP;
  if (!S_ISREG(entry.attr.stx_mode)) return kDeclined;
  if (walk.wants_directory()) return -ENOTDIR;
  if (int err = c.permissions().may_open(*entry.node, entry.attr, flags)) return err;
  const bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
  if (writes && may_be_running(c, entry)) return kDeclined;
  if ((flags & O_TRUNC) && c.dispatcher.kernel_believes_larger(*c.instance, *entry.node, 0)) return kDeclined;
  c.request.at = entry.node.get();
  c.request.flags = flags;
  c.request.kill_priv = (flags & O_TRUNC) && !c.permissions().who.capable;
  if (int32_t err = c.perform(Op::open)) return err;
  // Or the next open would ask the libservice for all that it remembers of the file.
  if (walk.has_name()) walk.keep(c.instance->host->files, *entry.node);
  if (!(flags & O_TRUNC)) return answer_open(c, entry.attr);
  Attr attr;
  if (int err = c.instance->libservice().getattr(*entry.node, nullptr, attr)) return err;
  return answer_open(c, attr);
}

// One pass along the path. -EEXIST without O_EXCL: the name came while we were about to make it.
int32_t open_path(FastCall& c, Node& base) {
  const uint32_t flags = c.call.flags;
  const bool creates = flags & O_CREAT;
  const bool follow = !(flags & O_NOFOLLOW) && !(creates && (flags & O_EXCL));
  Walk walk = c.walk(base, c.path, c.call.walk);
  for (;;) {
    if (int err = walk.parents()) return err;
    if (!walk.has_name()) return kDeclined;  // a directory
    if (creates && walk.slash()) return -EISDIR;
    // What is there is -EEXIST, whatever it is: making it looks for it first.
    if (creates && (flags & O_EXCL) && !walk.wants_directory()) return create(c, walk);
    Entry entry;
    const int result = walk.last(follow, entry);
    if (result == Walk::kFollowed) continue;
    // What a first run of this call has made is there now, and is what it asked for.
    if (c.left_op() == Op::create && (result == 0 || result == -ENOENT)) return create(c, walk);
    if (result == -ENOENT && creates) return walk.wants_directory() ? kDeclined : create(c, walk);
    return result ? result : open_existing(c, walk, entry);
  }
}

}  // namespace

int32_t call_open(FastCall& c) {
  if (c.by_handle() || !serves(c, c.call.flags)) return kDeclined;
  Ref<Node> base;
  if (int32_t err = c.begin_at(c.call.directory, base)) return err;
  if (!c.count_file()) return kDeclined;
  c.request.client = c.client.key;
  int32_t result = kDeclined;
  for (int i = 0; i < kMostTries; i++) {
    result = open_path(c, *base);
    if (result != -EEXIST || (c.call.flags & O_EXCL)) break;
    result = kDeclined;
  }
  if (result) c.client.open_files.fetch_sub(1, std::memory_order_relaxed);
  return result;
}

// O_DIRECTORY among the flags: to be read, so that who may not is told.
int32_t call_opendir(FastCall& c) {
  Entry entry;
  if (int32_t err = c.find(entry)) return err;
  if (!S_ISDIR(entry.attr.stx_mode)) return -ENOTDIR;
  const int unreadable = c.permissions().may(*entry.node, entry.attr, kMayRead);
  if (unreadable && (c.call.flags & O_DIRECTORY)) return unreadable;
  if (!c.count_file()) return kDeclined;
  c.request.at = entry.node.get();
  c.request.flags = O_RDONLY | O_DIRECTORY | (unreadable ? O_PATH : 0);
  c.request.client = c.client.key;
  if (int32_t err = c.perform(Op::opendir)) {
    c.client.open_files.fetch_sub(1, std::memory_order_relaxed);
    return err;
  }
  return answer_open(c, entry.attr);
}

// close(2) of the last descriptor.
int32_t call_release(FastCall& c) {
  if (!c.by_handle()) return -EINVAL;
  c.note_release();
  const int said = c.dispatcher.close_client_file(*c.instance, c.file);
  c.client.open_files.fetch_sub(1, std::memory_order_relaxed);
  return said;
}

}  // namespace poly
