// Making, removing, renaming and reading names.
#include <string.h>

#include "preload/answer.hpp"
#include "preload/calls.hpp"
#include "preload/counters.hpp"
#include "preload/files.hpp"
#include "preload/paths.hpp"
#include "preload/process.hpp"
#include "preload/real.hpp"
#include "preload/sys.hpp"

using namespace poly;

namespace {

// One path, nothing else.
long remove_name(int directory, const char* path, Op op) {
  Place place;
  if (!locate_name(directory, path, place)) return kDeclined;
  Call call(place, op);
  return call ? call.run() : kDeclined;
}

long make_node(int directory, const char* path, mode_t mode, Op op) {
  Place place;
  if (!locate_name(directory, path, place)) return kDeclined;
  const int mask = process::creation_mask();
  if (mask < 0) return kDeclined;
  Call call(place, op);
  if (!call) return kDeclined;
  call->mode = mode;
  call->umask = static_cast<uint32_t>(mask);
  return call.run();
}

// Devices are the kernel's.
long make_file(int directory, const char* path, mode_t mode) {
  const mode_t type = mode & S_IFMT;
  if (type != 0 && type != S_IFREG && type != S_IFIFO && type != S_IFSOCK) return kDeclined;
  return make_node(directory, path, (type == 0 ? S_IFREG : type) | (mode & 07777), Op::mknod);
}

// Two names of one instance.
long two_names(int directory, const char* path, uint16_t walk, int directory2, const char* path2, Op op,
               uint32_t flags) {
  Place from, to;
  if (!locate(directory, path, walk, from) || from.is_root()) return kDeclined;
  if (!locate_name(directory2, path2, to) || to.mount != from.mount) {
    count(Decline::two_places);
    return kDeclined;
  }
  Call call(from, op);
  if (!call) return kDeclined;
  call->flags = flags;
  call.second(to);
  return call.run();
}

long rename_name(int directory, const char* path, int directory2, const char* path2, uint32_t flags) {
  return two_names(directory, path, 0, directory2, path2, Op::rename, flags);
}

long make_link(int directory, const char* path, int directory2, const char* path2, int flags) {
  if ((flags & ~AT_SYMLINK_FOLLOW) != 0) return kDeclined;  // AT_EMPTY_PATH
  const uint16_t walk = (flags & AT_SYMLINK_FOLLOW) != 0 ? kWalkFollow : 0;
  return two_names(directory, path, walk, directory2, path2, Op::link, 0);
}

long make_symlink(const char* target, int directory, const char* path) {
  if (is_wild(target) || target[0] == '\0') return kDeclined;
  Place place;
  if (!locate_name(directory, path, place)) return kDeclined;
  Call call(place, Op::symlink);
  return call && call.second(target) ? call.run() : kDeclined;
}

long read_link(int directory, const char* path, char* out, size_t size) {
  if (size == 0 || size > INT32_MAX || is_wild(out)) return kDeclined;
  Place place;
  if (!locate_name(directory, path, place)) return kDeclined;
  Call call(place, Op::readlink);
  if (!call) return kDeclined;
  call->size = size < kMaxPaths ? size : kMaxPaths;
  if (const long result = call.run(); result != 0) return result;
  const uint64_t length = call.answer().value;
  const size_t got = length < size ? static_cast<size_t>(length) : size;
  calls::copy(out, call.data(), got < kMaxPaths ? got : kMaxPaths);
  return static_cast<long>(got);
}

}  // namespace

POLY_HOOK int mkdir(const char* path, mode_t mode) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path, make_node(AT_FDCWD, path, mode & 07777, Op::mkdir));
  return real::mkdir(path, mode);
}

POLY_HOOK int mkdirat(int directory, const char* path, mode_t mode) noexcept {
  POLY_SERVE_PATH(int, directory, path, make_node(directory, path, mode & 07777, Op::mkdir));
  return real::mkdirat(directory, path, mode);
}

POLY_HOOK int mknod(const char* path, mode_t mode, dev_t device) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path, make_file(AT_FDCWD, path, mode));
  return real::mknod(path, mode, device);
}

POLY_HOOK int mknodat(int directory, const char* path, mode_t mode, dev_t device) noexcept {
  POLY_SERVE_PATH(int, directory, path, make_file(directory, path, mode));
  return real::mknodat(directory, path, mode, device);
}

POLY_HOOK int mkfifo(const char* path, mode_t mode) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path, make_file(AT_FDCWD, path, S_IFIFO | (mode & 07777)));
  return real::mkfifo(path, mode);
}

POLY_HOOK int mkfifoat(int directory, const char* path, mode_t mode) noexcept {
  POLY_SERVE_PATH(int, directory, path, make_file(directory, path, S_IFIFO | (mode & 07777)));
  return real::mkfifoat(directory, path, mode);
}

// The names of before glibc 2.33.
extern "C" {
int __xmknod(int version, const char* path, mode_t mode, dev_t* device) noexcept;
int __xmknodat(int version, int directory, const char* path, mode_t mode, dev_t* device) noexcept;
}
POLY_HOOK int __xmknod(int version, const char* path, mode_t mode, dev_t* device) noexcept {
  return version == 0 ? mknod(path, mode, *device) : static_cast<int>(answer(-EINVAL));
}
POLY_HOOK int __xmknodat(int version, int directory, const char* path, mode_t mode, dev_t* device) noexcept {
  return version == 0 ? mknodat(directory, path, mode, *device) : static_cast<int>(answer(-EINVAL));
}

POLY_HOOK int unlink(const char* path) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path, remove_name(AT_FDCWD, path, Op::unlink));
  return real::unlink(path);
}

POLY_HOOK int unlinkat(int directory, const char* path, int flags) noexcept {
  if ((flags & ~AT_REMOVEDIR) == 0)
    POLY_SERVE_PATH(int, directory, path,
                    remove_name(directory, path, (flags & AT_REMOVEDIR) != 0 ? Op::rmdir : Op::unlink));
  return real::unlinkat(directory, path, flags);
}

POLY_HOOK int rmdir(const char* path) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path, remove_name(AT_FDCWD, path, Op::rmdir));
  return real::rmdir(path);
}

// unlink(2), and rmdir(2) for a directory, as libc does.
POLY_HOOK int remove(const char* path) noexcept {
  const long result = remove_name(AT_FDCWD, path, Op::unlink);
  if (result == -EISDIR)
    POLY_SERVE_PATH(int, AT_FDCWD, path, remove_name(AT_FDCWD, path, Op::rmdir));
  else
    POLY_SERVE(int, result);
  return real::remove(path);
}

namespace {

// In the middle of a rename it never can (left_to_kernel, answer.hpp): only when it looks the directory up
// before.
template <typename Rename>
int rename_in_kernel(int from_directory, const char* from, int to_directory, const char* to, Rename rename) {
  const int result = rename();
  if (result == 0 || errno != ESTALE || !process::on()) return result;
  return left_to_kernel([&] {
    struct statx st;
    (void)sys::statx(from_directory, from, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &st);
    (void)sys::statx(to_directory, to, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &st);
    return rename();
  });
}

}  // namespace

POLY_HOOK int rename(const char* from, const char* to) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, from, rename_name(AT_FDCWD, from, AT_FDCWD, to, 0));
  return rename_in_kernel(AT_FDCWD, from, AT_FDCWD, to, [&] { return real::rename(from, to); });
}

POLY_HOOK int renameat(int from_directory, const char* from, int to_directory, const char* to) noexcept {
  POLY_SERVE_PATH(int, from_directory, from, rename_name(from_directory, from, to_directory, to, 0));
  return rename_in_kernel(from_directory, from, to_directory, to,
                          [&] { return real::renameat(from_directory, from, to_directory, to); });
}

POLY_HOOK int renameat2(int from_directory, const char* from, int to_directory, const char* to,
                        unsigned flags) noexcept {
  POLY_SERVE_PATH(int, from_directory, from, rename_name(from_directory, from, to_directory, to, flags));
  return rename_in_kernel(from_directory, from, to_directory, to,
                          [&] { return real::renameat2(from_directory, from, to_directory, to, flags); });
}

POLY_HOOK int link(const char* from, const char* to) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, from, make_link(AT_FDCWD, from, AT_FDCWD, to, 0));
  return left_to_kernel([&] { return real::link(from, to); });
}

POLY_HOOK int linkat(int from_directory, const char* from, int to_directory, const char* to,
                     int flags) noexcept {
  POLY_SERVE_PATH(int, from_directory, from, make_link(from_directory, from, to_directory, to, flags));
  // An open file of the library's by AT_EMPTY_PATH.
  if (from != nullptr && from[0] == '\0') POLY_SERVE_FD(int, from_directory, files::promoted(from_directory));
  return left_to_kernel([&] { return real::linkat(from_directory, from, to_directory, to, flags); });
}

POLY_HOOK int symlink(const char* target, const char* path) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path, make_symlink(target, AT_FDCWD, path));
  return real::symlink(target, path);
}

POLY_HOOK int symlinkat(const char* target, int directory, const char* path) noexcept {
  POLY_SERVE_PATH(int, directory, path, make_symlink(target, directory, path));
  return real::symlinkat(target, directory, path);
}

POLY_HOOK ssize_t readlink(const char* path, char* out, size_t size) noexcept {
  POLY_SERVE_PATH(ssize_t, AT_FDCWD, path, read_link(AT_FDCWD, path, out, size));
  return real::readlink(path, out, size);
}

POLY_HOOK ssize_t readlinkat(int directory, const char* path, char* out, size_t size) noexcept {
  POLY_SERVE_PATH(ssize_t, directory, path, read_link(directory, path, out, size));
  return real::readlinkat(directory, path, out, size);
}

// _FORTIFY_SOURCE: the buffer's size is known.
POLY_HOOK ssize_t __readlink_chk(const char* path, char* out, size_t size, size_t room) {
  if (size > room) __chk_fail();
  return readlink(path, out, size);
}

POLY_HOOK ssize_t __readlinkat_chk(int directory, const char* path, char* out, size_t size, size_t room) {
  if (size > room) __chk_fail();
  return readlinkat(directory, path, out, size);
}
