// Opening, closing, duplicating: see file_data.cpp for reading and writing.
#include "preload/files.hpp"

#include <fcntl.h>
#include <linux/fs.h>

#include "preload/calls.hpp"
#include "preload/counters.hpp"
#include "preload/directories.hpp"
#include "preload/fd_table.hpp"
#include "preload/own_fds.hpp"
#include "preload/paths.hpp"
#include "preload/posix_locks.hpp"
#include "preload/process.hpp"
#include "preload/promote.hpp"

namespace poly::files {
namespace {

// O_LARGEFILE, which libc defines as 0 where it is implied.
#if defined(__aarch64__)
constexpr int kLargeFile = 0400000;
#else
constexpr int kLargeFile = 0100000;
#endif
// Everything else (O_DIRECTORY, O_PATH, O_TMPFILE, O_DIRECT, O_ASYNC, O_NOATIME) is the kernel's.
constexpr int kServed = O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK | O_DSYNC |
                        O_SYNC | O_NOFOLLOW | O_CLOEXEC | kLargeFile;
// What the kernel forgets once the file is open (do_dentry_open, build_open_flags).
constexpr int kForgotten = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC;

bool flags_are_served(int flags) {
  return (flags & ~kServed) == 0 && (flags & O_ACCMODE) != O_ACCMODE;
}

uint16_t walk_of(int flags) {
  const bool no_follow = (flags & O_NOFOLLOW) != 0 || (flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL);
  return no_follow ? 0 : kWalkFollow;
}

// A placeholder number; kDeclined for those of stdio, which libc uses behind our back.
long placeholder(int flags) {
  const int fd = fds::make_placeholder(0, (flags & O_CLOEXEC) != 0);
  if (fd == -ENOSYS) return kDeclined;
  if (fd < 0) return fd;
  if (fd > 2 && fd < fds::kMax) return fd;
  sys::close(fd);
  count(Decline::standard_fd);
  return kDeclined;
}

long ask(const Place& place, OpenFile& file, int flags, mode_t mode) {
  const bool create = (flags & O_CREAT) != 0;
  const int mask = create ? process::creation_mask() : 0;
  if (mask < 0) return kDeclined;
  Call call(place, create ? Op::create : Op::open);
  if (!call) return kDeclined;
  call->flags = static_cast<uint32_t>(flags & ~(O_CLOEXEC | O_NOCTTY));
  call->mode = mode & 07777;
  call->umask = static_cast<uint32_t>(mask);
  if (const long result = call.run(); result != 0) return result;
  file.mount = place.mount;
  file.handle = call.answer().file;
  file.inode = call.answer().attr.stx_ino;
  file.flags.store(static_cast<uint32_t>((flags & ~kForgotten) | kLargeFile));
  return 0;
}

}  // namespace

// The number first, as in the kernel: EMFILE comes before anything has been created.
long open(int directory, const char* path, int flags, mode_t mode) {
  Place place;
  if (!locate(directory, path, walk_of(flags), place) || place.is_root()) return kDeclined;
  if (!flags_are_served(flags)) {
    count(Decline::open_flags);
    return kDeclined;
  }
  FileRef file = open_files::make();
  if (!file) {
    count(Decline::no_room);
    return kDeclined;
  }
  const long fd = placeholder(flags);
  if (fd < 0) return fd;
  if (const long result = ask(place, *file, flags, mode); result != 0) {
    sys::close(static_cast<int>(fd));
    return result;
  }
  directories::forget_fd(static_cast<int>(fd));
  fds::install(static_cast<int>(fd), static_cast<FileRef&&>(file));
  return fd;
}

long close(int fd) {
  process::notice_fork();
  FileRef file = fds::get(fd);
  if (!file) return kDeclined;
  if (posix_locks::may_hold(file->mount->device, file->inode)) {
    (void)promote::file(*file);
    return kDeclined;
  }
  FileRef taken = fds::take(fd);
  sys::close(fd);
  file.drop();
  return taken.drop();
}

long duplicate(int fd, int least, bool close_on_exec) {
  process::notice_fork();
  fds::Change change;
  FileRef file = fds::get(fd);
  if (!file || file->promoted.load()) return kDeclined;
  const int made = sys::fcntl(fd, close_on_exec ? F_DUPFD_CLOEXEC : F_DUPFD, least);
  if (made < 0) return made;
  if (made > 2 && made < fds::kMax) {
    directories::forget_fd(made);
    fds::install(made, static_cast<FileRef&&>(file));
    return made;
  }
  sys::close(made);
  // stdio's numbers: the kernel's descriptor goes there. Nobody else can have them meanwhile but by racing.
  const int result = promote::file(*file);
  return result < 0 ? result : kDeclined;
}

long duplicate_onto(int from, int to, int flags, bool strict) {
  process::notice_fork();
  if (to < 0 || (flags & ~O_CLOEXEC) != 0 || (strict && from == to)) return kDeclined;
  if (from == to) return fds::is_library(from) ? from : kDeclined;
  if (fds::is_library(from) && (to <= 2 || to >= fds::kMax)) {
    if (const long result = promoted(from); result != kDeclined) return result;
  }
  if (fds::is_library(to) && posix_locks::may_hold(fds::get(to)->mount->device, fds::get(to)->inode)) {
    if (const long result = promoted(to); result != kDeclined) return result;
  }
  own_fds::make_way(to);
  FileRef before;
  fds::Change change;
  FileRef file = fds::is_library(from) ? fds::get(from) : FileRef();
  if (!file && !fds::is_library(to)) return kDeclined;
  const int result = sys::dup3(from, to, flags);
  if (result < 0) return result;
  before = fds::take(to);
  directories::forget_fd(to);
  if (file) fds::install(to, static_cast<FileRef&&>(file));
  return result;
}

long get_flags(int fd) {
  const FileRef file = fds::get(fd);
  return file ? static_cast<long>(file->flags.load()) : kDeclined;
}

long set_flags(int fd, int flags) {
  constexpr uint32_t kOurs = O_APPEND | O_NONBLOCK;
  constexpr uint32_t kChangeable = kOurs | O_ASYNC | O_DIRECT | O_NOATIME;
  const FileRef file = fds::get(fd);
  if (!file) return kDeclined;
  const uint32_t wanted = static_cast<uint32_t>(flags) & kChangeable;
  if ((wanted & ~kOurs) != 0) return promoted(fd);
  ThreadLockHold hold(file->position);
  if (file->promoted.load()) return kDeclined;
  file->flags.store((file->flags.load() & ~kOurs) | wanted);
  return 0;
}

long promoted(int fd) {
  const int result = promote::descriptor(fd);
  return result < 0 ? result : kDeclined;
}

void promote_source(unsigned long request, const void* argument) {
  if (request == FICLONE) (void)promote::descriptor(static_cast<int>(reinterpret_cast<long>(argument)));
  if (request == FICLONERANGE && !is_wild(argument))
    (void)promote::descriptor(static_cast<int>(static_cast<const file_clone_range*>(argument)->src_fd));
  if (request == FIDEDUPERANGE && !is_wild(argument)) {
    const auto* range = static_cast<const file_dedupe_range*>(argument);
    for (unsigned i = 0; i < range->dest_count; ++i)
      (void)promote::descriptor(static_cast<int>(range->info[i].dest_fd));
  }
}

}  // namespace poly::files
