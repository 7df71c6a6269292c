#include "preload/calls.hpp"

#include <string.h>
#include <sys/sysmacros.h>

#include "preload/counters.hpp"
#include "preload/process.hpp"

namespace poly {
namespace {

CopyChooser reads, writes;

}  // namespace

Call::Call(const Place& place, Op op) {
  begin(*place.mount, op, true, false);
  if (buffer_ == nullptr) return;
  WireCall& call = buffer_->call;
  call.walk = place.walk;
  call.directory = place.directory ? place.directory->handle : 0;
  call.path_size = place.size;
  put(place.text, place.size);
}

Call::Call(OpenFile& file, Op op, bool as_now) : file_(&file) {
  begin(*file.mount, op, as_now, true);
  if (buffer_ == nullptr) return;
  buffer_->call.walk = kWalkHandle;
  buffer_->call.file = file.handle;
}

Call::~Call() {
  if (buffer_ != nullptr) session_->driver().release(buffer_);
}

// Calls about an open file have nowhere else to go but promotion: they wait for a buffer.
void Call::begin(Mount& mount, Op op, bool as_now, bool wait) {
  if (!mount.session->ready(as_now)) return;
  session_ = mount.session;
  while ((buffer_ = session_->driver().acquire()) == nullptr && wait) sys::yield();
  if (buffer_ == nullptr) {
    count(Decline::busy);
    return;
  }
  WireCall& call = buffer_->call;
  memset(&call, 0, sizeof(call));
  call.op = static_cast<uint16_t>(op);
  call.instance = mount.instance;
}

void Call::put(const char* text, size_t size) {
  memcpy(buffer_->paths + buffer_->call.path_size + buffer_->call.path2_size - size, text, size);
}

void Call::second(const Place& place) {
  buffer_->call.directory2 = place.directory ? place.directory->handle : 0;
  buffer_->call.path2_size = place.size;
  put(place.text, place.size);
}

bool Call::second(const char* text) {
  const size_t size = strnlen(text, kMaxPaths / 2);
  if (size == kMaxPaths / 2) return false;
  buffer_->call.path2_size = static_cast<uint32_t>(size);
  put(text, size);
  return true;
}

long Call::run() {
  const int before = errno;
  const int32_t result = session_->driver().run(*buffer_);
  errno = before;
  return finish(result);
}

// The service's side is a system call mostly, so of the copy methods these are left.
long Call::run_read(std::byte* to, size_t size, size_t& copied) {
  constexpr CopyMethods kMethods = copy_bit(CopyMethod::kSmc) | copy_bit(CopyMethod::kSmcPipelined);
  const uint64_t begin = size < CopyChooser::kLeastTimed ? 0 : monotonic_now();
  FrontDriver& driver = session_->driver();
  const CopyTable* table = driver.copy_table();
  const CopyMethod method = table && to && size >= CopyChooser::kLeastTimed
                                ? reads.choose(size, kMethods, *table)
                                : CopyMethod::kSmc;
  ChunkReader chunks(buffer_->progress, FrontDriver::next_sequence(*buffer_), to, buffer_->data, size);
  const bool in_chunks = method == CopyMethod::kSmcPipelined;
  if (in_chunks) buffer_->call.flags = kReadInChunks;
  const int before = errno;
  const int32_t result = driver.run(*buffer_, in_chunks ? &chunks : nullptr);
  errno = before;
  copied = chunks.done();
  if (begin != 0 && to && result == 0 && buffer_->answer.value == size) {
    // The rest of it here, so that what is timed is the whole.
    memcpy(to + copied, buffer_->data + copied, size - copied);
    copied = size;
    reads.took(method, size, monotonic_now() - begin);
  }
  return finish(result);
}

CopyMethod Call::write_method(size_t size) const {
  constexpr CopyMethods kMethods = copy_bit(CopyMethod::kSmc) | copy_bit(CopyMethod::kSmo);
  const CopyTable* table = session_->driver().copy_table();
  return table ? writes.choose(size, kMethods, *table) : CopyMethod::kSmc;
}

void Call::wrote(CopyMethod method, size_t size, uint64_t begin) {
  if (begin != 0) writes.took(method, size, monotonic_now() - begin);
}

long Call::finish(int32_t result) {
  if (result == kUnknownHandle && file_ != nullptr) {
    // Promoted meanwhile by another thread, which holds the position until it is done; else the service has
    // lost it.
    { ThreadLockHold hold(file_->position); }
    result = file_->promoted.load() ? kDeclined : -EIO;
  }
  if (result == kDeclined)
    count(Decline::service);
  else
    count_served();
  return result;
}

namespace calls {

void copy(void* to, const void* from, size_t size) {
  memcpy(to, from, size);
}

int release(OpenFile& file) {
  Call call(file, file.directory ? Op::releasedir : Op::release);
  if (!call) return 0;
  const long result = call.run();
  return result == kDeclined ? 0 : static_cast<int>(result);
}

namespace {

timespec time_of(const statx_timestamp& from) {
  return {from.tv_sec, static_cast<long>(from.tv_nsec)};
}

}  // namespace

void to_stat(const Mount& mount, const struct statx& from, struct stat& to) {
  memset(&to, 0, sizeof(to));
  to.st_dev = mount.device;
  to.st_ino = from.stx_ino;
  to.st_nlink = from.stx_nlink;
  to.st_mode = from.stx_mode;
  to.st_uid = from.stx_uid;
  to.st_gid = from.stx_gid;
  to.st_rdev = makedev(from.stx_rdev_major, from.stx_rdev_minor);
  to.st_size = static_cast<off_t>(from.stx_size);
  to.st_blksize = static_cast<blksize_t>(from.stx_blksize);
  to.st_blocks = static_cast<blkcnt_t>(from.stx_blocks);
  to.st_atim = time_of(from.stx_atime);
  to.st_mtim = time_of(from.stx_mtime);
  to.st_ctim = time_of(from.stx_ctime);
}

void to_statx(const Mount& mount, const struct statx& from, unsigned mask, struct statx& to) {
  constexpr unsigned kMountId = 0x1000;  // STATX_MNT_ID, Linux 5.8
  to = from;
  to.stx_dev_major = major(mount.device);
  to.stx_dev_minor = minor(mount.device);
  // The kernel asks FUSE for the birth time only when the program does (fs/fuse/dir.c, 6.6).
  to.stx_mask = STATX_BASIC_STATS | (from.stx_mask & mask & STATX_BTIME);
  if ((to.stx_mask & STATX_BTIME) == 0) to.stx_btime = {};
  const bool unique = (mask & kUniqueMountId) != 0 && mount.unique_mount_id != 0;
  to.stx_mask |= unique ? kUniqueMountId : kMountId;
  to.stx_mnt_id = unique ? mount.unique_mount_id : mount.mount_id;
  to.stx_attributes = from.stx_ino == mount.root_inode ? STATX_ATTR_MOUNT_ROOT : 0;
  to.stx_attributes_mask = mount.attributes_mask;
}

}  // namespace calls
}  // namespace poly
