// Sizes, space and copies within the service.
#include <fcntl.h>
#include <sys/resource.h>

#include <cstdint>

#include "fastpath/set_attr_mask.hpp"
#include "preload/calls.hpp"
#include "preload/fd_table.hpp"
#include "preload/files.hpp"
#include "preload/process.hpp"
#include "preload/promote.hpp"

namespace poly::files {
namespace {

constexpr uint64_t kMaxCopy = 0x7ffff000;  // MAX_RW_COUNT

bool may(const OpenFile& file, int mode) {
  const auto access = static_cast<int>(file.flags.load(std::memory_order_relaxed) & O_ACCMODE);
  return access == mode || access == O_RDWR;
}

long promote_and_decline(OpenFile& file) {
  const int result = promote::file(file);
  return result < 0 ? result : kDeclined;
}

bool size_is_limited() {
  return process::file_size_limit() != RLIM_INFINITY;
}

}  // namespace

long sync(int fd, bool data_only) {
  process::notice_fork();
  const FileRef file = fds::get(fd);
  if (!file) return kDeclined;
  long result = kDeclined;
  if (Call call(*file, Op::fsync); call) {
    call->flags = data_only ? 1 : 0;
    result = call.run();
  }
  return result == kDeclined ? promote_and_decline(*file) : result;
}

long resize(int fd, off_t size) {
  process::notice_fork();
  const FileRef file = fds::get(fd);
  if (!file) return kDeclined;
  if (size < 0 || !may(*file, O_WRONLY)) return -EINVAL;
  long result = kDeclined;
  if (!size_is_limited()) {
    if (Call call(*file, Op::setattr, true); call) {
      call->set_mask = kSetSize;
      call->set_size = static_cast<uint64_t>(size);
      result = call.run();
    }
  }
  return result == kDeclined ? promote_and_decline(*file) : result;
}

long allocate(int fd, int mode, off_t offset, off_t size) {
  process::notice_fork();
  const FileRef file = fds::get(fd);
  if (!file) return kDeclined;
  if (offset < 0 || size <= 0) return -EINVAL;
  long result = kDeclined;
  if (offset <= INT64_MAX - size && !size_is_limited()) {
    if (!may(*file, O_WRONLY)) return -EBADF;
    if (Call call(*file, Op::fallocate, true); call) {
      call->flags = static_cast<uint32_t>(mode);
      call->offset = static_cast<uint64_t>(offset);
      call->size = static_cast<uint64_t>(size);
      result = call.run();
    }
  }
  return result == kDeclined ? promote_and_decline(*file) : result;
}

namespace {

long copy_in_service(OpenFile& in, uint64_t from, OpenFile& out, uint64_t to, size_t size) {
  Call call(out, Op::copy_file_range, true);
  if (!call) return kDeclined;
  call->file = in.handle;
  call->file2 = out.handle;
  call->offset = from;
  call->offset2 = to;
  call->size = size < kMaxCopy ? size : kMaxCopy;
  const long result = call.run();
  return result != 0 ? result : static_cast<long>(call.answer().value);
}

// Both positions are held, in the order of the records.
long copy_at_positions(OpenFile& in, off_t* in_offset, OpenFile& out, off_t* out_offset, size_t size) {
  ThreadLockHold first(&in < &out ? in.position : out.position);
  ThreadLockHold second(&in < &out ? out.position : in.position);
  if (in.promoted.load() || out.promoted.load()) return kDeclined;
  const int64_t from = in_offset != nullptr ? *in_offset : in.offset.load();
  const int64_t to = out_offset != nullptr ? *out_offset : out.offset.load();
  if (from < 0 || to < 0) return kDeclined;
  const long done = copy_in_service(in, static_cast<uint64_t>(from), out, static_cast<uint64_t>(to), size);
  if (done <= 0) return done;
  if (in_offset != nullptr)
    *in_offset = from + done;
  else
    in.offset.store(from + done);
  if (out_offset != nullptr)
    *out_offset = to + done;
  else
    out.offset.store(to + done);
  return done;
}

}  // namespace

long copy_range(int in, off_t* in_offset, int out, off_t* out_offset, size_t size) {
  process::notice_fork();
  const FileRef from = fds::is_library(in) ? fds::get(in) : FileRef();
  const FileRef to = fds::is_library(out) ? fds::get(out) : FileRef();
  if (!from && !to) return kDeclined;
  const bool pointers =
      (in_offset == nullptr || !is_wild(in_offset)) && (out_offset == nullptr || !is_wild(out_offset));
  if (from && to && from->mount == to->mount && pointers && !size_is_limited()) {
    if (!may(*from, O_RDONLY) || !may(*to, O_WRONLY) || (to->flags.load() & O_APPEND) != 0) return -EBADF;
    if (size == 0) return 0;
    const long result = copy_at_positions(*from, in_offset, *to, out_offset, size);
    if (result != kDeclined) return result;
  }
  if (from) {
    if (const long result = promote_and_decline(*from); result != kDeclined) return result;
  }
  return to ? promote_and_decline(*to) : kDeclined;
}

long is_readable(int fd) {
  const FileRef file = fds::get(fd);
  if (!file) return kDeclined;
  return may(*file, O_RDONLY) ? 0 : -EBADF;
}

}  // namespace poly::files
