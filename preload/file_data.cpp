// Reading and writing through request buffers.
//
// The offset of the file moves before the data does, by as much as was asked for, and comes back by what was
// not done: a signal handler that uses the same file in the middle goes on where this call will end, as it
// would had it come after it. Other threads wait (OpenFile::position), as at the kernel's f_pos_lock.
#include <fcntl.h>
#include <limits.h>
#include <sys/resource.h>

#include "preload/calls.hpp"
#include "preload/fd_table.hpp"
#include "preload/files.hpp"
#include "preload/process.hpp"
#include "preload/promote.hpp"

namespace poly::files {
namespace {

constexpr uint64_t kMaxTransfer = 0x7ffff000;  // MAX_RW_COUNT, read(2)

// The program's memory, as one sequence of bytes.
class Memory {
 public:
  Memory(const iovec* vectors, int count) : vectors_(vectors), count_(count) {}

  // False: the kernel's to judge (EFAULT, EINVAL).
  [[nodiscard]] bool measure(uint64_t& total) const {
    total = 0;
    if (count_ < 0 || count_ > IOV_MAX || (count_ > 0 && is_wild(vectors_))) return false;
    for (int i = 0; i < count_; ++i) {
      if (vectors_[i].iov_len == 0) continue;
      if (is_wild(vectors_[i].iov_base) || vectors_[i].iov_len > static_cast<size_t>(SSIZE_MAX) - total)
        return false;
      total += vectors_[i].iov_len;
    }
    return true;
  }
  // Where the next `size` bytes are, if they are in one piece.
  [[nodiscard]] std::byte* piece(size_t size) const {
    const bool one = vectors_->iov_len - done_ >= size;
    return one ? static_cast<std::byte*>(vectors_->iov_base) + done_ : nullptr;
  }
  void skip(size_t size) {
    each(size, [](std::byte*, size_t) {});
  }
  void put(const std::byte* from, size_t size) {
    each(size, [&](std::byte* at, size_t part) {
      calls::copy(at, from, part);
      from += part;
    });
  }
  void get(CopyMethod method, std::byte* to, size_t size) {
    each(size, [&](const std::byte* at, size_t part) {
      copy_crossing(method, to, at, part);
      to += part;
    });
  }

 private:
  template <typename Visit>
  void each(size_t size, Visit visit) {
    while (size > 0) {
      const size_t left = vectors_->iov_len - done_;
      const size_t part = left < size ? left : size;
      if (part > 0) visit(static_cast<std::byte*>(vectors_->iov_base) + done_, part);
      size -= part;
      done_ += part;
      if (done_ == vectors_->iov_len) {
        ++vectors_;
        done_ = 0;
      }
    }
  }

  const iovec* vectors_;
  int count_;
  size_t done_ = 0;
};

bool may(const OpenFile& file, int mode) {
  const auto access = static_cast<int>(file.flags.load(std::memory_order_relaxed) & O_ACCMODE);
  return access == mode || access == O_RDWR;
}

long promote_and_decline(OpenFile& file) {
  const int result = promote::file(file);
  return result < 0 ? result : kDeclined;
}

// What was done of a transfer, or why nothing was.
long outcome(uint64_t done, long result) {
  return done > 0 ? static_cast<long>(done) : result;
}

long transfer_in(OpenFile& file, Memory memory, uint64_t total, uint64_t offset) {
  uint64_t done = 0;
  do {
    const uint64_t part = total - done < kDataSize ? total - done : kDataSize;
    Call call(file, Op::read);
    if (!call) return outcome(done, kDeclined);
    call->offset = offset + done;
    call->size = part;
    size_t copied;
    if (const long result = call.run_read(memory.piece(part), part, copied); result < 0)
      return outcome(done, result);
    const uint64_t got = call.answer().value < part ? call.answer().value : part;
    if (copied > got) copied = got;
    memory.skip(copied);
    memory.put(call.data() + copied, got - copied);
    done += got;
    if (got < part) break;
  } while (done < total);
  return static_cast<long>(done);
}

// `end` receives the offset after the last byte, which O_APPEND leaves to the service.
long transfer_out(OpenFile& file, Memory memory, uint64_t total, uint64_t offset, uint64_t& end) {
  uint64_t done = 0;
  const uint32_t flags = file.flags.load();
  do {
    const uint64_t part = total - done < kDataSize ? total - done : kDataSize;
    Call call(file, Op::write, true);
    if (!call) return outcome(done, kDeclined);
    call->offset = offset + done;
    call->size = part;
    call->flags = flags;
    const long result = call.run_write(part, [&](CopyMethod how) { memory.get(how, call.data(), part); });
    if (result < 0) return outcome(done, result);
    const uint64_t put = call.answer().value < part ? call.answer().value : part;
    done += put;
    end = (flags & O_APPEND) != 0 ? call.answer().attr.stx_size : offset + done;
    if (put < part) break;
  } while (done < total);
  return static_cast<long>(done);
}

long sync_if_asked(OpenFile& file) {
  const uint32_t flags = file.flags.load();
  if ((flags & O_DSYNC) == 0) return 0;
  Call call(file, Op::fsync);
  if (!call) return 0;
  call->flags = (flags & O_SYNC) == O_SYNC ? 0 : 1;
  return call.run();
}

// Whether the kernel must do this write: it alone appends more than a buffer's worth in one piece, and sends
// SIGXFSZ.
bool write_is_the_kernels(const OpenFile& file, uint64_t offset, uint64_t total) {
  const uint64_t limit = process::file_size_limit();
  const bool append = (file.flags.load() & O_APPEND) != 0;
  if (append) return total > kDataSize || limit != RLIM_INFINITY;
  return limit != RLIM_INFINITY && (offset > limit || total > limit - offset);
}

long write_all(OpenFile& file, const Memory& memory, uint64_t total, uint64_t offset, uint64_t& end) {
  const long result = transfer_out(file, memory, total, offset, end);
  if (result > 0) {
    if (const long synced = sync_if_asked(file); synced < 0 && synced > kDeclined) return synced;
  }
  return result;
}

struct Request {
  FileRef file;
  uint64_t total = 0;
  // 0: go on; else the answer.
  long begin(int fd, int mode, const iovec* vectors, int count) {
    process::notice_fork();
    file = fds::get(fd);
    if (!file) return kDeclined;
    if (!may(*file, mode)) return -EBADF;
    if (!Memory(vectors, count).measure(total)) return promote_and_decline(*file);
    if (total > kMaxTransfer) total = kMaxTransfer;
    return 0;
  }
};

// Offsets that end beyond what a file can have: the kernel knows which errno.
bool is_sane(off_t offset, uint64_t total) {
  return offset >= 0 && total <= static_cast<uint64_t>(INT64_MAX) - static_cast<uint64_t>(offset);
}

// Moves the file's offset on by `total` and tells where it was, if that is served from there. In one step,
// for a signal handler that comes in between takes what is there, too. Caller holds file.position.
template <typename IsServed>
bool move_on(OpenFile& file, uint64_t total, int64_t& offset, IsServed is_served) {
  offset = file.offset.load();
  do {
    if (!is_sane(offset, total) || !is_served(static_cast<uint64_t>(offset))) return false;
  } while (!file.offset.compare_exchange_weak(offset, offset + static_cast<int64_t>(total)));
  return true;
}

}  // namespace

long read(int fd, const iovec* vectors, int count) {
  Request request;
  if (const long result = request.begin(fd, O_RDONLY, vectors, count); result != 0) return result;
  OpenFile& file = *request.file;
  {
    ThreadLockHold hold(file.position);
    if (file.promoted.load()) return kDeclined;
    if (request.total == 0) return 0;
    const auto total = static_cast<int64_t>(request.total);
    int64_t offset;
    if (move_on(file, request.total, offset, [](uint64_t) { return true; })) {
      const long result =
          transfer_in(file, Memory(vectors, count), request.total, static_cast<uint64_t>(offset));
      file.offset.fetch_sub(total - (result > 0 ? result : 0));
      if (result != kDeclined) return result;
    }
  }
  return promote_and_decline(file);
}

long write(int fd, const iovec* vectors, int count) {
  Request request;
  if (const long result = request.begin(fd, O_WRONLY, vectors, count); result != 0) return result;
  OpenFile& file = *request.file;
  {
    ThreadLockHold hold(file.position);
    if (file.promoted.load()) return kDeclined;
    if (request.total == 0) return 0;
    const auto total = static_cast<int64_t>(request.total);
    int64_t offset;
    if (move_on(file, request.total, offset,
                [&](uint64_t at) { return !write_is_the_kernels(file, at, request.total); })) {
      uint64_t end = 0;
      const long result =
          write_all(file, Memory(vectors, count), request.total, static_cast<uint64_t>(offset), end);
      file.offset.fetch_sub(total - (result > 0 ? result : 0));
      if (result > 0 && (file.flags.load() & O_APPEND) != 0) file.offset.store(static_cast<int64_t>(end));
      if (result != kDeclined) return result;
    }
  }
  return promote_and_decline(file);
}

long read_at(int fd, const iovec* vectors, int count, off_t offset) {
  if (offset < 0) return -EINVAL;
  Request request;
  if (const long result = request.begin(fd, O_RDONLY, vectors, count); result != 0) return result;
  if (request.total == 0) return 0;
  if (!is_sane(offset, request.total)) return promote_and_decline(*request.file);
  const long result =
      transfer_in(*request.file, Memory(vectors, count), request.total, static_cast<uint64_t>(offset));
  return result == kDeclined ? promote_and_decline(*request.file) : result;
}

// With O_APPEND too, pwrite(2) appends (its BUGS section), and the offset stays.
long write_at(int fd, const iovec* vectors, int count, off_t offset) {
  if (offset < 0) return -EINVAL;
  Request request;
  if (const long result = request.begin(fd, O_WRONLY, vectors, count); result != 0) return result;
  if (request.total == 0) return 0;
  OpenFile& file = *request.file;
  if (!is_sane(offset, request.total) ||
      write_is_the_kernels(file, static_cast<uint64_t>(offset), request.total))
    return promote_and_decline(file);
  uint64_t end = 0;
  const long result =
      write_all(file, Memory(vectors, count), request.total, static_cast<uint64_t>(offset), end);
  return result == kDeclined ? promote_and_decline(file) : result;
}

namespace {

// Where SEEK_END, SEEK_DATA and SEEK_HOLE lead; the others need no service.
long seek_target(OpenFile& file, off_t offset, int whence) {
  if (whence == SEEK_SET) return offset;
  if (whence == SEEK_CUR || whence == SEEK_END) {
    int64_t from = file.offset.load();
    if (whence == SEEK_END) {
      Call call(file, Op::getattr);
      if (!call) return kDeclined;
      if (const long result = call.run(); result != 0) return result;
      from = static_cast<int64_t>(call.answer().attr.stx_size);
    }
    int64_t target;
    return __builtin_add_overflow(from, offset, &target) ? -EOVERFLOW : target < 0 ? -EINVAL : target;
  }
  Call call(file, Op::lseek);
  if (!call) return kDeclined;
  call->offset = static_cast<uint64_t>(offset);
  call->flags = static_cast<uint32_t>(whence);
  const long result = call.run();
  return result != 0 ? result : static_cast<long>(call.answer().value);
}

}  // namespace

long seek(int fd, off_t offset, int whence) {
  process::notice_fork();
  const FileRef file = fds::get(fd);
  if (!file) return kDeclined;
  if (whence < SEEK_SET || whence > SEEK_HOLE) return -EINVAL;
  {
    ThreadLockHold hold(file->position);
    if (file->promoted.load()) return kDeclined;
    long target = offset < 0 && whence == SEEK_SET ? -EINVAL : seek_target(*file, offset, whence);
    if (target >= 0) file->offset.store(target);
    if (target != kDeclined) return target;
  }
  return promote_and_decline(*file);
}

}  // namespace poly::files
