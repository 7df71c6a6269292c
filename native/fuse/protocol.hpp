// The FUSE kernel protocol: Debian 12's <linux/fuse.h> (7.38) plus what later kernels added, declared by
// hand, and the translation of attributes.
#pragma once

#include <linux/fuse.h>
#include <sys/sysmacros.h>

#include "libservices/libservice.hpp"

namespace poly {

// 7.39, Linux 6.6
inline constexpr uint32_t kFuseStatx = 52;
struct FuseStatxIn {
  uint32_t getattr_flags, reserved;
  uint64_t fh;
  uint32_t sx_flags, sx_mask;
};
struct FuseSxTime {
  int64_t tv_sec;
  uint32_t tv_nsec;
  int32_t reserved;
};
struct FuseStatx {
  uint32_t mask, blksize;
  uint64_t attributes;
  uint32_t nlink, uid, gid;
  uint16_t mode, spare0;
  uint64_t ino, size, blocks, attributes_mask;
  FuseSxTime atime, btime, ctime, mtime;
  uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
  uint64_t spare2[14];
};
struct FuseStatxOut {
  uint64_t attr_valid;
  uint32_t attr_valid_nsec, flags;
  uint64_t spare[2];
  FuseStatx stat;
};
static_assert(sizeof(FuseStatx) == 256 && sizeof(FuseStatxOut) == 288 && sizeof(FuseStatxIn) == 24);

// 7.39, too: files opened for direct I/O can be mapped shared.
inline constexpr uint64_t kFuseDirectIoAllowMmap = 1ull << 36;

// 7.41, Linux 6.9: FUSE_NOTIFY_RESEND asks for unanswered requests again; they come with bit 63 of `unique`
// set.
inline constexpr int kFuseNotifyResend = 7;
inline constexpr uint64_t kFuseUniqueResend = 1ull << 63;
inline constexpr uint64_t kFuseHasResend = 1ull << 39;

inline constexpr uint32_t kFuseRootId = FUSE_ROOT_ID;
inline constexpr size_t kMaxWrite =
    1024 * 1024;  // 256 pages, the kernel's default bound (fs.fuse.max_pages_limit)

inline uint32_t encode_device(uint32_t major, uint32_t minor) {  // new_encode_dev, include/linux/kdev_t.h
  return (minor & 0xff) | major << 8 | (minor & ~0xffu) << 12;
}
inline dev_t decode_device(uint32_t device) {
  return makedev((device & 0xfff00) >> 8, (device & 0xff) | ((device >> 12) & 0xfff00));
}

inline void fill_attr(const Attr& from, fuse_attr& to) {
  to.ino = from.stx_ino;
  to.size = from.stx_size;
  to.blocks = from.stx_blocks;
  to.atime = static_cast<uint64_t>(from.stx_atime.tv_sec);
  to.mtime = static_cast<uint64_t>(from.stx_mtime.tv_sec);
  to.ctime = static_cast<uint64_t>(from.stx_ctime.tv_sec);
  to.atimensec = from.stx_atime.tv_nsec;
  to.mtimensec = from.stx_mtime.tv_nsec;
  to.ctimensec = from.stx_ctime.tv_nsec;
  to.mode = from.stx_mode;
  to.nlink = from.stx_nlink;
  to.uid = from.stx_uid;
  to.gid = from.stx_gid;
  to.rdev = encode_device(from.stx_rdev_major, from.stx_rdev_minor);
  to.blksize = from.stx_blksize;
  to.flags = 0;
}

inline FuseSxTime fuse_time(const statx_timestamp& t) {
  return {t.tv_sec, t.tv_nsec, 0};
}

}  // namespace poly
