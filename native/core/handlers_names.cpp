// Handlers of operations on names. Those that must not run twice share three shapes: make_once (a name that
// was absent gets an inode), remove_once (an inode loses the name) and rename_once.
//
// What is seen before a change and the change itself are one under the directory's change_lock: another mount
// of the libservice or a fast-path call cannot come between, as the kernel's own lock keeps its own callers
// from it.
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>

#include <functional>
#include <optional>

#include "fastpath/wire.hpp"
#include "native/core/dispatcher.hpp"
#include "native/core/recent_names.hpp"

namespace poly {
namespace {

void set_evidence(ReplayRecord& r, const Attr& attr) {
  r.device = uint64_t{attr.stx_dev_major} << 32 | attr.stx_dev_minor;
  r.ino = attr.stx_ino;
  r.birth_seconds = attr.stx_btime.tv_sec;
  r.birth_nanoseconds = attr.stx_btime.tv_nsec;
}

bool is_evidence(const ReplayRecord& r, const Attr& attr) {
  return r.ino == attr.stx_ino && r.device == (uint64_t{attr.stx_dev_major} << 32 | attr.stx_dev_minor) &&
         r.birth_seconds == attr.stx_btime.tv_sec && r.birth_nanoseconds == attr.stx_btime.tv_nsec;
}

void checked(ReplayRecord* r) {
  if (r) r->phase.store(kChecked, std::memory_order_release);
}

int done(ReplayRecord* r, int result) {
  if (r) {
    r->result = result;
    r->phase.store(kDone, std::memory_order_release);
  }
  return result;
}

constexpr int kOneInode = 1;  // rename(2) between two names of it

// The change_locks of two directories, or of one.
class BothLocked {
 public:
  BothLocked(Node& a, Node& b) : first_(std::less<>()(&a, &b) ? a.change_lock : b.change_lock) {
    if (&a != &b) second_ = std::unique_lock(std::less<>()(&a, &b) ? b.change_lock : a.change_lock);
  }

 private:
  std::unique_lock<std::mutex> first_, second_;
};

uint32_t left_phase(const Request& request) {
  return request.resent && request.replay ? request.replay->phase.load(std::memory_order_acquire) : kIdle;
}

}  // namespace

int Dispatcher::op_lookup(Instance& instance, Request& request, Reply& reply) {
  Ref<Node> dir;
  if (int err = first_node(instance, request, dir)) return err;
  Entry entry;
  int err = instance.libservice().lookup(request.caller, *dir, request.name, entry);
  if (err == -ENOENT) {
    reply.entry.node = 0;
    return 0;
  }
  return err ? err : answer(instance, request, entry, reply.entry);
}

int Dispatcher::op_forget(Instance& instance, Request& request, Reply&) {
  if (request.node != instance.root) nodes_.forget(instance.id, request.node, request.size);
  return 0;
}

// Looks for dir/name before it is made, and writes down that it was absent, so that after a death the name's
// presence means that it was made. 0: it is there, made by the request's first run; -EEXIST: by others;
// -ENOENT: go on.
int Dispatcher::find_absent(Instance& instance, Request& request, Node& dir, const char* name, Entry& found) {
  const uint32_t left = left_phase(request);
  const int err = instance.libservice().lookup(request.caller, dir, name, found);
  if (left == kChecked || left == kDone) return err;
  if (err != -ENOENT) return err ? err : -EEXIST;
  if (request.permissions) {
    if (int denied = request.permissions->may_create(dir)) return denied;
  }
  checked(request.replay);
  return -ENOENT;
}

// `make` creates dir/name.
template <typename Make>
int Dispatcher::make_once(Instance& instance, Request& request, Reply& reply, Node& dir, const char* name,
                          Make make) {
  ReplayRecord* replay = request.replay;
  const bool finished = left_phase(request) == kDone;
  undo_unanswered(instance, request);
  if (finished && replay->result != 0) return replay->result;
  Entry entry;
  {
    std::lock_guard guard(dir.change_lock);
    int err = find_absent(instance, request, dir, name, entry);
    if (err && err != -ENOENT) return err;
    if (err == -ENOENT) {
      if (int failed = make(entry)) return done(replay, failed);
    }
  }
  int err = done(replay, answer(instance, request, entry, reply.entry));
  entry_changed(instance, dir, name);
  return err;
}

int Dispatcher::op_mknod(Instance& instance, Request& request, Reply& reply) {
  Ref<Node> dir;
  if (int err = first_node(instance, request, dir)) return err;
  return make_once(instance, request, reply, *dir, request.name, [&](Entry& entry) {
    return instance.libservice().mknod(request.caller, *dir, request.name, request.mode, request.device,
                                       entry);
  });
}

int Dispatcher::op_mkdir(Instance& instance, Request& request, Reply& reply) {
  Ref<Node> dir;
  if (int err = first_node(instance, request, dir)) return err;
  return make_once(instance, request, reply, *dir, request.name, [&](Entry& entry) {
    return instance.libservice().mkdir(request.caller, *dir, request.name, request.mode, entry);
  });
}

int Dispatcher::op_symlink(Instance& instance, Request& request, Reply& reply) {
  Ref<Node> dir;
  if (int err = first_node(instance, request, dir)) return err;
  return make_once(instance, request, reply, *dir, request.name, [&](Entry& entry) {
    return instance.libservice().symlink(request.caller, *dir, request.name, request.name2, entry);
  });
}

namespace {
// do_linkat (fs/namei.c) refuses a source after filename_create has found the new name taken, or its
// directory removed.
int name_in_the_way(Instance& instance, const Request& request, Node& dir, int denied) {
  Entry found;
  Libservice& libservice = instance.libservice();
  if (libservice.lookup(request.caller, dir, request.name, found) == 0) return -EEXIST;
  if (int err = libservice.getattr_access(dir, found.attr)) return err;
  return found.attr.stx_nlink == 0 ? -ENOENT : denied;
}
}  // namespace

int Dispatcher::op_link(Instance& instance, Request& request, Reply& reply) {
  Ref<Node> target, dir;
  if (int err = first_node(instance, request, target)) return err;
  if (int err = second_node(instance, request, dir)) return err;
  if (request.permissions && left_phase(request) != kChecked) {
    Entry found;
    if (int err = instance.libservice().getattr(*target, nullptr, found.attr)) return err;
    if (int denied = request.permissions->may_link(*target, found.attr))
      return name_in_the_way(instance, request, *dir, denied);
  }
  int err = make_once(instance, request, reply, *dir, request.name, [&](Entry& entry) {
    return instance.libservice().link(request.caller, *target, *dir, request.name, entry);
  });
  if (err) return err;
  changed(instance, *target, -1, 0);
  return 0;
}

// Without O_EXCL a second run opens what the first one made. With it, kChecked says that the name was absent
// before us.
int Dispatcher::create_locked(Instance& instance, Request& request, Node& dir, Entry& entry,
                              Ref<File>& opened) {
  auto flags = static_cast<int>(request.flags);
  const uint32_t left = left_phase(request);
  if (left == kChecked || left == kDone) {
    flags &= ~(O_EXCL | (left == kDone ? O_TRUNC : 0));
  } else if (flags & O_EXCL) {
    int err = find_absent(instance, request, dir, request.name, entry);
    if (err != -ENOENT) return err;
  }
  Libservice& libservice = instance.libservice();
  const int err = libservice.create(request.caller, dir, request.name, flags, request.mode, entry, opened);
  if (err != -EACCES || (left != kChecked && left != kDone)) return err;
  // The first run made it, with a mode that lets an ordinary user's service not open it a second time.
  if (int failed = libservice.lookup(request.caller, dir, request.name, entry)) return failed;
  return libservice.open(request.caller, *entry.node, flags & ~O_CREAT, true, opened);
}

int Dispatcher::op_create(Instance& instance, Request& request, Reply& reply) {
  Ref<Node> dir;
  if (int err = first_node(instance, request, dir)) return err;
  const bool finished = left_phase(request) == kDone;
  undo_unanswered(instance, request);
  if (finished && request.replay->result != 0) return request.replay->result;
  Entry entry;
  Ref<File> opened;
  bool strips = false;
  {
    std::lock_guard guard(dir->change_lock);
    // Opening empties a file and takes its set-id bits; a new one has those it was made with.
    if (request.kill_priv && (request.flags & O_TRUNC) && !(request.flags & O_EXCL) && !finished) {
      Attr before;
      strips = instance.libservice().stat(request.caller, *dir, request.name, before) == 0;
    }
    if (int err = create_locked(instance, request, *dir, entry, opened)) return done(request.replay, err);
  }
  if (strips) {
    if (int err = strip_set_ids(instance, request, *entry.node, opened.get()))
      return done(request.replay, err);
  }
  if (int err = answer(instance, request, entry, reply.entry)) return err;
  if (request.fast) {
    if (int err = hold(instance, request, *entry.node, reply.entry.node)) return err;
  }
  reply.uncached = instance.libservice().uncached(*opened);
  if (int err = register_file(instance, request, reply.entry.node, request.flags, false, std::move(opened),
                              reply.file)) {
    nodes_.forget(instance.id, reply.entry.node, 1);
    return err;
  }
  done(request.replay, 0);
  entry_changed(instance, *dir, request.name);
  if (request.flags & O_TRUNC) changed(instance, *entry.node, 0, 0);
  return 0;
}

int Dispatcher::op_tmpfile(Instance& instance, Request& request, Reply& reply) {
  Ref<Node> dir;
  if (int err = first_node(instance, request, dir)) return err;
  undo_unanswered(instance, request);
  Entry entry;
  Ref<File> opened;
  if (int err = instance.libservice().tmpfile(request.caller, *dir, static_cast<int>(request.flags),
                                              request.mode, entry, opened))
    return err;
  if (int err = answer(instance, request, entry, reply.entry)) return err;
  int err =
      register_file(instance, request, reply.entry.node, request.flags & ~static_cast<uint32_t>(O_TMPFILE),
                    false, std::move(opened), reply.file);
  if (err) nodes_.forget(instance.id, reply.entry.node, 1);
  return err;
}

// `remove` takes dir/request.name away. Which inode has the name is written down before, so that after a
// death the name's absence, or another inode under it, means that it ran.
template <typename Remove>
int Dispatcher::remove_locked(Instance& instance, Request& request, Node& dir, bool directory, Entry& victim,
                              Remove remove) {
  const uint32_t left = left_phase(request);
  int err = instance.libservice().lookup(request.caller, dir, request.name, victim);
  if (left == kChecked && (err == -ENOENT || (err == 0 && !is_evidence(*request.replay, victim.attr)))) {
    victim.node = nullptr;
    return done(request.replay, 0);
  }
  if (err) return err;
  if (left != kChecked && request.permissions) {
    if (int denied = request.permissions->may_delete(dir, victim.attr, directory)) return denied;
  }
  if (left != kChecked && request.replay) {
    set_evidence(*request.replay, victim.attr);
    request.replay->offset = nodes_.id_in(*victim.node, instance.id);
    checked(request.replay);
  }
  NamesChange change(dir);
  return done(request.replay, remove(victim));
}

template <typename Remove>
int Dispatcher::remove_once(Instance& instance, Request& request, Node& dir, bool directory, Remove remove) {
  const bool finished = left_phase(request) == kDone;
  if (finished && request.replay->result != 0) return request.replay->result;
  Entry victim;
  if (!finished) {
    std::lock_guard guard(dir.change_lock);
    if (int err = remove_locked(instance, request, dir, directory, victim, remove)) return err;
  }
  if (!victim.node) {  // gone before a death, and perhaps nobody was told
    entry_changed(instance, dir, request.name);
    if (Ref<Node> gone = nodes_.get(request.replay->offset, instance.id)) changed(instance, *gone, -1, 0);
    return 0;
  }
  (directory ? instance.host->directories : instance.host->files).drop(dir, request.name);
  const bool last = victim.attr.stx_nlink == 1 || S_ISDIR(victim.attr.stx_mode);
  entry_removed(instance, dir, request.name, *victim.node, last);
  changed(instance, *victim.node, -1, 0);
  return 0;
}

int Dispatcher::op_unlink(Instance& instance, Request& request, Reply&) {
  Ref<Node> dir;
  if (int err = first_node(instance, request, dir)) return err;
  return remove_once(instance, request, *dir, false, [&](const Entry& victim) {
    return instance.libservice().unlink(request.caller, *dir, request.name, victim);
  });
}

int Dispatcher::op_rmdir(Instance& instance, Request& request, Reply&) {
  Ref<Node> dir;
  if (int err = first_node(instance, request, dir)) return err;
  return remove_once(instance, request, *dir, true, [&](const Entry& victim) {
    return instance.libservice().rmdir(request.caller, *dir, request.name, victim);
  });
}

// What vfs_rename (fs/namei.c) looks at before it asks the filesystem. 0: go on; kOneInode: there is
// nothing to do; else -errno, or kDeclined where the kernel may have another reason first: it compares paths
// before it judges.
int Dispatcher::rename_checked(Instance& instance, Request& request, Node& dir, Node& new_dir,
                               const Entry& from) {
  Entry to;
  int err = instance.libservice().lookup(request.caller, new_dir, request.name2, to);
  if (err && err != -ENOENT) return err;
  const bool exists = err == 0;
  if (exists && (request.flags & RENAME_NOREPLACE)) return -EEXIST;
  if (!exists && (request.flags & RENAME_EXCHANGE)) return -ENOENT;
  if (exists && from.node.get() == to.node.get()) return kOneInode;
  err = request.permissions->may_rename(dir, new_dir, from, exists ? &to : nullptr,
                                        request.flags & RENAME_EXCHANGE);
  const bool directories = S_ISDIR(from.attr.stx_mode) || (exists && S_ISDIR(to.attr.stx_mode));
  return err && directories ? kDeclined : err;
}

// It ran if the inode that had the old name has the new one and not the old one any more. An exchange swaps
// two inodes, so the same holds. (Two names of one inode: rename(2) does nothing, now as then.)
int Dispatcher::rename_once(Instance& instance, Request& request, Node& dir, Node& new_dir) {
  Libservice& libservice = instance.libservice();
  ReplayRecord* replay = request.replay;
  uint32_t left = left_phase(request);
  if (left == kDone) return replay->result;
  BothLocked guard(dir, new_dir);
  Entry from;
  int err = libservice.lookup(request.caller, dir, request.name, from);
  if (left == kChecked && (err == -ENOENT || (err == 0 && !is_evidence(*replay, from.attr)))) {
    Entry to;
    if (libservice.lookup(request.caller, new_dir, request.name2, to) == 0 && is_evidence(*replay, to.attr))
      return done(replay, 0);
  }
  if (err) return err;
  if (left != kChecked && request.permissions) {
    if (int decided = rename_checked(instance, request, dir, new_dir, from))
      return decided == kOneInode ? 0 : decided;
  }
  if (replay && left != kChecked) {
    set_evidence(*replay, from.attr);
    checked(replay);
  }
  {
    NamesChange change(dir);
    std::optional<NamesChange> second;
    if (&dir != &new_dir) second.emplace(new_dir);
    err = libservice.rename(request.caller, dir, request.name, new_dir, request.name2, request.flags);
  }
  if (err == 0) changed(instance, *from.node, -1, 0);
  return done(replay, err);
}

int Dispatcher::op_rename(Instance& instance, Request& request, Reply&) {
  Ref<Node> dir, new_dir;
  if (int err = first_node(instance, request, dir)) return err;
  if (int err = second_node(instance, request, new_dir)) return err;
  // What is replaced may go on under another name, or open.
  Entry replaced;
  const bool replaces = (request.fast || instance.shares()) &&
                        instance.libservice().lookup(request.caller, *new_dir, request.name2, replaced) == 0;
  if (int err = rename_once(instance, request, *dir, *new_dir)) return err;
  for (RecentNames* names : {&instance.host->directories, &instance.host->files}) {
    names->drop(*dir, request.name);
    names->drop(*new_dir, request.name2);
  }
  if (replaces) changed(instance, *replaced.node, -1, 0);
  entry_changed(instance, *dir, request.name);
  entry_changed(instance, *new_dir, request.name2);
  return 0;
}

}  // namespace poly
