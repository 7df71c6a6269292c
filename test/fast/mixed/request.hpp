// Request and Result: one operation on files and what came of it, as the driver and its workers exchange them
// over a socket. Plain data. The same request, performed in the same state of two trees, must have the same
// result (compare.hpp says what "the same" is).
#pragma once

#include <cstdint>

namespace mixed {

// name, weight among random requests
// clang-format off
#define MIXED_OPERATIONS(X)                                                                              \
  X(open, 160) X(close, 15) X(read, 60) X(write, 90) X(pread, 50) X(pwrite, 70) X(readv, 20)             \
  X(writev, 20) X(seek, 30) X(ftruncate, 20) X(truncate, 20) X(fallocate, 10) X(fstat, 60) X(stat, 80)   \
  X(lstat, 40) X(access, 25) X(chmod, 25) X(fchmod, 12) X(chown, 12) X(utimes, 15) X(futimes, 10)        \
  X(mkdir, 40) X(rmdir, 5) X(unlink, 25) X(rename, 40) X(exchange, 8) X(noreplace, 8) X(link, 20)        \
  X(symlink, 15) X(readlink, 15) X(list, 40) X(content, 60) X(sync, 8) X(set_xattr, 10) X(get_xattr, 10) \
  X(list_xattr, 6) X(remove_xattr, 5) X(copy_range, 8) X(send, 6) X(map_read, 6) X(map_write, 6)         \
  X(duplicate, 12) X(set_append, 8) X(get_flags, 8) X(lock_file, 8) X(lock_range, 8) X(child_write, 1)   \
  X(program_write, 1)
// clang-format on

enum class Operation : uint32_t {
#define X(name, weight) name,
  MIXED_OPERATIONS(X)
#undef X
      kCount
};

inline constexpr int kSlots = 6;         // open files of a worker, by number
inline constexpr int kHere = -1;         // `base`: the working directory
inline constexpr int kAbsolute = -2;     // `base`: the path is made absolute
inline constexpr uint32_t kPath = 96;    // bytes, the final NUL included
inline constexpr uint32_t kText = 1024;  // of a result
inline constexpr int64_t kLargest = 1 << 20;

struct Request {
  Operation operation;
  int32_t slot, slot2;
  int32_t base, base2;  // a slot, kHere or kAbsolute
  int32_t flags;
  uint32_t mode;
  uint32_t seed;  // of what is written
  int64_t offset, size;
  char path[kPath], path2[kPath];
};

struct Attributes {
  uint32_t present;
  uint32_t mode, uid, gid;
  uint64_t inode, nlink;
  int64_t size;
  int64_t modified_ns, changed_ns;
};

struct Result {
  int64_t value;  // or -errno
  uint64_t hash;  // of data
  Attributes attributes;
  char text[kText];
};

const char* name_of(Operation operation);

}  // namespace mixed
