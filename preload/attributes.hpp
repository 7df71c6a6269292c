// What the library does itself with attributes: the functions behind hooks_attributes.cpp and
// hooks_xattrs.cpp. Results as calls.hpp has them. A Target is either a path or, with an empty path, a
// descriptor.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>

#include "fastpath/set_attr_mask.hpp"
#include "preload/calls.hpp"

namespace poly::attributes {

// What a call is about: a path (followed or not at its end) or an open file of the library's. After a
// declined call on an open file it has been promoted.
struct Target {
  // `directory`, `path` and AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH of `flags`, as the *at calls have them.
  static Target at(int directory, const char* path, int flags);
  static Target of(int fd);

  Place place;
  FileRef file;
  explicit operator bool() const { return place.mount != nullptr || file; }
  const Mount& mount() const { return file ? *file->mount : *place.mount; }
};

[[nodiscard]] long status(const Target&, struct stat* out);
[[nodiscard]] long extended_status(const Target&, unsigned mask, struct statx* out);
// `effective`: AT_EACCESS.
[[nodiscard]] long access(const Target&, int mode, bool effective);

struct Change {
  uint32_t mask = 0;  // kSet...
  uint32_t mode = 0, uid = 0, gid = 0;
  uint64_t size = 0;
  timespec atime{}, mtime{};
  // utimensat(2)'s pair, or null for now. False: nothing to do.
  [[nodiscard]] bool set_times(const timespec* times);
};
[[nodiscard]] long change(const Target&, const Change&);

[[nodiscard]] long set_xattr(const Target&, const char* name, const void* value, size_t size, int flags);
[[nodiscard]] long get_xattr(const Target&, const char* name, void* value, size_t size);
[[nodiscard]] long list_xattrs(const Target&, char* list, size_t size);
[[nodiscard]] long remove_xattr(const Target&, const char* name);

// Descriptor of the mount's root, for what the kernel answers alike for every file of the mount (fstatfs).
[[nodiscard]] long filesystem(const Target&);

}  // namespace poly::attributes
