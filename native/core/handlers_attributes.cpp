// Handlers of attributes, extended attributes and filesystem statistics.
#include <fcntl.h>
#include <linux/limits.h>
#include <sys/xattr.h>

#include <cstring>
#include <vector>

#include "native/core/dispatcher.hpp"

namespace poly {

int Dispatcher::op_getattr(Instance& instance, Request& request, Reply& reply) {
  Ref<Node> n;
  if (int err = first_node(instance, request, n)) return err;
  Ref<File> f = request.file ? files_.get(request.file, instance.id) : nullptr;
  if (int err = instance.libservice().getattr(*n, f.get(), reply.entry.attr)) return err;
  observe(instance, *n, reply.entry.attr);
  return 0;
}

int Dispatcher::set_attributes(Instance& instance, const Request& request, Node& node, File* file,
                               Attr& out) {
  std::lock_guard guard(node.change_lock);
  SetAttr set = request.set;
  if (request.permissions) {
    if (int err = instance.libservice().getattr(node, file, out)) return err;
    if (int err = request.permissions->may_set(node, out, file != nullptr, set)) return err;
  }
  return instance.libservice().setattr(request.caller, node, file, set, out);
}

int Dispatcher::op_setattr(Instance& instance, Request& request, Reply& reply) {
  Ref<Node> n;
  if (int err = first_node(instance, request, n)) return err;
  Ref<File> f;
  if (request.file) {
    if (int err = file(instance, request.file, f)) return err;
  }
  n->changed_by_us.store(true);
  int err = set_attributes(instance, request, *n, f.get(), reply.entry.attr);
  // Some of it may have happened even if another part failed.
  const bool resized = request.set.mask & kSetSize;
  changed(instance, *n, !resized ? -1 : err ? 0 : static_cast<int64_t>(request.set.size), 0);
  return err;
}

int Dispatcher::op_readlink(Instance& instance, Request& request, Reply& reply) {
  Ref<Node> n;
  if (int err = first_node(instance, request, n)) return err;
  std::span<char> out(reinterpret_cast<char*>(reply.buffer.data()), reply.buffer.size());
  ssize_t size = instance.libservice().readlink(*n, out);
  if (size < 0) return static_cast<int>(size);
  reply.size = static_cast<size_t>(size);
  return 0;
}

// A repeated XATTR_CREATE may find its own value there: kChecked says that there was none before it.
int Dispatcher::op_setxattr(Instance& instance, Request& request, Reply&) {
  Ref<Node> n;
  if (int err = first_node(instance, request, n)) return err;
  Libservice& libservice = instance.libservice();
  auto flags = static_cast<int>(request.flags);
  if ((flags & XATTR_CREATE) && request.replay) {
    if (request.resent && request.replay->phase.load(std::memory_order_acquire) == kChecked) {
      flags &= ~XATTR_CREATE;
    } else {
      ssize_t size = libservice.getxattr(*n, request.name, {});
      if (size >= 0) return -EEXIST;
      if (size == -ENODATA) request.replay->phase.store(kChecked, std::memory_order_release);
    }
  }
  if (int err = libservice.setxattr(*n, request.name, request.data, flags)) return err;
  if (request.kill_priv) {
    if (int err = drop_set_group(instance, request, *n)) return err;
  }
  changed(instance, *n, -1, 0);
  return 0;
}

// FUSE_SETXATTR_ACL_KILL_SGID: the caller is not of the file's group (posix_acl_update_mode, fs/posix_acl.c).
int Dispatcher::drop_set_group(Instance& instance, const Request& request, Node& node) {
  Libservice& libservice = instance.libservice();
  std::lock_guard guard(node.change_lock);
  Attr attr;
  if (int err = libservice.getattr(node, nullptr, attr)) return err;
  SetAttr set;
  set.mask = kSetMode;
  set.mode = attr.stx_mode & 07777 & ~static_cast<mode_t>(S_ISGID);
  return libservice.setattr(request.caller, node, nullptr, set, attr);
}

int Dispatcher::op_getxattr(Instance& instance, Request& request, Reply& reply) {
  Ref<Node> n;
  if (int err = first_node(instance, request, n)) return err;
  ssize_t size = instance.libservice().getxattr(*n, request.name, reply.buffer);
  // The kernel looks for ACLs to decide who may do what, and takes "not supported" for the answer to that
  // (fuse_get_acl, fs/fuse/acl.c, Linux 6.18).
  if (size == -EOPNOTSUPP && std::strncmp(request.name, "system.posix_acl_", 17) == 0) size = -ENODATA;
  if (size < 0) return static_cast<int>(size);
  (reply.buffer.empty() ? reply.value : reply.size) = static_cast<size_t>(size);
  return 0;
}

namespace {

// trusted.* names are for CAP_SYS_ADMIN only (xattr(7)); the front end knows no more of that than the user
// id.
size_t hide_trusted(std::span<std::byte> list) {
  char* out = reinterpret_cast<char*>(list.data());
  const char* end = out + list.size();
  for (const char *name = out, *next; name < end; name = next) {
    next = name + strnlen(name, static_cast<size_t>(end - name)) + 1;
    if (strncmp(name, "trusted.", 8) == 0) continue;
    std::memmove(out, name, static_cast<size_t>(next - name));
    out += next - name;
  }
  return static_cast<size_t>(out - reinterpret_cast<char*>(list.data()));
}

}  // namespace

int Dispatcher::op_listxattr(Instance& instance, Request& request, Reply& reply) {
  Ref<Node> n;
  if (int err = first_node(instance, request, n)) return err;
  if (request.caller.uid == 0) {
    ssize_t size = instance.libservice().listxattr(*n, reply.buffer);
    if (size < 0) return static_cast<int>(size);
    (reply.buffer.empty() ? reply.value : reply.size) = static_cast<size_t>(size);
    return 0;
  }
  std::vector<std::byte> all(XATTR_LIST_MAX);
  ssize_t size = instance.libservice().listxattr(*n, all);
  if (size < 0) return static_cast<int>(size);
  size_t shown = hide_trusted(std::span(all).first(static_cast<size_t>(size)));
  if (reply.buffer.empty()) {
    reply.value = shown;
    return 0;
  }
  if (shown > reply.buffer.size()) return -ERANGE;
  std::memcpy(reply.buffer.data(), all.data(), shown);
  reply.size = shown;
  return 0;
}

// A repeated removal finds nothing: kChecked says that there was something.
int Dispatcher::op_removexattr(Instance& instance, Request& request, Reply&) {
  Ref<Node> n;
  if (int err = first_node(instance, request, n)) return err;
  Libservice& libservice = instance.libservice();
  bool had =
      request.resent && request.replay && request.replay->phase.load(std::memory_order_acquire) == kChecked;
  if (!had && request.replay && libservice.getxattr(*n, request.name, {}) >= 0)
    request.replay->phase.store(kChecked, std::memory_order_release);
  int err = libservice.removexattr(*n, request.name);
  if (err == -ENODATA && had) err = 0;
  if (err == 0) changed(instance, *n, -1, 0);
  return err;
}

int Dispatcher::op_statfs(Instance& instance, Request& request, Reply& reply) {
  Ref<Node> n;
  if (int err = first_node(instance, request, n)) return err;
  return instance.libservice().statfs(*n, reply.statfs);
}

int Dispatcher::op_syncfs(Instance& instance, Request& request, Reply&) {
  Ref<Node> n;
  if (int err = first_node(instance, request, n)) return err;
  return instance.libservice().syncfs(*n);
}

}  // namespace poly
