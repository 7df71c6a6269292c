#include "preload/directories.hpp"

#include <fcntl.h>
#include <sys/sysmacros.h>

#include <string_view>

#include "preload/calls.hpp"
#include "preload/counters.hpp"
#include "preload/fd_table.hpp"
#include "preload/paths.hpp"

namespace poly::directories {
namespace {

constexpr unsigned kMountId = 0x1000;  // STATX_MNT_ID

// Direct mapped; each holds a reference. Index of the open file + 1.
constexpr uint32_t kSlots = 128;
std::atomic<uint32_t> cache[kSlots];

// The generation (low bits) under which a directory was found to be the kernel's; of descriptors:
// Arena::foreign.
std::atomic<uint32_t> foreign_working_directory{0};

std::atomic<uint32_t>* foreign_mark(int fd) {
  if (fd == AT_FDCWD) return &foreign_working_directory;
  return static_cast<unsigned>(fd) < static_cast<unsigned>(fd_limit.load()) ? &arena->foreign[fd] : nullptr;
}

std::atomic<uint32_t>& slot_of(const Mount& mount, uint64_t inode) {
  uint64_t hash = (inode + mount.mount_id) * 0x9e3779b97f4a7c15;
  return cache[hash >> 32 & (kSlots - 1)];
}

FileRef cached(Mount& mount, uint64_t inode) {
  std::atomic<uint32_t>& slot = slot_of(mount, inode);
  const uint32_t entry = slot.load(std::memory_order_acquire);
  if (entry == 0) return {};
  FileRef file = open_files::try_reference(entry - 1);
  const bool same =
      file && slot.load(std::memory_order_acquire) == entry && file->mount == &mount && file->inode == inode;
  return same ? static_cast<FileRef&&>(file) : FileRef();
}

void keep(const FileRef& file) {
  FileRef held = file.share();
  const uint32_t entry = open_files::index_of(*held.release()) + 1;
  const uint32_t old = slot_of(*file->mount, file->inode).exchange(entry, std::memory_order_acq_rel);
  if (old != 0) FileRef(open_files::at(old - 1)).drop();
}

// The kernel's name for it. The caller compares what is found there with the directory itself.
ssize_t path_of(int fd, char (&out)[4096]) {
  ssize_t size;
  if (fd == AT_FDCWD) {
    size = sys::call(SYS_getcwd, sys::word(out), sizeof(out)) - 1;  // counts its NUL
  } else {
    const fds::FdPath link(fd);
    size = sys::call(SYS_readlinkat, AT_FDCWD, sys::word(link.text), sys::word(out), sizeof(out) - 1);
  }
  if (size <= 0 || out[0] != '/') return -1;
  out[size] = '\0';
  return size;
}

FileRef find_by_path(int fd, uint64_t device, uint64_t mount_id, uint64_t inode, bool& ours) {
  char path[4096];
  ours = false;
  Place place;
  if (path_of(fd, path) < 0 || !locate(AT_FDCWD, path, kWalkFollow, place)) return {};
  ours = place.mount->device == device && place.mount->mount_id == mount_id;
  if (!ours) return {};
  FileRef file = cached(*place.mount, inode);
  if (file) return file;
  // When it is another one by now, it is the kernel's.
  if (open(place, 0, file) != 0 || file->inode != inode) return {};
  keep(file);
  return file;
}

}  // namespace

long open(const Place& place, uint32_t flags, FileRef& out) {
  FileRef file = open_files::make();
  if (!file) {
    count(Decline::no_room);
    return kDeclined;
  }
  Call call(place, Op::opendir);
  if (!call) return kDeclined;
  call->flags = flags;
  if (const long result = call.run(); result != 0) return result;
  file->mount = place.mount;
  file->handle = call.answer().file;
  file->inode = call.answer().attr.stx_ino;
  file->directory = true;
  out = static_cast<FileRef&&>(file);
  return 0;
}

bool is_foreign(int fd) {
  const auto generation = static_cast<uint32_t>(mounts::generation());
  if (generation == 0) return true;
  const std::atomic<uint32_t>* mark = foreign_mark(fd);
  return mark == nullptr || mark->load(std::memory_order_relaxed) == generation;
}

FileRef handle_of(int fd) {
  std::atomic<uint32_t>* mark = foreign_mark(fd);
  const auto generation = static_cast<uint32_t>(mounts::generation());
  if (mark == nullptr || generation == 0) return {};
  struct statx st;
  if (sys::statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO | STATX_TYPE | kMountId, &st) < 0)
    return {};
  const uint64_t device = makedev(st.stx_dev_major, st.stx_dev_minor);
  FileRef file;
  bool ours = true;
  if (Mount* mount = mounts::known(device, st.stx_mnt_id)) file = cached(*mount, st.stx_ino);
  if (!file && S_ISDIR(st.stx_mode)) file = find_by_path(fd, device, st.stx_mnt_id, st.stx_ino, ours);
  if (!ours) mark->store(generation, std::memory_order_relaxed);
  // Another mount may lie on the way, and only the path from the mount point could tell.
  if (!file || file->mount->mounts_below.load(std::memory_order_relaxed)) {
    if (ours) count(Decline::relative);
    return {};
  }
  return file;
}

void forget_fd(int fd) {
  if (static_cast<unsigned>(fd) >= static_cast<unsigned>(fd_limit.load(std::memory_order_acquire))) return;
  std::atomic<uint32_t>& mark = arena->foreign[fd];
  if (mark.load(std::memory_order_relaxed) != 0) mark.store(0, std::memory_order_relaxed);
}

void forget_working_directory() {
  foreign_working_directory.store(0, std::memory_order_relaxed);
}

void forget_all() {
  for (auto& slot : cache) slot.store(0);
}

}  // namespace poly::directories
