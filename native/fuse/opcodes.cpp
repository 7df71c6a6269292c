#include "native/fuse/opcodes.hpp"

#include <fcntl.h>
#include <linux/fs.h>

#include <array>
#include <cstring>

#include "native/fuse/control.hpp"
#include "native/fuse/init.hpp"
#include "native/fuse/session.hpp"

namespace poly {
namespace {

// Every handler starts by taking its structure apart; a message too short for it is EINVAL.
#define TAKE(type, var)          \
  auto* var = call.take<type>(); \
  if (!var) return -EINVAL
#define TAKE_NAME(var)                \
  const char* var = call.take_name(); \
  if (!var) return -EINVAL
#define TAKE_COMPONENT(var)                \
  const char* var = call.take_component(); \
  if (!var) return -EINVAL

int entry_reply(Call& call, Op op, uint64_t directory) {
  int err = call.dispatch(op);
  if (!err) call.put_entry(directory, call.request.name);
  return err;
}

int handle_lookup(Call& call) {
  TAKE_COMPONENT(name);
  if (call.in.nodeid == kFuseRootId && lookup_control(call, name)) return 0;
  call.request.name = name;
  return entry_reply(call, Op::lookup, call.request.node);
}

int handle_forget(Call& call) {
  call.no_reply();
  TAKE(fuse_forget_in, in);
  call.request.size = in->nlookup;
  return call.dispatch(Op::forget);
}

int handle_batch_forget(Call& call) {
  call.no_reply();
  TAKE(fuse_batch_forget_in, in);
  for (uint32_t i = 0; i < in->count; i++) {
    TAKE(fuse_forget_one, one);
    call.request.node = call.connection.node_in(one->nodeid);
    call.request.size = one->nlookup;
    (void)call.dispatch(Op::forget);
  }
  return 0;
}

int handle_getattr(Call& call) {
  TAKE(fuse_getattr_in, in);
  if (in->getattr_flags & FUSE_GETATTR_FH) call.request.file = in->fh;
  int err = call.dispatch(Op::getattr);
  if (!err) call.put_attr();
  if (!err) call.tell_size();
  return err;
}

int handle_statx(Call& call) {
  TAKE(FuseStatxIn, in);
  if (in->getattr_flags & FUSE_GETATTR_FH) call.request.file = in->fh;
  if (int err = call.dispatch(Op::getattr)) return err;
  const Attr& a = call.answer.entry.attr;
  auto& out = call.put<FuseStatxOut>();
  call.put_timeout(call.attr_timeout(), out.attr_valid, out.attr_valid_nsec);
  call.tell_size();
  out.stat.mask = a.stx_mask & (STATX_BASIC_STATS | STATX_BTIME);
  out.stat.blksize = a.stx_blksize;
  out.stat.attributes = a.stx_attributes;
  out.stat.attributes_mask = a.stx_attributes_mask;
  out.stat.nlink = a.stx_nlink;
  out.stat.uid = a.stx_uid;
  out.stat.gid = a.stx_gid;
  out.stat.mode = a.stx_mode;
  out.stat.ino = a.stx_ino;
  out.stat.size = a.stx_size;
  out.stat.blocks = a.stx_blocks;
  out.stat.atime = fuse_time(a.stx_atime);
  out.stat.btime = fuse_time(a.stx_btime);
  out.stat.ctime = fuse_time(a.stx_ctime);
  out.stat.mtime = fuse_time(a.stx_mtime);
  out.stat.rdev_major = a.stx_rdev_major;
  out.stat.rdev_minor = a.stx_rdev_minor;
  return 0;
}

int handle_setattr(Call& call) {
  TAKE(fuse_setattr_in, in);
  SetAttr& set = call.request.set;
  constexpr struct {
    uint32_t fuse, ours;
  } kMasks[]{{FATTR_MODE, kSetMode},
             {FATTR_UID, kSetUid},
             {FATTR_GID, kSetGid},
             {FATTR_SIZE, kSetSize},
             {FATTR_ATIME, kSetAtime},
             {FATTR_MTIME, kSetMtime},
             {FATTR_ATIME_NOW, kSetAtimeNow},
             {FATTR_MTIME_NOW, kSetMtimeNow},
             {FATTR_KILL_SUIDGID, kSetKillPriv}};
  for (auto& mask : kMasks) {
    if (in->valid & mask.fuse) set.mask |= mask.ours;
  }
  if (in->valid & FATTR_FH) call.request.file = in->fh;
  set.mode = in->mode;
  set.uid = in->uid;
  set.gid = in->gid;
  set.size = in->size;
  set.atime = {static_cast<time_t>(in->atime), in->atimensec};
  set.mtime = {static_cast<time_t>(in->mtime), in->mtimensec};
  if (int err = call.dispatch(Op::setattr)) return err;
  call.put_attr();
  (void)call.dispatcher.told_size(call.connection.instance, call.request.node,
                                  call.answer.entry.attr.stx_size);
  return 0;
}

int handle_readlink(Call& call) {
  call.answer.buffer = call.payload(PATH_MAX);
  int err = call.dispatch(Op::readlink);
  if (!err) call.filled(call.answer.size);
  return err;
}

int handle_mknod(Call& call) {
  TAKE(fuse_mknod_in, in);
  TAKE_COMPONENT(name);
  call.request.name = name;
  call.request.mode = in->mode;
  call.request.device = decode_device(in->rdev);
  call.request.caller.umask = in->umask;
  return entry_reply(call, Op::mknod, call.request.node);
}

int handle_mkdir(Call& call) {
  TAKE(fuse_mkdir_in, in);
  TAKE_COMPONENT(name);
  call.request.name = name;
  call.request.mode = in->mode;
  call.request.caller.umask = in->umask;
  return entry_reply(call, Op::mkdir, call.request.node);
}

int handle_symlink(Call& call) {
  TAKE_COMPONENT(name);
  TAKE_NAME(target);
  call.request.name = name;
  call.request.name2 = target;
  return entry_reply(call, Op::symlink, call.request.node);
}

int handle_link(Call& call) {
  TAKE(fuse_link_in, in);
  TAKE_COMPONENT(name);
  call.request.name = name;
  call.request.node2 = call.request.node;  // the header names the directory
  call.request.node = call.connection.node_in(in->oldnodeid);
  return entry_reply(call, Op::link, call.request.node2);
}

int handle_unlink(Call& call) {
  TAKE_COMPONENT(name);
  call.request.name = name;
  return call.dispatch(Op::unlink);
}

int handle_rmdir(Call& call) {
  TAKE_COMPONENT(name);
  call.request.name = name;
  return call.dispatch(Op::rmdir);
}

int rename_names(Call& call, uint64_t new_dir, uint32_t flags) {
  TAKE_COMPONENT(name);
  TAKE_COMPONENT(new_name);
  call.request.name = name;
  call.request.name2 = new_name;
  call.request.node2 = call.connection.node_in(new_dir);
  call.request.flags = flags;
  // The kernel's entries move along, and are believed for as long as before.
  Instance& instance = call.connection.instance;
  call.dispatcher.view().name_told(call.request.node, name, instance.entry_timeout);
  call.dispatcher.view().name_told(call.request.node2, new_name, instance.entry_timeout);
  return call.dispatch(Op::rename);
}

int handle_rename(Call& call) {
  TAKE(fuse_rename_in, in);
  return rename_names(call, in->newdir, 0);
}

int handle_rename2(Call& call) {
  TAKE(fuse_rename2_in, in);
  return rename_names(call, in->newdir, in->flags);
}

int create_reply(Call& call, Op op) {
  TAKE(fuse_create_in, in);
  // A file made without a name has "/" for one.
  const char* name = op == Op::tmpfile ? call.take_name() : call.take_component();
  if (!name) return -EINVAL;
  call.request.name = name;
  call.request.flags = in->flags;
  call.request.mode = in->mode;
  call.request.caller.umask = in->umask;
  call.request.kill_priv = in->open_flags & FUSE_OPEN_KILL_SUIDGID;
  if (int err = call.dispatch(op)) return err;
  call.put_entry(call.request.node, op == Op::tmpfile ? "" : name);
  call.put_open_file(in->flags);
  return 0;
}
int handle_create(Call& call) {
  return create_reply(call, Op::create);
}
int handle_tmpfile(Call& call) {
  return create_reply(call, Op::tmpfile);
}

int handle_open(Call& call) {
  TAKE(fuse_open_in, in);
  call.request.flags = in->flags;
  call.request.kill_priv = in->open_flags & FUSE_OPEN_KILL_SUIDGID;
  int err = call.dispatch(Op::open);
  if (!err) call.put_open_file(in->flags);
  return err;
}

int handle_opendir(Call& call) {
  TAKE(fuse_open_in, in);
  call.request.flags = in->flags;
  int err = call.dispatch(Op::opendir);
  // Not FOPEN_CACHE_DIR: nested reads of one directory then miss entries (Linux 6.18; CPython's test_glob).
  if (!err) call.put_open(0);
  return err;
}

int handle_read(Call& call) {
  TAKE(fuse_read_in, in);
  call.request.file = in->fh;
  call.request.offset = in->offset;
  call.answer.buffer = call.payload(in->size);
  // Set for direct I/O only (fuse_send_read, fs/fuse/file.c), which leaves nothing in the page cache.
  call.request.past_cache = in->read_flags & FUSE_READ_LOCKOWNER;
  if (!call.request.past_cache) call.dispatcher.view().pages_told(call.request.node);
  int err = call.dispatch(Op::read);
  if (!err) call.filled(call.answer.size);
  return err;
}

int handle_write(Call& call) {
  TAKE(fuse_write_in, in);
  call.request.file = in->fh;
  call.request.offset = in->offset;
  call.request.data = call.take_bytes(in->size);
  if (call.request.data.size() != in->size) return -EINVAL;
  // Pages written by the kernel on its own account (mmap) go where they belong, O_APPEND or not.
  call.request.flags = in->write_flags & FUSE_WRITE_CACHE ? 0 : in->flags & O_APPEND;
  call.request.kill_priv = in->write_flags & FUSE_WRITE_KILL_SUIDGID;
  const bool cached = !(in->write_flags & FUSE_WRITE_LOCKOWNER);  // set for direct I/O only (fs/fuse/file.c)
  call.request.past_cache = !cached;
  if (cached)
    call.dispatcher.view().pages_told(call.request.node);  // they stay in the page cache
  else
    call.dispatcher.writes_uncached(call.connection.instance, call.request);
  if (int err = call.dispatch(Op::write)) return err;
  call.dispatcher.wrote(call.connection.instance, call.request, call.answer, cached);
  // Not behind others: an append must not be done again, as it would after a death between here and its
  // reply.
  if (!cached && !(call.request.flags & O_APPEND)) call.drop_pages(call.answer.end - call.answer.value);
  call.put<fuse_write_out>().size = static_cast<uint32_t>(call.answer.value);
  return 0;
}

int handle_flush(Call& call) {
  TAKE(fuse_flush_in, in);
  call.request.file = in->fh;
  call.request.lock_owner = {call.connection.instance.id, in->lock_owner, LockKind::kPosix};
  return call.dispatch(Op::flush);
}

int handle_release(Call& call) {
  TAKE(fuse_release_in, in);
  call.request.file = in->fh;
  if (in->release_flags & FUSE_RELEASE_FLOCK_UNLOCK)
    call.request.lock_owner = {call.connection.instance.id, in->lock_owner, LockKind::kFlock};
  return call.dispatch(Op::release);
}

int handle_releasedir(Call& call) {
  TAKE(fuse_release_in, in);
  call.request.file = in->fh;
  return call.dispatch(Op::releasedir);
}

int sync_file(Call& call, Op op) {
  TAKE(fuse_fsync_in, in);
  call.request.file = in->fh;
  call.request.flags = in->fsync_flags & FUSE_FSYNC_FDATASYNC;
  return call.dispatch(op);
}
int handle_fsync(Call& call) {
  return sync_file(call, Op::fsync);
}
int handle_fsyncdir(Call& call) {
  return sync_file(call, Op::fsyncdir);
}

int handle_setxattr(Call& call) {
  TAKE(fuse_setxattr_in, in);
  TAKE_NAME(name);
  call.request.name = name;
  call.request.data = call.take_bytes(in->size);
  if (call.request.data.size() != in->size) return -EINVAL;
  call.request.flags = in->flags;
  call.request.kill_priv = in->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID;
  return call.dispatch(Op::setxattr);
}

// Size 0 asks how large the value is.
int xattr_reply(Call& call, Op op, uint32_t size) {
  if (size) call.answer.buffer = call.payload(size);
  if (int err = call.dispatch(op)) return err;
  if (size)
    call.filled(call.answer.size);
  else
    call.put<fuse_getxattr_out>().size = static_cast<uint32_t>(call.answer.value);
  return 0;
}

int handle_getxattr(Call& call) {
  TAKE(fuse_getxattr_in, in);
  TAKE_NAME(name);
  call.request.name = name;
  // Access control lists the kernel keeps until it is told or asks for attributes again, whatever the
  // timeout.
  if (std::string_view(name).starts_with("system.posix_acl_"))
    call.dispatcher.view().attributes_told(call.request.node, KernelView::kForever);
  return xattr_reply(call, Op::getxattr, in->size);
}

int handle_listxattr(Call& call) {
  TAKE(fuse_getxattr_in, in);
  return xattr_reply(call, Op::listxattr, in->size);
}

int handle_removexattr(Call& call) {
  TAKE_NAME(name);
  call.request.name = name;
  return call.dispatch(Op::removexattr);
}

int handle_statfs(Call& call) {
  if (int err = call.dispatch(Op::statfs)) return err;
  const struct statvfs& st = call.answer.statfs;
  auto& out = call.put<fuse_statfs_out>().st;
  out.blocks = st.f_blocks;
  out.bfree = st.f_bfree;
  out.bavail = st.f_bavail;
  out.files = st.f_files;
  out.ffree = st.f_ffree;
  out.bsize = static_cast<uint32_t>(st.f_bsize);
  out.namelen = static_cast<uint32_t>(st.f_namemax);
  out.frsize = static_cast<uint32_t>(st.f_frsize);
  return 0;
}

int handle_syncfs(Call& call) {
  return call.dispatch(Op::syncfs);
}

int take_lock(Call& call) {
  TAKE(fuse_lk_in, in);
  LockKind kind = in->lk_flags & FUSE_LK_FLOCK ? LockKind::kFlock : LockKind::kPosix;
  call.request.file = in->fh;
  call.request.lock_owner = {call.connection.instance.id, in->owner, kind};
  call.request.lock = {in->lk.start, in->lk.end, static_cast<int>(in->lk.type),
                       static_cast<pid_t>(in->lk.pid)};
  if (in->lk.type != F_RDLCK && in->lk.type != F_WRLCK && in->lk.type != F_UNLCK) return -EINVAL;
  return in->lk.start <= in->lk.end ? 0 : -EINVAL;
}

int handle_getlk(Call& call) {
  if (int err = take_lock(call)) return err;
  if (int err = call.dispatch(Op::getlk)) return err;
  auto& out = call.put<fuse_lk_out>().lk;
  out = {call.answer.lock.start, call.answer.lock.end, static_cast<uint32_t>(call.answer.lock.type),
         static_cast<uint32_t>(call.answer.lock.pid)};
  return 0;
}

int set_lock(Call& call, bool wait) {
  if (int err = take_lock(call)) return err;
  call.in_order();
  uint64_t identity = call.request.identity;
  call.request.wait = wait;
  if (wait && !call.connection.park(identity, call.queue, call.in.unique)) return -EINTR;
  int result = call.dispatch(Op::setlk);
  if (result != LockTable::kParked) {
    if (wait) call.connection.unpark(identity);
  } else if (call.connection.interrupted(identity)) {
    call.dispatcher.cancel_lock(call.connection.instance.id, identity);
  }
  return result;
}
int handle_setlk(Call& call) {
  return set_lock(call, false);
}
int handle_setlkw(Call& call) {
  return set_lock(call, true);
}

// Only lock waits are ended by it; everything else is about to be answered.
int handle_interrupt(Call& call) {
  call.no_reply();
  TAKE(fuse_interrupt_in, in);
  uint64_t target = in->unique & ~kFuseUniqueResend;
  call.connection.interrupt(target);
  call.dispatcher.cancel_lock(call.connection.instance.id, target);
  return 0;
}

int handle_fallocate(Call& call) {
  TAKE(fuse_fallocate_in, in);
  call.request.file = in->fh;
  call.request.offset = in->offset;
  call.request.size = in->length;
  call.request.flags = in->mode;
  call.request.kill_priv =
      call.request.caller.uid != 0;  // the kernel has no flag for this: it leaves it to us
  call.dispatcher.view().size_grown(call.request.node, in->offset + in->length);
  return call.dispatch(Op::fallocate);
}

int handle_lseek(Call& call) {
  TAKE(fuse_lseek_in, in);
  call.request.file = in->fh;
  call.request.offset = in->offset;
  call.request.flags = in->whence;
  if (int err = call.dispatch(Op::lseek)) return err;
  call.put<fuse_lseek_out>().offset = call.answer.value;
  return 0;
}

int handle_copy_file_range(Call& call) {
  TAKE(fuse_copy_file_range_in, in);
  call.request.file = in->fh_in;
  call.request.offset = in->off_in;
  call.request.node2 = call.connection.node_in(in->nodeid_out);
  call.request.file2 = in->fh_out;
  call.request.offset2 = in->off_out;
  call.request.size = std::min<uint64_t>(in->len, UINT32_MAX & ~4095u);  // the reply's size has 32 bits
  if (in->flags) return -EINVAL;
  call.request.kill_priv = call.request.caller.uid != 0;
  if (int err = call.dispatch(Op::copy_file_range)) return err;
  call.dispatcher.view().size_grown(call.request.node2, in->off_out + call.answer.value);
  call.put<fuse_write_out>().size = static_cast<uint32_t>(call.answer.value);
  return 0;
}

// Packs fuse_dirent or fuse_direntplus records into the reply.
class Packer final : public EntrySink {
 public:
  Packer(Call& call, size_t room, bool plus) : call_(call), room_(call.payload(room).size()), plus_(plus) {}
  bool fits(size_t name_size) const override { return used_ + record_size(name_size) <= room_; }
  void add(const DirEntry& from, const EntryReply* found) override {
    std::byte* at = call_.payload(room_).data();
    std::memset(at, 0, record_size(from.name.size()));
    fuse_dirent* entry = reinterpret_cast<fuse_dirent*>(at);
    if (plus_) {
      if (found) {
        call_.answer.entry = *found;
        call_.put_entry(call_.request.node, from.name);
        call_.filled(static_cast<size_t>(-static_cast<ssize_t>(sizeof(fuse_entry_out))));
      }
      entry = &reinterpret_cast<fuse_direntplus*>(at)->dirent;
    }
    entry->ino = from.ino;
    entry->off = from.next;
    entry->namelen = static_cast<uint32_t>(from.name.size());
    entry->type = from.type;
    std::memcpy(entry->name, from.name.data(), from.name.size());
    used_ += record_size(from.name.size());
    call_.filled(record_size(from.name.size()));
  }

 private:
  size_t record_size(size_t name_size) const {
    size_t header = plus_ ? offsetof(fuse_direntplus, dirent.name) : offsetof(fuse_dirent, name);
    return FUSE_DIRENT_ALIGN(header + name_size);
  }
  Call& call_;
  size_t room_;
  size_t used_ = 0;
  bool plus_;
};

int read_directory(Call& call, Op op) {
  TAKE(fuse_read_in, in);
  call.request.file = in->fh;
  call.request.offset = in->offset;
  Packer packer(call, in->size, op == Op::readdirplus);
  call.answer.sink = &packer;
  return call.dispatch(op);
}
int handle_readdir(Call& call) {
  return read_directory(call, Op::readdir);
}
int handle_readdirplus(Call& call) {
  return read_directory(call, Op::readdirplus);
}

int handle_destroy(Call&) {
  return 0;
}

constexpr size_t kOpcodes = 64;
constexpr auto make_table() {
  std::array<Opcode, kOpcodes> t{};
  t[FUSE_LOOKUP] = {handle_lookup, false};
  t[FUSE_FORGET] = {handle_forget, false};
  t[FUSE_GETATTR] = {handle_getattr, false};
  t[FUSE_SETATTR] = {handle_setattr, false};
  t[FUSE_READLINK] = {handle_readlink, false};
  t[FUSE_SYMLINK] = {handle_symlink, true};
  t[FUSE_MKNOD] = {handle_mknod, true};
  t[FUSE_MKDIR] = {handle_mkdir, true};
  t[FUSE_UNLINK] = {handle_unlink, true};
  t[FUSE_RMDIR] = {handle_rmdir, true};
  t[FUSE_RENAME] = {handle_rename, true};
  t[FUSE_LINK] = {handle_link, true};
  t[FUSE_OPEN] = {handle_open, true};
  t[FUSE_READ] = {handle_read, false};
  t[FUSE_WRITE] = {handle_write, true};
  t[FUSE_STATFS] = {handle_statfs, false};
  t[FUSE_RELEASE] = {handle_release, false};
  t[FUSE_FSYNC] = {handle_fsync, false};
  t[FUSE_SETXATTR] = {handle_setxattr, true};
  t[FUSE_GETXATTR] = {handle_getxattr, false};
  t[FUSE_LISTXATTR] = {handle_listxattr, false};
  t[FUSE_REMOVEXATTR] = {handle_removexattr, true};
  t[FUSE_FLUSH] = {handle_flush, false};
  t[FUSE_INIT] = {handle_init, false};
  t[FUSE_OPENDIR] = {handle_opendir, true};
  t[FUSE_READDIR] = {handle_readdir, false};
  t[FUSE_RELEASEDIR] = {handle_releasedir, false};
  t[FUSE_FSYNCDIR] = {handle_fsyncdir, false};
  t[FUSE_GETLK] = {handle_getlk, false};
  t[FUSE_SETLK] = {handle_setlk, false};
  t[FUSE_SETLKW] = {handle_setlkw, false};
  t[FUSE_CREATE] = {handle_create, true};
  t[FUSE_INTERRUPT] = {handle_interrupt, false};
  t[FUSE_DESTROY] = {handle_destroy, false};
  t[FUSE_BATCH_FORGET] = {handle_batch_forget, false};
  t[FUSE_FALLOCATE] = {handle_fallocate, false};
  t[FUSE_READDIRPLUS] = {handle_readdirplus, false};
  t[FUSE_RENAME2] = {handle_rename2, true};
  t[FUSE_LSEEK] = {handle_lseek, false};
  t[FUSE_COPY_FILE_RANGE] = {handle_copy_file_range, false};
  t[FUSE_SYNCFS] = {handle_syncfs, false};
  t[FUSE_TMPFILE] = {handle_tmpfile, true};
  t[kFuseStatx] = {handle_statx, false};
  return t;
}
constexpr auto kTable = make_table();

}  // namespace

const Opcode* find_opcode(uint32_t opcode) {
  return opcode < kOpcodes && kTable[opcode].handle ? &kTable[opcode] : nullptr;
}

}  // namespace poly
