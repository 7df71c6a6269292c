// Extended attributes: by path, by path without following, by descriptor.
#include "preload/answer.hpp"
#include "preload/attributes.hpp"
#include "preload/real.hpp"

using namespace poly;
using attributes::Target;

namespace {

Target followed(const char* path) {
  return Target::at(AT_FDCWD, path, 0);
}

Target itself(const char* path) {
  return Target::at(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW);
}

}  // namespace

POLY_HOOK int setxattr(const char* path, const char* name, const void* value, size_t size,
                       int flags) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path, attributes::set_xattr(followed(path), name, value, size, flags));
  return real::setxattr(path, name, value, size, flags);
}

POLY_HOOK int lsetxattr(const char* path, const char* name, const void* value, size_t size,
                        int flags) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path, attributes::set_xattr(itself(path), name, value, size, flags));
  return real::lsetxattr(path, name, value, size, flags);
}

POLY_HOOK int fsetxattr(int fd, const char* name, const void* value, size_t size, int flags) noexcept {
  POLY_SERVE_FD(int, fd, attributes::set_xattr(Target::of(fd), name, value, size, flags));
  return real::fsetxattr(fd, name, value, size, flags);
}

POLY_HOOK ssize_t getxattr(const char* path, const char* name, void* value, size_t size) noexcept {
  POLY_SERVE_PATH(ssize_t, AT_FDCWD, path, attributes::get_xattr(followed(path), name, value, size));
  return real::getxattr(path, name, value, size);
}

POLY_HOOK ssize_t lgetxattr(const char* path, const char* name, void* value, size_t size) noexcept {
  POLY_SERVE_PATH(ssize_t, AT_FDCWD, path, attributes::get_xattr(itself(path), name, value, size));
  return real::lgetxattr(path, name, value, size);
}

POLY_HOOK ssize_t fgetxattr(int fd, const char* name, void* value, size_t size) noexcept {
  POLY_SERVE_FD(ssize_t, fd, attributes::get_xattr(Target::of(fd), name, value, size));
  return real::fgetxattr(fd, name, value, size);
}

POLY_HOOK ssize_t listxattr(const char* path, char* list, size_t size) noexcept {
  POLY_SERVE_PATH(ssize_t, AT_FDCWD, path, attributes::list_xattrs(followed(path), list, size));
  return real::listxattr(path, list, size);
}

POLY_HOOK ssize_t llistxattr(const char* path, char* list, size_t size) noexcept {
  POLY_SERVE_PATH(ssize_t, AT_FDCWD, path, attributes::list_xattrs(itself(path), list, size));
  return real::llistxattr(path, list, size);
}

POLY_HOOK ssize_t flistxattr(int fd, char* list, size_t size) noexcept {
  POLY_SERVE_FD(ssize_t, fd, attributes::list_xattrs(Target::of(fd), list, size));
  return real::flistxattr(fd, list, size);
}

POLY_HOOK int removexattr(const char* path, const char* name) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path, attributes::remove_xattr(followed(path), name));
  return real::removexattr(path, name);
}

POLY_HOOK int lremovexattr(const char* path, const char* name) noexcept {
  POLY_SERVE_PATH(int, AT_FDCWD, path, attributes::remove_xattr(itself(path), name));
  return real::lremovexattr(path, name);
}

POLY_HOOK int fremovexattr(int fd, const char* name) noexcept {
  POLY_SERVE_FD(int, fd, attributes::remove_xattr(Target::of(fd), name));
  return real::fremovexattr(fd, name);
}
