// The functions that this library stands in front of. poly::real::NAME(...) calls the next definition of NAME
// in the process's search order (libc's, or that of another preloaded library or sanitizer), found with
// dlsym(3) when it is first needed.
//
// POLY_REAL names each once, in the groups of the hooks_*.cpp that define them. At the end: what of libc
// touches files and is not in the list, with the reason.
#pragma once

#include <aio.h>
#include <dirent.h>
#include <execinfo.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>
#include <utmp.h>
#include <wordexp.h>

#include <atomic>

#define POLY_HOOK extern "C" __attribute__((visibility("default")))

extern "C" {
// Exported by libc without a declaration in its headers.
int capset(void* header, const void* data) noexcept;
int pivot_root(const char* new_root, const char* put_old) noexcept;
[[noreturn]] void __chk_fail() noexcept;
int __vdprintf_chk(int fd, int flag, const char* format, va_list list);
// Not libc's: libaio's and liburing's way to hand descriptors to the kernel.
int io_setup(int events, void** context);
int io_queue_init(int events, void** context);
int io_uring_setup(unsigned entries, void* parameters);
int io_uring_queue_init(unsigned entries, void* ring, unsigned flags);
int io_uring_queue_init_params(unsigned entries, void* ring, void* parameters);
int io_uring_queue_init_mem(unsigned entries, void* ring, void* parameters, void* memory, size_t size);
}

// clang-format off
#define POLY_REAL(X)                                                                                         \
  /* hooks_descriptors.cpp */                                                                                \
  X(open) X(openat) X(close) X(close_range) X(closefrom) X(dup) X(dup2) X(dup3) X(fcntl) X(flock) X(lockf)   \
  X(ioctl)                                                                                                   \
  /* hooks_files.cpp */                                                                                      \
  X(read) X(write) X(pread) X(pwrite) X(readv) X(writev) X(preadv) X(pwritev) X(preadv2) X(pwritev2)         \
  X(lseek) X(truncate) X(ftruncate) X(fsync) X(fdatasync) X(sync_file_range) X(fallocate)                    \
  X(posix_fallocate) X(posix_fadvise) X(readahead) X(copy_file_range)                                        \
  /* hooks_attributes.cpp */                                                                                 \
  X(stat) X(lstat) X(fstat) X(fstatat) X(statx) X(access) X(faccessat) X(euidaccess) X(chmod) X(fchmod)      \
  X(fchmodat) X(chown) X(lchown) X(fchown) X(fchownat) X(utime) X(utimes) X(lutimes) X(futimes)              \
  X(futimesat) X(futimens) X(utimensat) X(statfs) X(fstatfs) X(statvfs) X(fstatvfs)                          \
  /* hooks_xattrs.cpp */                                                                                     \
  X(setxattr) X(lsetxattr) X(fsetxattr) X(getxattr) X(lgetxattr) X(fgetxattr) X(listxattr) X(llistxattr)     \
  X(flistxattr) X(removexattr) X(lremovexattr) X(fremovexattr)                                               \
  /* hooks_names.cpp */                                                                                      \
  X(mkdir) X(mkdirat) X(mknod) X(mknodat) X(mkfifo) X(mkfifoat) X(unlink) X(unlinkat) X(rmdir) X(remove)     \
  X(rename) X(renameat) X(renameat2) X(link) X(linkat) X(symlink) X(symlinkat) X(readlink) X(readlinkat)     \
  /* hooks_directories.cpp */                                                                                \
  X(opendir) X(fdopendir) X(readdir) X(readdir_r) X(closedir) X(rewinddir) X(seekdir) X(telldir) X(dirfd)     \
  /* hooks_escapes.cpp: an open file leaves the library's hands */                                           \
  X(mmap) X(sendfile) X(splice) X(tee) X(vmsplice) X(sendmsg) X(sendmmsg) X(epoll_ctl) X(fanotify_mark)      \
  X(fdopen) X(vdprintf) X(__vdprintf_chk) X(fopen) X(freopen) X(aio_read) X(aio_write) X(aio_fsync) X(lio_listio)   \
  X(syncfs) X(fpathconf) X(name_to_handle_at) X(open_by_handle_at) X(backtrace_symbols_fd) X(login_tty)      \
  X(io_setup) X(io_queue_init) X(io_uring_setup) X(io_uring_queue_init) X(io_uring_queue_init_params)        \
  X(io_uring_queue_init_mem) X(syscall)                                                                      \
  /* hooks_process.cpp */                                                                                    \
  X(fork) X(vfork) X(_Fork) X(clone) X(execve) X(execvpe) X(fexecve) X(execveat) X(posix_spawn) X(posix_spawnp)          \
  X(system) X(popen) X(wordexp) X(chdir) X(fchdir) X(chroot) X(unshare) X(setns) X(pivot_root) X(mount)      \
  X(umount) X(umount2) X(umask) X(setrlimit) X(prlimit)                                                      \
  /* hooks_identity.cpp */                                                                                   \
  X(setuid) X(seteuid) X(setreuid) X(setresuid) X(setgid) X(setegid) X(setregid) X(setresgid) X(setgroups)   \
  X(initgroups) X(setfsuid) X(setfsgid) X(capset)

// Not hooked, because the kernel's answer is right without help:
//   scandir, fts, ftw, glob, getdents, getcwd, realpath, mkstemp and its kind, dlopen, shm_open, tmpfile, ftok,
//   pathconf: by path or on the kernel's directories, through FUSE; they never see one of the library's
//   descriptors or streams.
//   poll, select: a placeholder is a regular file that is always ready, like the file it stands for.
//   isatty, tcgetattr, ttyname: ENOTTY, as of the file. isfdtype: a regular file. signalfd, timerfd: EINVAL.
//   fchdir: ENOTDIR, as of a regular file. Only regular files get the library's descriptors.
//   daemon, forkpty: fork inside libc, whose handlers run (pthread_atfork). acct, swapon, quotactl: by path.
//   sync: what the library has written is in the service already.
//   pidfd_getfd, process_vm_*: of another process; it gets a placeholder that fails, or memory.
//   stdio on streams: opened by libc itself through FUSE, or made by fdopen, which is hooked.
//   __close_nocancel and other GLIBC_PRIVATE names: libc's own.
// clang-format on

namespace poly::real {

// Aborts nothing: what the process does not have (libaio's names) answers ENOSYS.
void* find(const char* name);

#define X(function)                                                        \
  inline constinit struct Real_##function {                                \
    std::atomic<void*> address{nullptr};                                   \
    template <typename... Arguments>                                       \
    auto operator()(Arguments... arguments) {                              \
      void* found = address.load(std::memory_order_relaxed);               \
      if (found == nullptr) [[unlikely]] {                                 \
        found = find(#function);                                           \
        address.store(found, std::memory_order_relaxed);                   \
      }                                                                    \
      return reinterpret_cast<decltype(&::function)>(found)(arguments...); \
    }                                                                      \
  } function;
POLY_REAL(X)
#undef X

}  // namespace poly::real
