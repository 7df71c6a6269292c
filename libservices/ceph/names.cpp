// Operations on names: lookup, the makers of new entries, and what takes names away.
#include <cerrno>

#include "libservices/ceph/attributes.hpp"
#include "libservices/ceph/ceph.hpp"

namespace poly {

using namespace ceph;

namespace {
// O_DIRECT is honoured up to the service, as for every libservice.
constexpr int kKeptOpenFlags = O_ACCMODE | O_TRUNC | O_EXCL | O_SYNC | O_DSYNC;
}  // namespace

int Ceph::lookup(const Caller& caller, Node& dir, const char* name, Entry& out) {
  if (!is_component(name)) return -EINVAL;
  Inode *parent, *found;
  if (int err = inode(dir, parent)) return err;
  Statx st;
  if (int err = client_->ll_lookup(client_.mount(), parent, name, &found, &st, kStatxWanted, 0, as(caller)))
    return err;
  entry(found, st, out);
  return 0;
}

int Ceph::mknod(const Caller& caller, Node& dir, const char* name, mode_t mode, dev_t device, Entry& out) {
  if (!is_component(name)) return -EINVAL;
  Inode *parent, *made;
  if (int err = inode(dir, parent)) return err;
  Statx st;
  const UmaskScope umask(caller.umask);
  if (int err = client_->ll_mknod(client_.mount(), parent, name, mode, from_device(device), &made, &st,
                                  kStatxWanted, 0, as(caller)))
    return err;
  entry(made, st, out);
  return 0;
}

int Ceph::mkdir(const Caller& caller, Node& dir, const char* name, mode_t mode, Entry& out) {
  if (!is_component(name)) return -EINVAL;
  Inode *parent, *made;
  if (int err = inode(dir, parent)) return err;
  Statx st;
  const UmaskScope umask(caller.umask);
  if (int err =
          client_->ll_mkdir(client_.mount(), parent, name, mode, &made, &st, kStatxWanted, 0, as(caller)))
    return err;
  entry(made, st, out);
  return 0;
}

int Ceph::symlink(const Caller& caller, Node& dir, const char* name, const char* target, Entry& out) {
  if (!is_component(name)) return -EINVAL;
  Inode *parent, *made;
  if (int err = inode(dir, parent)) return err;
  Statx st;
  if (int err =
          client_->ll_symlink(client_.mount(), parent, name, target, &made, &st, kStatxWanted, 0, as(caller)))
    return err;
  entry(made, st, out);
  return 0;
}

int Ceph::link(const Caller& caller, Node& node, Node& dir, const char* name, Entry& out) {
  if (!is_component(name)) return -EINVAL;
  if (S_ISDIR(static_cast<CephNode&>(node).type)) return -EPERM;
  Inode *target, *parent;
  if (int err = inode(node, target)) return err;
  if (int err = inode(dir, parent)) return err;
  if (int err = client_->ll_link(client_.mount(), target, parent, name, as(caller))) return err;
  out.node = Ref<Node>::share(&node);
  return getattr(node, nullptr, out.attr);
}

int Ceph::unlink(const Caller& caller, Node& dir, const char* name, const Entry&) {
  if (!is_component(name)) return -EINVAL;
  Inode* parent;
  if (int err = inode(dir, parent)) return err;
  return client_->ll_unlink(client_.mount(), parent, name, as(caller));
}

int Ceph::rmdir(const Caller& caller, Node& dir, const char* name, const Entry&) {
  if (!is_component(name)) return -EINVAL;
  Inode* parent;
  if (int err = inode(dir, parent)) return err;
  return client_->ll_rmdir(client_.mount(), parent, name, as(caller));
}

// Neither the protocol of 16.2 nor the kernel's client (ceph_rename, fs/ceph/dir.c) knows flags. Never
// between two names of one inode (libcephfs would take the old one for gone: Client::insert_trace): who asks,
// the kernel or the dispatcher, has seen to that.
int Ceph::rename(const Caller& caller, Node& dir, const char* name, Node& new_dir, const char* new_name,
                 uint32_t flags) {
  if (!is_component(name) || !is_component(new_name) || flags) return -EINVAL;
  Inode *from, *to;
  if (int err = inode(dir, from)) return err;
  if (int err = inode(new_dir, to)) return err;
  if (int err = client_->ll_rename(client_.mount(), from, name, to, new_name, as(caller))) return err;
  if (from != to) refresh(from);
  return 0;
}

// The metadata server tells of the directory that gets the name only, and what libcephfs knows of the other
// one's times and links stays what it was before (16.2.15). Statistics of a directory it asks the server for
// always, and takes the rest of the answer, too (Client::_getxattr).
void Ceph::refresh(Inode* directory) {
  char entries[24];
  (void)client_->ll_getxattr(client_.mount(), directory, "ceph.dir.entries", entries, sizeof entries,
                             ourselves());
}

int Ceph::create(const Caller& caller, Node& dir, const char* name, int flags, mode_t mode, Entry& out,
                 Ref<File>& file) {
  if (!is_component(name)) return -EINVAL;
  Inode *parent, *made;
  if (int err = inode(dir, parent)) return err;
  Fh* handle;
  Statx st;
  const UmaskScope umask(caller.umask);
  if (int err = client_->ll_create(client_.mount(), parent, name, mode, (flags & kKeptOpenFlags) | O_CREAT,
                                   &made, &handle, &st, kStatxWanted, 0, as(caller)))
    return err;
  Ref<CephNode> node = intern(made, st);
  // Nobody else knows an empty file that we have just opened for writing; whoever comes takes the right from
  // us.
  if (st.size == 0 && (flags & O_EXCL)) node->cacheable.store(node->revocations.load() + 1);
  file = opened_file(node, handle, flags);
  to_attr(st, out.attr);
  out.node = std::move(node);
  return 0;
}

Ref<File> Ceph::opened_file(Ref<CephNode> node, Fh* handle, int flags) {
  auto* file = new CephFile(std::move(node), handle);
  file->reads = (flags & O_ACCMODE) != O_WRONLY;
  if ((flags & O_ACCMODE) != O_RDONLY) decide_cache(*file, flags);
  return Ref<File>::adopt(file);
}

// Ceph has no files without names, and its kernel client answers the same.
int Ceph::tmpfile(const Caller&, Node&, int, mode_t, Entry&, Ref<File>&) {
  return -EOPNOTSUPP;
}

int Ceph::open(const Caller& caller, Node& node, int flags, bool restored, Ref<File>& file) {
  auto& n = static_cast<CephNode&>(node);
  Inode* in;
  if (int err = inode(node, in)) return err;
  if (S_ISDIR(n.type)) {
    ceph_dir_result* directory;
    if (int err = client_->ll_opendir(client_.mount(), in, &directory, as(caller))) return err;
    file = Ref<File>::adopt(new CephFile(Ref<CephNode>::share(&n), directory));
    return 0;
  }
  if (!S_ISREG(n.type)) return -ENXIO;  // the kernel in front opens devices, pipes and sockets itself
  const int kept = flags & kKeptOpenFlags & ~(O_EXCL | (restored ? O_TRUNC : 0));
  if ((kept & O_ACCMODE) != O_RDONLY) n.privileged.store(has_capability(in), std::memory_order_relaxed);
  if ((kept & O_TRUNC) && n.privileged.load(std::memory_order_relaxed)) drop_capability(n, in);
  Fh* handle;
  if (int err = client_->ll_open(client_.mount(), in, kept, &handle, as(caller))) return err;
  file = opened_file(Ref<CephNode>::share(&n), handle, kept);
  return 0;
}

}  // namespace poly
