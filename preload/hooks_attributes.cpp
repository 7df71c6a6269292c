// stat, access, chmod, chown, utimes, truncate, statfs and their kin.
#include <sys/time.h>

#include "preload/answer.hpp"
#include "preload/attributes.hpp"
#include "preload/process.hpp"
#include "preload/real.hpp"

using namespace poly;
using attributes::Change;
using attributes::Target;

// ---- stat ----

POLY_HOOK int stat(const char* path, struct stat* out) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path, attributes::status(Target::at(AT_FDCWD, path, 0), out));
  return real::stat(path, out);
}

POLY_HOOK int lstat(const char* path, struct stat* out) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path,
                  attributes::status(Target::at(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW), out));
  return real::lstat(path, out);
}

POLY_HOOK int fstat(int fd, struct stat* out) noexcept {
  POLY_SERVE_FD(int, fd, attributes::status(Target::of(fd), out));
  return real::fstat(fd, out);
}

POLY_HOOK int fstatat(int directory, const char* path, struct stat* out, int flags) noexcept {
  constexpr int kServed = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT;
  if ((flags & ~kServed) == 0)
    POLY_SERVE_PATH(int, directory, path, attributes::status(Target::at(directory, path, flags), out));
  return real::fstatat(directory, path, out, flags);
}

POLY_HOOK int statx(int directory, const char* path, int flags, unsigned mask, struct statx* out) noexcept {
  constexpr int kSync = AT_STATX_DONT_SYNC | AT_STATX_FORCE_SYNC;
  constexpr int kServed = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | kSync;
  if ((flags & ~kServed) == 0 && (flags & kSync) != kSync)
    POLY_SERVE_PATH(int, directory, path,
                    attributes::extended_status(Target::at(directory, path, flags), mask, out));
  return real::statx(directory, path, flags, mask, out);
}

// The names of before glibc 2.33; 0 and 1 both mean the kernel's structure on 64-bit machines.
extern "C" {
int __xstat(int version, const char* path, struct stat* out) noexcept;
int __lxstat(int version, const char* path, struct stat* out) noexcept;
int __fxstat(int version, int fd, struct stat* out) noexcept;
int __fxstatat(int version, int directory, const char* path, struct stat* out, int flags) noexcept;
}

POLY_HOOK int __xstat(int version, const char* path, struct stat* out) noexcept {
  return version == 0 || version == 1 ? stat(path, out) : static_cast<int>(answer(-EINVAL));
}
POLY_HOOK int __lxstat(int version, const char* path, struct stat* out) noexcept {
  return version == 0 || version == 1 ? lstat(path, out) : static_cast<int>(answer(-EINVAL));
}
POLY_HOOK int __fxstat(int version, int fd, struct stat* out) noexcept {
  return version == 0 || version == 1 ? fstat(fd, out) : static_cast<int>(answer(-EINVAL));
}
POLY_HOOK int __fxstatat(int version, int directory, const char* path, struct stat* out, int flags) noexcept {
  return version == 0 || version == 1 ? fstatat(directory, path, out, flags)
                                      : static_cast<int>(answer(-EINVAL));
}

// ---- access ----

POLY_HOOK int access(const char* path, int mode) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path, attributes::access(Target::at(AT_FDCWD, path, 0), mode, false));
  return real::access(path, mode);
}

POLY_HOOK int faccessat(int directory, const char* path, int mode, int flags) noexcept {
  constexpr int kServed = AT_SYMLINK_NOFOLLOW | AT_EACCESS | AT_EMPTY_PATH;
  if ((flags & ~kServed) == 0)
    POLY_SERVE_PATH(int, directory, path,
                    attributes::access(Target::at(directory, path, flags), mode, (flags & AT_EACCESS) != 0));
  return real::faccessat(directory, path, mode, flags);
}

POLY_HOOK int euidaccess(const char* path, int mode) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path, attributes::access(Target::at(AT_FDCWD, path, 0), mode, true));
  return real::euidaccess(path, mode);
}

// ---- chmod, chown ----

namespace {

long change_mode(const Target& target, mode_t mode) {
  Change change;
  change.mask = kSetMode;
  change.mode = mode & 07777;
  return attributes::change(target, change);
}

long change_owner(const Target& target, uid_t uid, gid_t gid) {
  Change change;
  if (uid != static_cast<uid_t>(-1)) change.mask |= kSetUid;
  if (gid != static_cast<gid_t>(-1)) change.mask |= kSetGid;
  change.uid = uid;
  change.gid = gid;
  return attributes::change(target, change);
}

}  // namespace

POLY_HOOK int chmod(const char* path, mode_t mode) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path, change_mode(Target::at(AT_FDCWD, path, 0), mode));
  return real::chmod(path, mode);
}

POLY_HOOK int fchmod(int fd, mode_t mode) noexcept {
  POLY_SERVE_FD(int, fd, change_mode(Target::of(fd), mode));
  return real::fchmod(fd, mode);
}

// With flags libc goes its own way through /proc, which ends at the kernel.
POLY_HOOK int fchmodat(int directory, const char* path, mode_t mode, int flags) noexcept {
  if (flags == 0) POLY_SERVE_PATH(int, directory, path, change_mode(Target::at(directory, path, 0), mode));
  return real::fchmodat(directory, path, mode, flags);
}

POLY_HOOK int chown(const char* path, uid_t uid, gid_t gid) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path, change_owner(Target::at(AT_FDCWD, path, 0), uid, gid));
  return real::chown(path, uid, gid);
}

POLY_HOOK int lchown(const char* path, uid_t uid, gid_t gid) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path,
                  change_owner(Target::at(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW), uid, gid));
  return real::lchown(path, uid, gid);
}

POLY_HOOK int fchown(int fd, uid_t uid, gid_t gid) noexcept {
  POLY_SERVE_FD(int, fd, change_owner(Target::of(fd), uid, gid));
  return real::fchown(fd, uid, gid);
}

POLY_HOOK int fchownat(int directory, const char* path, uid_t uid, gid_t gid, int flags) noexcept {
  constexpr int kServed = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH;
  if ((flags & ~kServed) == 0)
    POLY_SERVE_PATH(int, directory, path, change_owner(Target::at(directory, path, flags), uid, gid));
  return real::fchownat(directory, path, uid, gid, flags);
}

// ---- times ----

namespace {

bool is_valid(const timespec& time) {
  return time.tv_nsec == UTIME_NOW || time.tv_nsec == UTIME_OMIT ||
         (time.tv_nsec >= 0 && time.tv_nsec < 1'000'000'000);
}

// utimensat(2); with nothing to set the kernel does not even look at the path.
long change_times(const Target& target, const timespec* times) {
  if (!target) return kDeclined;
  if (times != nullptr && (!is_valid(times[0]) || !is_valid(times[1]))) return -EINVAL;
  Change change;
  return change.set_times(times) ? attributes::change(target, change) : 0;
}

struct Times {
  timespec value[2];
  const timespec* get = nullptr;
  bool valid = true;
  explicit Times(const timeval* from) {
    if (from == nullptr) return;
    for (int i = 0; i < 2; ++i) {
      valid = valid && from[i].tv_usec >= 0 && from[i].tv_usec < 1'000'000;
      value[i] = {from[i].tv_sec, from[i].tv_usec * 1000};
    }
    get = value;
  }
};

long change_times(const Target& target, const timeval* from) {
  if (!target) return kDeclined;
  const Times times(from);
  return times.valid ? change_times(target, times.get) : -EINVAL;
}

}  // namespace

POLY_HOOK int utimensat(int directory, const char* path, const timespec times[2], int flags) noexcept {
  constexpr int kServed = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH;
  // A null path is the kernel's futimens, which libc refuses.
  if ((flags & ~kServed) == 0)
    POLY_SERVE_PATH(int, directory, path, change_times(Target::at(directory, path, flags), times));
  return real::utimensat(directory, path, times, flags);
}

POLY_HOOK int futimens(int fd, const timespec times[2]) noexcept {
  POLY_SERVE_FD(int, fd, change_times(Target::of(fd), times));
  return real::futimens(fd, times);
}

POLY_HOOK int utime(const char* path, const struct utimbuf* times) noexcept {
  timespec pair[2]{};
  if (times != nullptr) {
    pair[0].tv_sec = times->actime;
    pair[1].tv_sec = times->modtime;
  }
  POLY_SERVE_PATH(int, AT_FDCWD, path,
                  change_times(Target::at(AT_FDCWD, path, 0), times != nullptr ? pair : nullptr));
  return real::utime(path, times);
}

POLY_HOOK int utimes(const char* path, const timeval times[2]) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path, change_times(Target::at(AT_FDCWD, path, 0), times));
  return real::utimes(path, times);
}

POLY_HOOK int lutimes(const char* path, const timeval times[2]) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path, change_times(Target::at(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW), times));
  return real::lutimes(path, times);
}

POLY_HOOK int futimes(int fd, const timeval times[2]) noexcept {
  POLY_SERVE_FD(int, fd, change_times(Target::of(fd), times));
  return real::futimes(fd, times);
}

POLY_HOOK int futimesat(int directory, const char* path, const timeval times[2]) noexcept {
  POLY_SERVE(int,
             change_times(path == nullptr ? Target::of(directory) : Target::at(directory, path, 0), times));
  return real::futimesat(directory, path, times);
}

// ---- size ----

POLY_HOOK int truncate(const char* path, off_t size) noexcept {
  if (size >= 0 && process::file_size_limit() == RLIM_INFINITY) {
    Change change;
    change.mask = kSetSize;
    change.size = static_cast<uint64_t>(size);
    POLY_SERVE_PATH(int, AT_FDCWD, path, attributes::change(Target::at(AT_FDCWD, path, 0), change));
  }
  return real::truncate(path, size);
}

// ---- the filesystem as a whole: the kernel's answer about the mount, once the path has been found right
// ----

namespace {

template <typename Ask>
long ask_about_mount(const Target& target, Ask ask) {
  const long root = attributes::filesystem(target);
  if (root < 0) return root;
  return ask(static_cast<int>(root)) == 0 ? 0 : -errno;
}

}  // namespace

POLY_HOOK int statfs(const char* path, struct statfs* out) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path, ask_about_mount(Target::at(AT_FDCWD, path, 0), [=](int fd) {
                    return real::fstatfs(fd, out);
                  }));
  return real::statfs(path, out);
}

POLY_HOOK int fstatfs(int fd, struct statfs* out) noexcept {
  POLY_SERVE_FD(int, fd, ask_about_mount(Target::of(fd), [=](int root) { return real::fstatfs(root, out); }));
  return real::fstatfs(fd, out);
}

POLY_HOOK int statvfs(const char* path, struct statvfs* out) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path, ask_about_mount(Target::at(AT_FDCWD, path, 0), [=](int fd) {
                    return real::fstatvfs(fd, out);
                  }));
  return real::statvfs(path, out);
}

POLY_HOOK int fstatvfs(int fd, struct statvfs* out) noexcept {
  POLY_SERVE_FD(int, fd,
                ask_about_mount(Target::of(fd), [=](int root) { return real::fstatvfs(root, out); }));
  return real::fstatvfs(fd, out);
}

POLY_ALIAS(stat64, stat)
POLY_ALIAS(lstat64, lstat)
POLY_ALIAS(fstat64, fstat)
POLY_ALIAS(__fstat64, fstat)
POLY_ALIAS(fstatat64, fstatat)
POLY_ALIAS(__xstat64, __xstat)
POLY_ALIAS(__lxstat64, __lxstat)
POLY_ALIAS(__fxstat64, __fxstat)
POLY_ALIAS(__fxstatat64, __fxstatat)
POLY_ALIAS(eaccess, euidaccess)
POLY_ALIAS(truncate64, truncate)
POLY_ALIAS(statfs64, statfs)
POLY_ALIAS(__statfs, statfs)
POLY_ALIAS(fstatfs64, fstatfs)
POLY_ALIAS(statvfs64, statvfs)
POLY_ALIAS(fstatvfs64, fstatvfs)
