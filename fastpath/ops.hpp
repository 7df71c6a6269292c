// The operations of the dispatcher, each named once. Everything that lists operations is generated from
// POLY_OPS: the enum, the handler table, metric labels, and the names TypeScript sees (addon: version().ops).
//
// Columns: name, class, effect. Class is what the dispatcher must do around the handler:
//   kRead     no effect beyond caches and access times; a re-sent one just runs again
//   kSet      running it twice gives the same result (chmod, truncate, lock, write at an offset; an append
//   fixes its offset first) kOnce     must not run twice: its result is recorded under the request's identity
//   (core/replay.hpp)
// Effect kChanges is refused with EROFS on a read-only instance.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace poly {

enum class OpClass : uint8_t { kRead, kSet, kOnce };
enum class OpEffect : uint8_t { kKeeps, kChanges };

#define POLY_OPS(X)                  \
  X(lookup, kRead, kKeeps)           \
  X(forget, kSet, kKeeps)            \
  X(getattr, kRead, kKeeps)          \
  X(setattr, kSet, kChanges)         \
  X(readlink, kRead, kKeeps)         \
  X(mknod, kOnce, kChanges)          \
  X(mkdir, kOnce, kChanges)          \
  X(symlink, kOnce, kChanges)        \
  X(link, kOnce, kChanges)           \
  X(unlink, kOnce, kChanges)         \
  X(rmdir, kOnce, kChanges)          \
  X(rename, kOnce, kChanges)         \
  X(create, kOnce, kChanges)         \
  X(tmpfile, kRead, kChanges)        \
  X(open, kRead, kKeeps)             \
  X(read, kRead, kKeeps)             \
  X(write, kSet, kChanges)           \
  X(flush, kSet, kKeeps)             \
  X(fsync, kSet, kKeeps)             \
  X(release, kSet, kKeeps)           \
  X(opendir, kRead, kKeeps)          \
  X(readdir, kRead, kKeeps)          \
  X(readdirplus, kRead, kKeeps)      \
  X(releasedir, kSet, kKeeps)        \
  X(fsyncdir, kSet, kKeeps)          \
  X(setxattr, kOnce, kChanges)       \
  X(getxattr, kRead, kKeeps)         \
  X(listxattr, kRead, kKeeps)        \
  X(removexattr, kOnce, kChanges)    \
  X(getlk, kRead, kKeeps)            \
  X(setlk, kSet, kKeeps)             \
  X(fallocate, kSet, kChanges)       \
  X(copy_file_range, kSet, kChanges) \
  X(lseek, kRead, kKeeps)            \
  X(statfs, kRead, kKeeps)           \
  X(syncfs, kSet, kKeeps)

enum class Op : uint8_t {
#define X(name, cls, effect) name,
  POLY_OPS(X)
#undef X
      kCount
};

inline constexpr size_t kOpCount = static_cast<size_t>(Op::kCount);

inline constexpr std::array<std::string_view, kOpCount> kOpNames{
#define X(name, cls, effect) #name,
    POLY_OPS(X)
#undef X
};

inline constexpr std::array<OpClass, kOpCount> kOpClasses{
#define X(name, cls, effect) OpClass::cls,
    POLY_OPS(X)
#undef X
};

inline constexpr std::array<OpEffect, kOpCount> kOpEffects{
#define X(name, cls, effect) OpEffect::effect,
    POLY_OPS(X)
#undef X
};

}  // namespace poly
