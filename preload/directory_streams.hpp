// Directory streams (opendir(3)) of directories in our mounts: the library's own, whose entries the service
// reads. A stream by path has no descriptor before the program asks for it; one made of a descriptor keeps
// that, and its offset, as libc would.
//
// What the service does not serve (any more) the kernel reads on, at the same cookie, for cookies are the
// libservice's: a handle that is only for walking, and the streams of a forked child, whose handles were its
// parent's. The kernel's directory is found by the path that the stream was opened by, and must be the same
// inode; if there is none any more, dirfd(3) says ENOTSUP, and readdir(3) of such a stream EIO.
//
// Lock order: Stream::lock, then all that calls need (session.hpp).
#pragma once

#include <dirent.h>

#include <atomic>
#include <cstdint>

#include "preload/open_file.hpp"
#include "preload/thread_lock.hpp"

namespace poly {

struct alignas(64) Stream {
  // Guards what follows, but for what is set once.
  ThreadLock lock;
  FileRef file;            // null: the kernel reads
  int descriptor;          // -1: none
  uint64_t device, inode;  // set once
  uint64_t position;       // cookie of the entry that comes next
  uint32_t used, size;     // of `entries`
  char path[4096];         // set once: absolute; or empty, and then there is a descriptor
  alignas(8) char entries[32768];
};

struct DirectoryStreams {
  static constexpr int kMax = 256;
  std::atomic<bool> in_use[kMax];
  Stream streams[kMax];
};

namespace streams {

// False: libc's.
[[nodiscard]] bool is_ours(const DIR* stream);

// opendir, fdopendir: 0, -errno or kDeclined.
[[nodiscard]] long open(const char* path, DIR*& out);
[[nodiscard]] long adopt(int fd, DIR*& out);

// The next entry, valid until the next call; null: the end. 0 or -errno.
[[nodiscard]] int read(DIR* stream, dirent64*& out);
void seek(DIR* stream, uint64_t cookie);
[[nodiscard]] uint64_t tell(DIR* stream);
// Opened when first asked for; -errno.
[[nodiscard]] int descriptor(DIR* stream);
// 0 or -errno.
int close(DIR* stream);

void forget_all();

}  // namespace streams
}  // namespace poly
