// Calls about names: what makes, takes away, moves and reads them. Permission is judged under the
// dispatcher, where the change is made (handlers_names.cpp); here the path is walked.
#include <linux/fs.h>
#include <stdio.h>

#include "native/fast/calls.hpp"

namespace poly {
namespace {

// The directory and the name at the end of a path. A path without one ("", "a/..") names what exists
// already, and each call has its own error for that: the kernel says it. `slash`: may a slash follow?
int32_t take_name(Walk& walk, bool slash) {
  if (int err = walk.parents()) return err;
  if (!walk.has_name() || (!slash && walk.slash())) return kDeclined;
  return 0;
}

int32_t name_fits(const Walk& walk) {
  return walk.name_too_long() ? -ENAMETOOLONG : 0;
}

// In the directory of `path`, under its last name.
int32_t make(FastCall& c, Op op, bool slash) {
  Ref<Node> base;
  if (int32_t err = c.begin_at(c.call.directory, base)) return err;
  Walk walk = c.walk(*base, c.path, c.call.walk);
  if (int32_t err = take_name(walk, slash)) return err;
  if (int32_t err = name_fits(walk)) return err;
  if (int32_t err = c.set_mode(walk, c.request.mode)) return err;
  c.request.at = &walk.directory();
  c.request.name = walk.name();
  if (int32_t err = c.perform(op)) return err;
  c.put_attributes(c.reply.entry.attr);
  return 0;
}

int32_t remove(FastCall& c, Op op, bool slash) {
  Ref<Node> base;
  if (int32_t err = c.begin_at(c.call.directory, base)) return err;
  Walk walk = c.walk(*base, c.path, c.call.walk);
  if (int32_t err = take_name(walk, slash)) return err;
  if (int32_t err = name_fits(walk)) return err;
  c.request.at = &walk.directory();
  c.request.name = walk.name();
  return c.perform(op);
}

// Flags that hold for the second path too.
uint16_t second_flags(const WireCall& call) {
  return call.walk & kWalkNoLinks;
}

}  // namespace

int32_t call_mkdir(FastCall& c) {
  c.request.mode = c.call.mode & (S_IRWXU | S_IRWXG | S_IRWXO | S_ISVTX);
  return make(c, Op::mkdir, true);
}

int32_t call_mknod(FastCall& c) {
  const mode_t type = c.call.mode & S_IFMT;
  if (type != 0 && !S_ISREG(type) && !S_ISFIFO(type) && !S_ISSOCK(type)) return kDeclined;
  c.request.mode = (c.call.mode & 07777) | (type ? type : S_IFREG);
  return make(c, Op::mknod, false);
}

int32_t call_symlink(FastCall& c) {
  if (c.path2.empty()) return -ENOENT;
  const std::string target(c.path2);
  c.request.name2 = target.c_str();
  return make(c, Op::symlink, false);
}

int32_t call_link(FastCall& c) {
  Entry source;
  if (int32_t err = c.lookup(source)) return err;
  Ref<Node> base;
  if (int32_t err = c.begin_at(c.call.directory2, base)) return err;
  Walk walk = c.walk(*base, c.path2, second_flags(c.call));
  if (int32_t err = take_name(walk, false)) return err;
  if (int32_t err = name_fits(walk)) return err;
  c.request.at = source.node.get();
  c.request.at2 = &walk.directory();
  c.request.name = walk.name();
  if (int32_t err = c.perform(Op::link)) return err;
  c.put_attributes(c.reply.entry.attr);
  return 0;
}

int32_t call_unlink(FastCall& c) {
  return remove(c, Op::unlink, false);
}

int32_t call_rmdir(FastCall& c) {
  return remove(c, Op::rmdir, true);
}

int32_t call_rename(FastCall& c) {
  const uint32_t flags = c.call.flags;
  if (flags != 0 && flags != RENAME_NOREPLACE && flags != RENAME_EXCHANGE) return kDeclined;
  Ref<Node> base, base2;
  if (int32_t err = c.begin_at(c.call.directory, base)) return err;
  if (int32_t err = c.begin_at(c.call.directory2, base2)) return err;
  Walk from = c.walk(*base, c.path, c.call.walk), to = c.walk(*base2, c.path2, second_flags(c.call));
  if (int32_t err = take_name(from, false)) return err;
  if (int32_t err = take_name(to, false)) return err;
  if (int32_t err = name_fits(from)) return err;
  c.request.at = &from.directory();
  c.request.at2 = &to.directory();
  c.request.name = from.name();
  // A new name that is too long is found after the old one is not there.
  if (to.name_too_long()) return kDeclined;
  c.request.name2 = to.name();
  c.request.flags = flags;
  return c.perform(Op::rename);
}

int32_t call_readlink(FastCall& c) {
  if (c.by_handle() || c.call.size == 0) return -EINVAL;
  Entry entry;
  if (int32_t err = c.lookup(entry)) return err;
  if (!S_ISLNK(entry.attr.stx_mode)) return -EINVAL;
  c.request.at = entry.node.get();
  c.reply.buffer = c.data.first(std::min<uint64_t>({c.call.size, PATH_MAX, c.data.size()}));
  if (int32_t err = c.perform(Op::readlink)) return err;
  c.answer.value = c.reply.size;
  return 0;
}

}  // namespace poly
