// libcephfs, loaded at run time: the project builds and runs without Ceph, and says what to install when it
// is asked for it.
//
// One list, POLY_CEPH_CALLS, names every function used, with its C type as in <cephfs/libcephfs.h> (16.2,
// Debian 12; no header of Ceph's is needed to build, so nothing but the layouts below is checked). Thread
// safety: load() may be called from any thread; what it returns is constant and stays for as long as the
// process lives, for the library's own threads do.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <string>

struct ceph_mount_info;
struct ceph_dir_result;

namespace poly::ceph {

struct Inode;     // the library's
struct Fh;        // an open file of the library's
struct UserPerm;  // who asks: uid, gid, groups

struct InodeNumber {
  uint64_t value;
};
// Which inode, and of which snapshot: kNoSnapshot is the living one, kSnapshotDirectory a directory's
// ".snap".
struct VersionedInode {
  InodeNumber ino;
  uint64_t snapshot;
};
inline constexpr uint64_t kNoSnapshot = static_cast<uint64_t>(-2);         // CEPH_NOSNAP
inline constexpr uint64_t kSnapshotDirectory = static_cast<uint64_t>(-1);  // CEPH_SNAPDIR
static_assert(sizeof(VersionedInode) == 16);

struct Statx {
  uint32_t mask;
  uint32_t blksize;
  uint32_t nlink;
  uint32_t uid;
  uint32_t gid;
  uint16_t mode;
  uint64_t ino;
  uint64_t size;
  uint64_t blocks;
  dev_t dev;  // the snapshot, by number
  dev_t rdev;
  timespec atime;
  timespec ctime;
  timespec mtime;
  timespec btime;
  uint64_t version;
};
static_assert(sizeof(Statx) == 136 && offsetof(Statx, ino) == 24 && offsetof(Statx, dev) == 48 &&
              offsetof(Statx, atime) == 64 && offsetof(Statx, version) == 128);
inline constexpr unsigned kStatxAccess = 0xf;    // CEPH_STATX_MODE | _NLINK | _UID | _GID
inline constexpr unsigned kStatxWanted = 0xfff;  // CEPH_STATX_BASIC_STATS | CEPH_STATX_BTIME

enum SetMask : int {  // CEPH_SETATTR_*
  kMode = 1 << 0,
  kUid = 1 << 1,
  kGid = 1 << 2,
  kMtime = 1 << 3,
  kAtime = 1 << 4,
  kSize = 1 << 5,
  kCtime = 1 << 6,
};

inline constexpr unsigned kReclaimReset = 1;  // CEPH_RECLAIM_RESET

struct Callbacks {  // struct ceph_client_callback_args
  void* handle;
  void (*inode_changed)(void* handle, VersionedInode ino, int64_t offset, int64_t length);
  void (*entry_changed)(void* handle, VersionedInode directory, VersionedInode ino, const char* name,
                        size_t length);
  void (*interrupted)(void* handle, void* data);
  int (*remount)(void* handle);
  mode_t (*umask)(void* handle);
  void (*release_inode)(void* handle, VersionedInode ino);
};
static_assert(sizeof(Callbacks) == 56);

using Mount = ceph_mount_info*;
using Perms = const UserPerm*;

// X(name, result, parameters)
#define POLY_CEPH_CALLS(X)                                                                                  \
  X(version, const char*, (int* major, int* minor, int* patch))                                             \
  X(userperm_new, UserPerm*, (uid_t, gid_t, int groups, gid_t* list))                                       \
  X(userperm_destroy, void, (UserPerm*))                                                                    \
  X(create, int, (Mount*, const char* user))                                                                \
  X(conf_read_file, int, (Mount, const char* path))                                                         \
  X(conf_set, int, (Mount, const char* option, const char* value))                                          \
  X(init, int, (Mount))                                                                                     \
  X(select_filesystem, int, (Mount, const char* name))                                                      \
  X(set_uuid, void, (Mount, const char* uuid))                                                              \
  X(start_reclaim, int, (Mount, const char* uuid, unsigned flags))                                          \
  X(finish_reclaim, void, (Mount))                                                                          \
  X(mount, int, (Mount, const char* root))                                                                  \
  X(abort_conn, int, (Mount))                                                                               \
  X(unmount, int, (Mount))                                                                                  \
  X(release, int, (Mount))                                                                                  \
  X(sync_fs, int, (Mount))                                                                                  \
  X(ll_register_callbacks, void, (Mount, Callbacks*))                                                       \
  X(ll_lookup_root, int, (Mount, Inode**))                                                                  \
  X(ll_lookup_vino, int, (Mount, VersionedInode, Inode**))                                                  \
  X(ll_lookup, int, (Mount, Inode*, const char* name, Inode**, Statx*, unsigned, unsigned, Perms))          \
  X(ll_forget, int, (Mount, Inode*, int count))                                                             \
  X(ll_getattr, int, (Mount, Inode*, Statx*, unsigned want, unsigned flags, Perms))                         \
  X(ll_setattr, int, (Mount, Inode*, Statx*, int mask, Perms))                                              \
  X(ll_open, int, (Mount, Inode*, int flags, Fh**, Perms))                                                  \
  X(ll_create, int,                                                                                         \
    (Mount, Inode*, const char* name, mode_t, int flags, Inode**, Fh**, Statx*, unsigned, unsigned, Perms)) \
  X(ll_read, int, (Mount, Fh*, int64_t offset, uint64_t length, char*))                                     \
  X(ll_write, int, (Mount, Fh*, int64_t offset, uint64_t length, const char*))                              \
  X(ll_fsync, int, (Mount, Fh*, int data_only))                                                             \
  X(ll_sync_inode, int, (Mount, Inode*, int data_only))                                                     \
  X(ll_fallocate, int, (Mount, Fh*, int mode, int64_t offset, int64_t length))                              \
  X(ll_close, int, (Mount, Fh*))                                                                            \
  X(ll_getlk, int, (Mount, Fh*, struct flock*, uint64_t owner))                                             \
  X(ll_setlk, int, (Mount, Fh*, struct flock*, uint64_t owner, int sleep))                                  \
  X(ll_opendir, int, (Mount, Inode*, ceph_dir_result**, Perms))                                             \
  X(ll_releasedir, int, (Mount, ceph_dir_result*))                                                          \
  X(readdir_r, int, (Mount, ceph_dir_result*, dirent*))                                                     \
  X(seekdir, void, (Mount, ceph_dir_result*, int64_t offset))                                               \
  X(rewinddir, void, (Mount, ceph_dir_result*))                                                             \
  X(ll_mknod, int,                                                                                          \
    (Mount, Inode*, const char* name, mode_t, dev_t, Inode**, Statx*, unsigned, unsigned, Perms))           \
  X(ll_mkdir, int, (Mount, Inode*, const char* name, mode_t, Inode**, Statx*, unsigned, unsigned, Perms))   \
  X(ll_symlink, int,                                                                                        \
    (Mount, Inode*, const char* name, const char* to, Inode**, Statx*, unsigned, unsigned, Perms))          \
  X(ll_link, int, (Mount, Inode*, Inode * directory, const char* name, Perms))                              \
  X(ll_unlink, int, (Mount, Inode*, const char* name, Perms))                                               \
  X(ll_rmdir, int, (Mount, Inode*, const char* name, Perms))                                                \
  X(ll_rename, int, (Mount, Inode*, const char* name, Inode*, const char* new_name, Perms))                 \
  X(ll_readlink, int, (Mount, Inode*, char*, size_t, Perms))                                                \
  X(ll_getxattr, int, (Mount, Inode*, const char* name, void*, size_t, Perms))                              \
  X(ll_setxattr, int, (Mount, Inode*, const char* name, const void*, size_t, int flags, Perms))             \
  X(ll_listxattr, int, (Mount, Inode*, char*, size_t, size_t* size, Perms))                                 \
  X(ll_removexattr, int, (Mount, Inode*, const char* name, Perms))                                          \
  X(ll_statfs, int, (Mount, Inode*, struct statvfs*))

struct IoInfo;  // ceph_ll_io_info: what an asynchronous transfer reads or writes, and whom it tells

// X(name, result, parameters): of younger versions than 16.2, null where the library has none.
#define POLY_CEPH_YOUNGER_CALLS(X) X(ll_nonblocking_readv_writev, int64_t, (Mount, IoInfo*))

struct Library {
#define X(name, result, parameters) result(*name) parameters = nullptr;
  POLY_CEPH_CALLS(X)
  POLY_CEPH_YOUNGER_CALLS(X)
#undef X
};

// Null, and then `why` is one line that says what to install.
[[nodiscard]] const Library* load(std::string& why);

}  // namespace poly::ceph
