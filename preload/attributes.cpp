#include "preload/attributes.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "preload/counters.hpp"
#include "preload/fd_table.hpp"
#include "preload/process.hpp"
#include "preload/promote.hpp"

namespace poly::attributes {
namespace {

// A declined call on an open file goes on on the kernel's descriptor.
long settle(const Target& target, long result) {
  if (result != kDeclined || !target.file) return result;
  const int promoted = promote::file(*target.file);
  return promoted < 0 ? promoted : kDeclined;
}

template <typename Fill, typename Take>
long ask(const Target& target, Op op, bool as_now, Fill fill, Take take) {
  long result = kDeclined;
  {
    Call call = target.file ? Call(*target.file, op, as_now) : Call(target.place, op);
    if (call && fill(call)) {
      result = call.run();
      if (result == 0) result = take(call);
    }
  }
  return settle(target, result);
}

long nothing(Call&) {
  return 0;
}

}  // namespace

Target Target::of(int fd) {
  Target target;
  if (fds::is_library(fd)) {
    process::notice_fork();
    target.file = fds::get(fd);
  }
  return target;
}

Target Target::at(int directory, const char* path, int flags) {
  Target target;
  if ((flags & AT_EMPTY_PATH) != 0 && !is_wild(path) && path[0] == '\0') return of(directory);
  const uint16_t walk = (flags & AT_SYMLINK_NOFOLLOW) != 0 ? 0 : kWalkFollow;
  if (!locate(directory, path, walk, target.place)) target.place.mount = nullptr;
  return target;
}

long status(const Target& target, struct stat* out) {
  if (!target || is_wild(out)) return settle(target, kDeclined);
  return ask(
      target, Op::getattr, false, [](Call&) { return true; },
      [&](Call& call) {
        calls::to_stat(target.mount(), call.answer().attr, *out);
        return 0L;
      });
}

long extended_status(const Target& target, unsigned mask, struct statx* out) {
  constexpr unsigned kMountIds = 0x1000 | 0x4000;
  if (!target || is_wild(out) || (mask & ~(STATX_BASIC_STATS | STATX_BTIME | kMountIds)) != 0)
    return settle(target, kDeclined);
  return ask(
      target, Op::getattr, false, [](Call&) { return true; },
      [&](Call& call) {
        calls::to_statx(target.mount(), call.answer().attr, mask, *out);
        return 0L;
      });
}

// On a mount without execution (noexec) the kernel has its own idea of X_OK.
long access(const Target& target, int mode, bool effective) {
  if (!target || (mode & ~(R_OK | W_OK | X_OK)) != 0) return settle(target, kDeclined);
  const bool no_execution = (mode & X_OK) != 0 && target.mount().flags.no_execution;
  if (no_execution || (!effective && !process::ids_are_equal())) {
    count(Decline::identity);
    return settle(target, kDeclined);
  }
  return ask(
      target, Op::getattr, true,
      [&](Call& call) {
        call->flags = static_cast<uint32_t>(mode);
        if (!effective) call->walk |= kWalkRealUid;
        return true;
      },
      nothing);
}

bool Change::set_times(const timespec* times) {
  if (times == nullptr) {
    mask |= kSetAtime | kSetAtimeNow | kSetMtime | kSetMtimeNow;
    return true;
  }
  if (times[0].tv_nsec == UTIME_OMIT && times[1].tv_nsec == UTIME_OMIT) return false;
  if (times[0].tv_nsec != UTIME_OMIT) mask |= kSetAtime;
  if (times[1].tv_nsec != UTIME_OMIT) mask |= kSetMtime;
  if (times[0].tv_nsec == UTIME_NOW) mask |= kSetAtimeNow;
  if (times[1].tv_nsec == UTIME_NOW) mask |= kSetMtimeNow;
  // UTIME_NOW and UTIME_OMIT are no nanoseconds.
  if (times[0].tv_nsec < 1'000'000'000) atime = times[0];
  if (times[1].tv_nsec < 1'000'000'000) mtime = times[1];
  return true;
}

long change(const Target& target, const Change& change) {
  if (!target) return kDeclined;
  return ask(
      target, Op::setattr, true,
      [&](Call& call) {
        call->set_mask = change.mask;
        call->set_mode = change.mode;
        call->set_uid = change.uid;
        call->set_gid = change.gid;
        call->set_size = change.size;
        call->atime_sec = change.atime.tv_sec;
        call->atime_nsec = static_cast<uint32_t>(change.atime.tv_nsec);
        call->mtime_sec = change.mtime.tv_sec;
        call->mtime_nsec = static_cast<uint32_t>(change.mtime.tv_nsec);
        return true;
      },
      nothing);
}

long set_xattr(const Target& target, const char* name, const void* value, size_t size, int flags) {
  constexpr size_t kMaxValue = 65536;  // XATTR_SIZE_MAX
  if (!target || is_wild(name) || (size != 0 && is_wild(value)) || size > kMaxValue)
    return settle(target, kDeclined);
  return ask(
      target, Op::setxattr, true,
      [&](Call& call) {
        call->flags = static_cast<uint32_t>(flags);
        call->size = size;
        if (size != 0) calls::copy(call.data(), value, size);
        return call.second(name);
      },
      nothing);
}

namespace {

// Copies what the answer holds; with room 0 only its size was asked.
long take_value(Call& call, void* to, size_t room) {
  const uint64_t size = call.answer().value;
  if (room == 0) return static_cast<long>(size);
  if (size > room || size > kDataSize) return -ERANGE;
  calls::copy(to, call.data(), size);
  return static_cast<long>(size);
}

}  // namespace

long get_xattr(const Target& target, const char* name, void* value, size_t size) {
  if (!target || is_wild(name) || (size != 0 && is_wild(value))) return settle(target, kDeclined);
  return ask(
      target, Op::getxattr, true,
      [&](Call& call) {
        call->size = size < kDataSize ? size : kDataSize;
        return call.second(name);
      },
      [&](Call& call) { return take_value(call, value, size); });
}

long list_xattrs(const Target& target, char* list, size_t size) {
  if (!target || (size != 0 && is_wild(list))) return settle(target, kDeclined);
  return ask(
      target, Op::listxattr, true,
      [&](Call& call) {
        call->size = size < kDataSize ? size : kDataSize;
        return true;
      },
      [&](Call& call) { return take_value(call, list, size); });
}

long remove_xattr(const Target& target, const char* name) {
  if (!target || is_wild(name)) return settle(target, kDeclined);
  return ask(
      target, Op::removexattr, true, [&](Call& call) { return call.second(name); }, nothing);
}

long filesystem(const Target& target) {
  if (!target) return kDeclined;
  if (!target.file) {
    const long result = ask(
        target, Op::getattr, false, [](Call&) { return true; }, nothing);
    if (result != 0) return result;
  }
  return target.mount().root_fd();
}

}  // namespace poly::attributes
