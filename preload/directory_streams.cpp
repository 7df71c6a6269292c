#include "preload/directory_streams.hpp"

#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>

#include <algorithm>

#include "preload/arena.hpp"
#include "preload/calls.hpp"
#include "preload/counters.hpp"
#include "preload/directories.hpp"
#include "preload/fd_table.hpp"
#include "preload/paths.hpp"
#include "preload/process.hpp"

namespace poly::streams {
namespace {

Stream& ours(DIR* stream) {
  return *reinterpret_cast<Stream*>(stream);
}

// Null: all are in use.
Stream* take() {
  DirectoryStreams& all = arena->streams;
  for (int i = 0; i < DirectoryStreams::kMax; ++i) {
    if (all.in_use[i].load(std::memory_order_relaxed) || all.in_use[i].exchange(true)) continue;
    Stream& s = all.streams[i];
    s.descriptor = -1;
    s.position = 0;
    s.used = s.size = 0;
    s.path[0] = '\0';
    return &s;
  }
  count(Decline::no_room);
  return nullptr;
}

void give_back(Stream& s) {
  (void)s.file.drop();
  arena->streams.in_use[&s - arena->streams.streams].store(false, std::memory_order_release);
}

// False: too long, or the working directory has no path.
bool make_absolute(const char* path, char (&out)[4096]) {
  size_t size = 0;
  if (path[0] != '/') {
    const long got = sys::call(SYS_getcwd, sys::word(out), sizeof(out));  // counts its NUL
    if (got <= 0 || out[0] != '/') return false;
    size = static_cast<size_t>(got);
    out[size - 1] = '/';
  }
  const size_t rest = strnlen(path, sizeof(out));
  if (size + rest >= sizeof(out)) return false;
  memcpy(out + size, path, rest + 1);
  return true;
}

int open_in_kernel(Stream& s) {
  if (s.descriptor >= 0) return s.descriptor;
  const int fd = sys::openat(AT_FDCWD, s.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return fd;
  struct statx st;
  const int err = sys::statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &st);
  if (err < 0 || st.stx_ino != s.inode || makedev(st.stx_dev_major, st.stx_dev_minor) != s.device) {
    sys::close(fd);
    return -ENOENT;
  }
  directories::forget_fd(fd);
  if (fds::is_library(fd)) (void)fds::take(fd).drop();
  s.descriptor = fd;
  return fd;
}

// -errno, or how many bytes of entries there are.
long read_by_service(Stream& s) {
  Call call(*s.file, Op::readdir);
  if (!call) return kDeclined;
  call->offset = s.position;
  call->size = sizeof(s.entries);
  if (const long result = call.run(); result != 0) return result;
  const size_t size = std::min<size_t>(call.answer().value, sizeof(s.entries));
  memcpy(s.entries, call.data(), size);
  return static_cast<long>(size);
}

long read_by_kernel(Stream& s) {
  const int fd = open_in_kernel(s);
  if (fd < 0) return -EIO;
  const long moved = sys::call(SYS_lseek, fd, static_cast<long>(s.position), SEEK_SET);
  if (moved < 0) return moved;
  const long size = sys::call(SYS_getdents64, fd, sys::word(s.entries), sizeof(s.entries));
  return size == -ENOENT ? 0 : size;  // a directory that has been removed has no entries
}

// 0 or -errno.
int fill(Stream& s) {
  process::notice_fork();
  s.used = s.size = 0;
  long size = s.file ? read_by_service(s) : kDeclined;
  if (size == kDeclined || size == -EIO) {
    (void)s.file.drop();
    size = read_by_kernel(s);
  } else if (s.descriptor >= 0) {
    // Where others who share the descriptor find it at the end.
    sys::call(SYS_lseek, s.descriptor, static_cast<long>(s.position), SEEK_SET);
  }
  if (size < 0) return static_cast<int>(size);
  s.size = static_cast<uint32_t>(size);
  return 0;
}

}  // namespace

bool is_ours(const DIR* stream) {
  const auto* s = reinterpret_cast<const Stream*>(stream);
  return arena != nullptr && s >= arena->streams.streams &&
         s < arena->streams.streams + DirectoryStreams::kMax;
}

long open(const char* path, DIR*& out) {
  Place place;
  if (!locate(AT_FDCWD, path, kWalkFollow, place)) return kDeclined;
  Stream* s = take();
  if (s == nullptr) return kDeclined;
  const long result =
      make_absolute(path, s->path) ? directories::open(place, O_DIRECTORY, s->file) : kDeclined;
  if (result != 0) {
    give_back(*s);
    return result;
  }
  s->device = place.mount->device;
  s->inode = s->file->inode;
  out = reinterpret_cast<DIR*>(s);
  return 0;
}

long adopt(int fd, DIR*& out) {
  if (fd < 0 || directories::is_foreign(fd) || process::thread_is_other()) return kDeclined;
  process::notice_fork();
  FileRef file = directories::handle_of(fd);
  const int flags = sys::fcntl(fd, F_GETFL);
  if (!file || flags < 0 || (flags & O_PATH) != 0) return kDeclined;
  const long position = sys::call(SYS_lseek, fd, 0, SEEK_CUR);
  const int err = sys::fcntl(fd, F_SETFD, FD_CLOEXEC);  // as libc does
  if (position < 0 || err < 0) return kDeclined;
  Stream* s = take();
  if (s == nullptr) return kDeclined;
  s->file = static_cast<FileRef&&>(file);
  s->descriptor = fd;
  s->position = static_cast<uint64_t>(position);
  out = reinterpret_cast<DIR*>(s);
  return 0;
}

int read(DIR* stream, dirent64*& out) {
  Stream& s = ours(stream);
  ThreadLockHold hold(s.lock);
  out = nullptr;
  if (s.used == s.size) {
    if (int err = fill(s)) return err;
    if (s.size == 0) return 0;
  }
  out = reinterpret_cast<dirent64*>(s.entries + s.used);
  s.used += out->d_reclen;
  s.position = static_cast<uint64_t>(out->d_off);
  return 0;
}

void seek(DIR* stream, uint64_t cookie) {
  Stream& s = ours(stream);
  ThreadLockHold hold(s.lock);
  s.position = cookie;
  s.used = s.size = 0;
  if (s.descriptor >= 0) sys::call(SYS_lseek, s.descriptor, static_cast<long>(cookie), SEEK_SET);
}

uint64_t tell(DIR* stream) {
  Stream& s = ours(stream);
  ThreadLockHold hold(s.lock);
  return s.position;
}

int descriptor(DIR* stream) {
  process::notice_fork();
  Stream& s = ours(stream);
  ThreadLockHold hold(s.lock);
  const int fd = open_in_kernel(s);
  return fd == -ENOENT || fd == -ENOTDIR ? -ENOTSUP : fd;
}

int close(DIR* stream) {
  process::notice_fork();
  Stream& s = ours(stream);
  const int fd = s.descriptor;
  give_back(s);
  if (fd < 0) return 0;
  directories::forget_fd(fd);
  return sys::close(fd);
}

// The only thread of a forked child: the handles are the parent's.
void forget_all() {
  if (arena == nullptr) return;
  for (Stream& s : arena->streams.streams) {
    if (!arena->streams.in_use[&s - arena->streams.streams].load()) continue;
    (void)s.file.release();
    s.lock.reset();
  }
}

}  // namespace poly::streams
