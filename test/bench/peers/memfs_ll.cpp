// poly-bench-memfs: an in-memory libfuse3 low-level server, the peer that Polytropon's `memory` is measured
// against. It gets the conditions ours has: default_permissions, POSIX ACLs answered (no xattrs: ENODATA),
// the same timeouts, write-through page cache, 1 MiB requests, one cloned /dev/fuse fd per thread.
//
//   poly-bench-memfs DIR [-f] [-o single] [-o timeout=SECONDS] [-o noacl] [-o splice] [fuse options]
#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <linux/fs.h>
#include <sys/statvfs.h>

#include <cstddef>
#include <cstdio>
#include <vector>

#include "memfs_tree.hpp"

namespace {

using memfs::Inode;
using memfs::Tree;
using Shared = std::shared_lock<std::shared_mutex>;
using Exclusive = std::unique_lock<std::shared_mutex>;

struct Options {
  int single = 0;
  int noacl = 0;
  int splice = 0;
  double timeout = 1.0;
};

Options options;
Tree tree;

Inode* node_of(fuse_ino_t ino) {
  return ino == FUSE_ROOT_ID ? tree.root() : reinterpret_cast<Inode*>(ino);
}
fuse_ino_t ino_of(Inode* node) {
  return node == tree.root() ? FUSE_ROOT_ID : reinterpret_cast<fuse_ino_t>(node);
}

// Caller holds tree.names: the kernel gets one more lookup.
fuse_entry_param entry_of(Inode* node) {
  fuse_entry_param entry = {};
  entry.ino = ino_of(node);
  entry.generation = node->st.st_ino;  // addresses are reused
  entry.attr_timeout = options.timeout;
  entry.entry_timeout = options.timeout;
  Shared guard(node->lock);
  entry.attr = node->st;
  return entry;
}

void op_init(void*, fuse_conn_info* conn) {
  conn->max_write = 1 << 20;
  conn->max_background = 64;
  conn->congestion_threshold = 48;
  if (!options.splice) conn->want &= ~(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
  if (!options.noacl) conn->want |= conn->capable & FUSE_CAP_POSIX_ACL;
  conn->want |= conn->capable & (FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
                                 FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_ATOMIC_O_TRUNC);
  conn->want &= ~FUSE_CAP_WRITEBACK_CACHE;
}

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  Exclusive guard(tree.names);  // counts a lookup
  Inode* node = Tree::find(node_of(parent), name);
  if (node == nullptr) {
    fuse_entry_param negative = {};
    negative.entry_timeout = options.timeout;
    guard.unlock();
    fuse_reply_entry(req, &negative);
    return;
  }
  node->lookups++;
  auto entry = entry_of(node);
  guard.unlock();
  fuse_reply_entry(req, &entry);
}

void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count) {
  {
    Exclusive guard(tree.names);
    tree.forget(node_of(ino), count);
  }
  fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count, fuse_forget_data* forgets) {
  {
    Exclusive guard(tree.names);
    for (size_t i = 0; i < count; i++) tree.forget(node_of(forgets[i].ino), forgets[i].nlookup);
  }
  fuse_reply_none(req);
}

void op_getattr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
  Inode* node = node_of(ino);
  Shared guard(node->lock);
  struct stat st = node->st;
  guard.unlock();
  fuse_reply_attr(req, &st, options.timeout);
}

void set_times(Inode* node, const struct stat* attr, int which) {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (which & FUSE_SET_ATTR_ATIME) node->st.st_atim = attr->st_atim;
  if (which & FUSE_SET_ATTR_MTIME) node->st.st_mtim = attr->st_mtim;
  if (which & FUSE_SET_ATTR_ATIME_NOW) node->st.st_atim = now;
  if (which & FUSE_SET_ATTR_MTIME_NOW) node->st.st_mtim = now;
  node->st.st_ctim = now;
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat* attr, int which, fuse_file_info*) {
  Inode* node = node_of(ino);
  Exclusive guard(node->lock);
  if (which & FUSE_SET_ATTR_SIZE) {
    int err = node->resize(static_cast<size_t>(attr->st_size));
    if (err != 0) {
      fuse_reply_err(req, err);
      return;
    }
    node->touch_modified();
  }
  if (which & FUSE_SET_ATTR_MODE) node->st.st_mode = (node->st.st_mode & S_IFMT) | (attr->st_mode & 07777);
  if (which & FUSE_SET_ATTR_UID) node->st.st_uid = attr->st_uid;
  if (which & FUSE_SET_ATTR_GID) node->st.st_gid = attr->st_gid;
  set_times(node, attr, which);
  struct stat st = node->st;
  guard.unlock();
  fuse_reply_attr(req, &st, options.timeout);
}

void op_readlink(fuse_req_t req, fuse_ino_t ino) {
  fuse_reply_readlink(req, node_of(ino)->target.c_str());
}

// mknod, mkdir, symlink and create share this; returns 0 and fills `entry`, or an errno.
int make_entry(fuse_req_t req, fuse_ino_t parent_ino, const char* name, mode_t mode, dev_t rdev,
               const char* target, fuse_entry_param* entry) {
  const fuse_ctx* ctx = fuse_req_ctx(req);
  Inode* parent = node_of(parent_ino);
  Exclusive guard(tree.names);
  if (Tree::find(parent, name) != nullptr) return EEXIST;
  bool setgid = (parent->st.st_mode & S_ISGID) != 0;
  if (setgid && S_ISDIR(mode)) mode |= S_ISGID;
  Inode* node = tree.make(mode, ctx->uid, setgid ? parent->st.st_gid : ctx->gid, rdev);
  if (target != nullptr) {
    node->target = target;
    node->set_size(node->target.size());
  }
  tree.attach(parent, name, node);
  node->lookups = 1;
  *entry = entry_of(node);
  return 0;
}

void reply_made(fuse_req_t req, int err, const fuse_entry_param& entry) {
  if (err != 0) {
    fuse_reply_err(req, err);
  } else {
    fuse_reply_entry(req, &entry);
  }
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t rdev) {
  fuse_entry_param entry = {};
  int err = make_entry(req, parent, name, mode, rdev, nullptr, &entry);
  reply_made(req, err, entry);
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
  fuse_entry_param entry = {};
  int err = make_entry(req, parent, name, S_IFDIR | mode, 0, nullptr, &entry);
  reply_made(req, err, entry);
}

void op_symlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) {
  fuse_entry_param entry = {};
  int err = make_entry(req, parent, name, S_IFLNK | 0777, 0, target, &entry);
  reply_made(req, err, entry);
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* file) {
  fuse_entry_param entry = {};
  int err = make_entry(req, parent, name, S_IFREG | (mode & 07777), 0, nullptr, &entry);
  if (err != 0) {
    fuse_reply_err(req, err);
    return;
  }
  file->keep_cache = 1;
  fuse_reply_create(req, &entry, file);
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char* name) {
  Exclusive guard(tree.names);
  Inode* node = node_of(ino);
  if (Tree::find(node_of(parent), name) != nullptr) {
    fuse_reply_err(req, EEXIST);
    return;
  }
  tree.attach(node_of(parent), name, node);
  node->lookups++;
  auto entry = entry_of(node);
  guard.unlock();
  fuse_reply_entry(req, &entry);
}

void remove_entry(fuse_req_t req, fuse_ino_t parent, const char* name, bool directory) {
  Exclusive guard(tree.names);
  int err = tree.remove(node_of(parent), name, directory);
  guard.unlock();
  fuse_reply_err(req, err);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char* name) {
  remove_entry(req, parent, name, false);
}
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char* name) {
  remove_entry(req, parent, name, true);
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
               const char* new_name, unsigned flags) {
  if (flags & ~static_cast<unsigned>(RENAME_NOREPLACE)) {
    fuse_reply_err(req, EINVAL);
    return;
  }
  Exclusive guard(tree.names);
  int err = tree.rename(node_of(parent), name, node_of(new_parent), new_name, flags & RENAME_NOREPLACE);
  guard.unlock();
  fuse_reply_err(req, err);
}

void op_open(fuse_req_t req, fuse_ino_t ino, fuse_file_info* file) {
  if (file->flags & O_TRUNC) {
    Inode* node = node_of(ino);
    Exclusive guard(node->lock);
    node->set_size(0);
    node->touch_modified();
  }
  file->keep_cache = 1;
  fuse_reply_open(req, file);
}

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info*) {
  Inode* node = node_of(ino);
  Shared guard(node->lock);
  off_t left = std::max<off_t>(node->st.st_size - offset, 0);
  fuse_reply_buf(req, node->bytes + offset, std::min(size, static_cast<size_t>(left)));
}

void op_write(fuse_req_t req, fuse_ino_t ino, const char* bytes, size_t size, off_t offset, fuse_file_info*) {
  Inode* node = node_of(ino);
  Exclusive guard(node->lock);
  int err = node->write(bytes, size, static_cast<size_t>(offset));
  guard.unlock();
  if (err != 0) {
    fuse_reply_err(req, err);
  } else {
    fuse_reply_write(req, size);
  }
}

void op_flush(fuse_req_t req, fuse_ino_t, fuse_file_info*) {
  fuse_reply_err(req, 0);
}
void op_release(fuse_req_t req, fuse_ino_t, fuse_file_info*) {
  fuse_reply_err(req, 0);
}
void op_fsync(fuse_req_t req, fuse_ino_t, int, fuse_file_info*) {
  fuse_reply_err(req, 0);
}

void op_opendir(fuse_req_t req, fuse_ino_t, fuse_file_info* file) {
  fuse_reply_open(req, file);
}

size_t add_entry(fuse_req_t req, char* to, size_t room, const char* name, Inode* node, off_t next,
                 bool plus) {
  if (!plus) return fuse_add_direntry(req, to, room, name, &node->st, next);
  bool dots = next <= 2;  // the kernel counts no lookup for "." and ".."
  auto entry = entry_of(node);
  if (dots) entry.ino = 0;
  size_t used = fuse_add_direntry_plus(req, to, room, name, &entry, next);
  if (used <= room && !dots) node->lookups++;
  return used;
}

void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, bool plus) {
  std::vector<char> buffer(size);
  size_t used = 0;
  Exclusive guard(tree.names);
  Inode* node = node_of(ino);
  auto add = [&](const char* name, Inode* child, uint64_t cookie) {
    size_t need =
        add_entry(req, buffer.data() + used, size - used, name, child, static_cast<off_t>(cookie), plus);
    if (need > size - used) return false;
    used += need;
    return true;
  };
  bool room = true;
  if (offset < 1) room = add(".", node, 1);
  if (room && offset < 2) room = add("..", node->dir->parent, 2);
  auto it = node->dir->order.upper_bound(static_cast<uint64_t>(offset));
  for (; room && it != node->dir->order.end(); ++it)
    room = add(it->second.first.c_str(), it->second.second, it->first);
  guard.unlock();
  fuse_reply_buf(req, buffer.data(), used);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info*) {
  list(req, ino, size, offset, false);
}
void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info*) {
  list(req, ino, size, offset, true);
}

void op_statfs(fuse_req_t req, fuse_ino_t) {
  struct statvfs st = {};
  st.f_bsize = st.f_frsize = 4096;
  st.f_blocks = st.f_bfree = st.f_bavail = 1 << 20;
  st.f_files = st.f_ffree = st.f_favail = 1 << 20;
  st.f_namemax = 255;
  fuse_reply_statfs(req, &st);
}

void op_getxattr(fuse_req_t req, fuse_ino_t, const char*, size_t) {
  fuse_reply_err(req, options.noacl ? ENOSYS : ENODATA);
}
void op_listxattr(fuse_req_t req, fuse_ino_t, size_t size) {
  if (size == 0) {
    fuse_reply_xattr(req, 0);
  } else {
    fuse_reply_buf(req, nullptr, 0);
  }
}
void op_setxattr(fuse_req_t req, fuse_ino_t, const char*, const char*, size_t, int) {
  fuse_reply_err(req, ENOTSUP);
}

fuse_lowlevel_ops operations() {
  fuse_lowlevel_ops ops = {};
  ops.init = op_init;
  ops.lookup = op_lookup;
  ops.forget = op_forget;
  ops.forget_multi = op_forget_multi;
  ops.getattr = op_getattr;
  ops.setattr = op_setattr;
  ops.readlink = op_readlink;
  ops.mknod = op_mknod;
  ops.mkdir = op_mkdir;
  ops.unlink = op_unlink;
  ops.rmdir = op_rmdir;
  ops.symlink = op_symlink;
  ops.rename = op_rename;
  ops.link = op_link;
  ops.open = op_open;
  ops.create = op_create;
  ops.read = op_read;
  ops.write = op_write;
  ops.flush = op_flush;
  ops.release = op_release;
  ops.fsync = op_fsync;
  ops.opendir = op_opendir;
  ops.readdir = op_readdir;
  ops.readdirplus = op_readdirplus;
  ops.statfs = op_statfs;
  ops.getxattr = op_getxattr;
  ops.listxattr = op_listxattr;
  ops.setxattr = op_setxattr;
  return ops;
}

const fuse_opt option_specs[] = {{"single", offsetof(Options, single), 1},
                                 {"noacl", offsetof(Options, noacl), 1},
                                 {"splice", offsetof(Options, splice), 1},
                                 {"timeout=%lf", offsetof(Options, timeout), 0},
                                 FUSE_OPT_END};

int serve(fuse_session* session) {
  if (options.single) return fuse_session_loop(session);
  fuse_loop_config* config = fuse_loop_cfg_create();
  fuse_loop_cfg_set_clone_fd(config, 1);
  int result = fuse_session_loop_mt(session, config);
  fuse_loop_cfg_destroy(config);
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  fuse_args args = FUSE_ARGS_INIT(argc, argv);
  fuse_cmdline_opts command = {};
  if (fuse_parse_cmdline(&args, &command) != 0 ||
      fuse_opt_parse(&args, &options, option_specs, nullptr) != 0 || command.mountpoint == nullptr) {
    fprintf(stderr, "usage: poly-bench-memfs DIR [-f] [-o single,timeout=S,noacl,splice,...]\n");
    return 1;
  }
  fuse_opt_add_arg(&args, "-odefault_permissions,allow_other,fsname=poly-bench-memfs");
  fuse_lowlevel_ops ops = operations();
  fuse_session* session = fuse_session_new(&args, &ops, sizeof ops, nullptr);
  if (session == nullptr) return 1;
  int result = 1;
  if (fuse_set_signal_handlers(session) == 0 && fuse_session_mount(session, command.mountpoint) == 0) {
    fuse_daemonize(command.foreground);
    result = serve(session);
    fuse_session_unmount(session);
  }
  fuse_remove_signal_handlers(session);
  fuse_session_destroy(session);
  return result == 0 ? 0 : 1;
}
