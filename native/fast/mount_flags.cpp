#include "native/fast/mount_flags.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace poly {
namespace {

// What the headers of Debian 12 do not have.
constexpr long kStatmount = 457;                 // statmount(2)
constexpr unsigned kUniqueMountId = 0x4000;      // STATX_MNT_ID_UNIQUE
constexpr uint64_t kSuperblock = 1, kMount = 2;  // STATMOUNT_SB_BASIC, STATMOUNT_MNT_BASIC
constexpr unsigned long kNoSymFollow = 0x2000;   // ST_NOSYMFOLLOW

struct MountRequest {
  uint32_t size, spare;
  uint64_t mount_id, wanted;
};
struct MountStatus {
  uint32_t size, options;
  uint64_t mask;
  uint32_t device_major, device_minor;
  uint64_t magic;
  uint32_t superblock_flags, type;
  uint64_t mount_id, parent_id;
  uint32_t old_mount_id, old_parent_id;
  uint64_t attributes;
  uint64_t rest[55];
};
static_assert(sizeof(MountStatus) == 512);

struct Pair {
  uint64_t theirs;
  unsigned long ours;
};
constexpr Pair kAttributes[]{{0x1, ST_RDONLY}, {0x8, ST_NOEXEC}, {0x200000, kNoSymFollow}};  // MOUNT_ATTR_*
constexpr uint32_t kSuperblockReadOnly = 1;                                                  // SB_RDONLY

bool status_of(int fd, MountStatus& out) {
  struct statx stx;
  if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, kUniqueMountId, &stx) != 0 ||
      (stx.stx_mask & kUniqueMountId) == 0)
    return false;
  const MountRequest request{sizeof request, 0, stx.stx_mnt_id, kSuperblock | kMount};
  return syscall(kStatmount, &request, &out, sizeof out, 0) == 0 &&
         (out.mask & request.wanted) == request.wanted;
}

}  // namespace

int read_mount_flags(int fd, unsigned long& out) {
  MountStatus status{};
  if (!status_of(fd, status)) {
    struct statvfs fs;
    if (fstatvfs(fd, &fs) != 0) return -errno;
    out = fs.f_flag & (ST_RDONLY | ST_NOEXEC | kNoSymFollow);
    return 0;
  }
  out = status.superblock_flags & kSuperblockReadOnly ? ST_RDONLY : 0;
  for (const Pair& flag : kAttributes) out |= status.attributes & flag.theirs ? flag.ours : 0;
  return 0;
}

}  // namespace poly
