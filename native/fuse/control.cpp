#include "native/fuse/control.hpp"

#include <charconv>
#include <cstring>

#include "native/core/control.hpp"
#include "native/fuse/opcodes.hpp"
#include "native/fuse/session.hpp"

namespace poly {
namespace {

constexpr uint64_t kForLong = 1u << 30;  // seconds: it never changes

// A handle in hex, without a sign or anything after it.
bool take_handle(Call& call) {
  const char* name = call.take_component();
  if (!name) return false;
  const char* end = name + std::strlen(name);
  uint32_t handle = 0;
  auto [parsed, error] = std::from_chars(name, end, handle, 16);
  if (error != std::errc() || parsed != end) return false;
  call.request.file = handle;
  return true;
}

// Not to be believed for any time: the name means nothing to anybody else, and not for long.
void put_node(Call& call) {
  auto& out = call.put<fuse_entry_out>();
  out.nodeid = call.connection.node_out(call.answer.entry.node);
  fill_attr(call.answer.entry.attr, out.attr);
}

// A file is opened with O_CREAT, which the kernel turns into LOOKUP, to be told that there is none, and
// CREATE. On a read-only mount it drops O_CREAT: there the LOOKUP finds the file and OPEN opens it again,
// which for reading is the same.
int lookup_handle(Call& call, uint32_t tag) {
  Instance& instance = call.connection.instance;
  if (!take_handle(call) || !instance.read_only.load(std::memory_order_relaxed)) return -ENOENT;
  if (int err = call.dispatcher.promote_by_lookup(instance, tag, call.request, call.answer)) return err;
  put_node(call);
  return 0;
}

int create_handle(Call& call, uint32_t tag) {
  auto* in = call.take<fuse_create_in>();
  if (!in) return -EINVAL;
  if (!take_handle(call)) return -EPERM;
  call.request.flags = in->flags;
  Instance& instance = call.connection.instance;
  const uint64_t start = monotonic_ns();
  const int err = call.dispatcher.promote(instance, tag, call.request, call.answer);
  instance.stats.add(Op::create, call.shard, err < 0, monotonic_ns() - start);
  if (err) return err;
  put_node(call);
  // The library's own descriptors of the file change it beside this one: an end that only the kernel
  // remembers would be the wrong one.
  call.answer.uncached = true;
  call.put_open_file(in->flags);
  return 0;
}

int put_attributes(Call& call, uint32_t tag) {
  auto& out = call.put<fuse_attr_out>();
  out.attr_valid = kForLong;
  fill_attr(control_attributes(tag), out.attr);
  return 0;
}

int put_statx(Call& call, uint32_t tag) {
  const Attr attr = control_attributes(tag);
  auto& out = call.put<FuseStatxOut>();
  out.attr_valid = kForLong;
  out.stat.mask = attr.stx_mask;
  out.stat.blksize = attr.stx_blksize;
  out.stat.nlink = attr.stx_nlink;
  out.stat.mode = attr.stx_mode;
  out.stat.ino = attr.stx_ino;
  return 0;
}

}  // namespace

bool lookup_control(Call& call, const char* name) {
  const uint32_t tag = tag_of_control_name(call.connection.instance.control, name);
  if (!tag) return false;
  auto& out = call.put<fuse_entry_out>();
  out.nodeid = control_node(tag);
  out.entry_valid = out.attr_valid = kForLong;
  fill_attr(control_attributes(tag), out.attr);
  return true;
}

int handle_control(Call& call) {
  const uint32_t tag = tag_of_control_node(call.in.nodeid);
  switch (call.in.opcode) {
    case FUSE_FORGET:
      call.no_reply();
      return 0;
    case FUSE_INTERRUPT:
    case FUSE_BATCH_FORGET:
    case FUSE_INIT:
    case FUSE_DESTROY:  // not about a node
      return find_opcode(call.in.opcode)->handle(call);
    case FUSE_LOOKUP:
      return lookup_handle(call, tag);
    case FUSE_CREATE:
      return create_handle(call, tag);
    case FUSE_GETATTR:
      return put_attributes(call, tag);
    case kFuseStatx:
      return put_statx(call, tag);
    case FUSE_STATFS:
      call.request.node = call.connection.instance.root;
      return find_opcode(FUSE_STATFS)->handle(call);
    case FUSE_GETXATTR:  // the kernel looks for an ACL
      return -ENODATA;
    default:
      return -EPERM;
  }
}

}  // namespace poly
