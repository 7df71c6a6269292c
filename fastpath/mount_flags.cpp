#include "fastpath/mount_flags.hpp"

#include <sys/statvfs.h>
#include <sys/vfs.h>

#include <cerrno>

#include "fastpath/raw_calls.hpp"

namespace poly {
namespace {

// statmount(2), which the headers of Debian 12 do not have.
constexpr long kStatmount = 457;
constexpr uint64_t kSuperblock = 1, kMount = 2;  // STATMOUNT_SB_BASIC, STATMOUNT_MNT_BASIC
constexpr uint64_t kReadOnly = 1, kNoExecution = 8, kNoSymlinks = 0x200000;  // MOUNT_ATTR_*
constexpr uint32_t kSuperblockReadOnly = 1;                                  // SB_RDONLY

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

int read_statfs(int fd, MountFlags& out) {
  constexpr unsigned kNoSymFollow = 0x2000;  // ST_NOSYMFOLLOW
  struct statfs fs;
  if (const long rc = raw::call(SYS_fstatfs, fd, &fs); rc < 0) return static_cast<int>(rc);
  out.read_only = (fs.f_flags & ST_RDONLY) != 0;
  out.no_execution = (fs.f_flags & ST_NOEXEC) != 0;
  out.no_symlinks = (fs.f_flags & kNoSymFollow) != 0;
  return 0;
}

}  // namespace

int MountFlags::read(int fd, uint64_t unique_id) {
  const MountRequest request{sizeof(request), 0, unique_id, kSuperblock | kMount};
  MountStatus status{};
  constexpr uint64_t kBoth = kSuperblock | kMount;
  if (unique_id == 0 || raw::call(kStatmount, &request, &status, sizeof(status), 0) < 0 ||
      (status.mask & kBoth) != kBoth)
    return read_statfs(fd, *this);
  read_only = (status.attributes & kReadOnly) != 0 || (status.superblock_flags & kSuperblockReadOnly) != 0;
  no_execution = (status.attributes & kNoExecution) != 0;
  no_symlinks = (status.attributes & kNoSymlinks) != 0;
  return 0;
}

}  // namespace poly
