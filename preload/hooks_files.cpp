// Reading, writing and space of open files.
#include <errno.h>

#include "preload/answer.hpp"
#include "preload/calls.hpp"
#include "preload/fd_table.hpp"
#include "preload/files.hpp"
#include "preload/mounts.hpp"
#include "preload/paths.hpp"
#include "preload/process.hpp"
#include "preload/promote.hpp"
#include "preload/real.hpp"

using namespace poly;

POLY_HOOK ssize_t read(int fd, void* data, size_t size) {
  const iovec vector{data, size};
  POLY_SERVE_IO(fd, files::read(fd, &vector, 1));
  return real::read(fd, data, size);
}

POLY_HOOK ssize_t write(int fd, const void* data, size_t size) {
  const iovec vector{const_cast<void*>(data), size};
  POLY_SERVE_IO(fd, files::write(fd, &vector, 1));
  return real::write(fd, data, size);
}

POLY_HOOK ssize_t pread(int fd, void* data, size_t size, off_t offset) {
  const iovec vector{data, size};
  POLY_SERVE_IO(fd, files::read_at(fd, &vector, 1, offset));
  return real::pread(fd, data, size, offset);
}

POLY_HOOK ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  const iovec vector{const_cast<void*>(data), size};
  POLY_SERVE_IO(fd, files::write_at(fd, &vector, 1, offset));
  return real::pwrite(fd, data, size, offset);
}

POLY_HOOK ssize_t readv(int fd, const iovec* vectors, int count) {
  POLY_SERVE_IO(fd, files::read(fd, vectors, count));
  return real::readv(fd, vectors, count);
}

POLY_HOOK ssize_t writev(int fd, const iovec* vectors, int count) {
  POLY_SERVE_IO(fd, files::write(fd, vectors, count));
  return real::writev(fd, vectors, count);
}

POLY_HOOK ssize_t preadv(int fd, const iovec* vectors, int count, off_t offset) {
  POLY_SERVE_IO(fd, files::read_at(fd, vectors, count, offset));
  return real::preadv(fd, vectors, count, offset);
}

POLY_HOOK ssize_t pwritev(int fd, const iovec* vectors, int count, off_t offset) {
  POLY_SERVE_IO(fd, files::write_at(fd, vectors, count, offset));
  return real::pwritev(fd, vectors, count, offset);
}

// Flags (RWF_APPEND, RWF_NOWAIT, ...) are the kernel's; offset -1 means the file's own.
POLY_HOOK ssize_t preadv2(int fd, const iovec* vectors, int count, off_t offset, int flags) {
  POLY_SERVE_IO(fd, flags != 0     ? files::promoted(fd)
                    : offset == -1 ? files::read(fd, vectors, count)
                                   : files::read_at(fd, vectors, count, offset));
  return real::preadv2(fd, vectors, count, offset, flags);
}

POLY_HOOK ssize_t pwritev2(int fd, const iovec* vectors, int count, off_t offset, int flags) {
  POLY_SERVE_IO(fd, flags != 0     ? files::promoted(fd)
                    : offset == -1 ? files::write(fd, vectors, count)
                                   : files::write_at(fd, vectors, count, offset));
  return real::pwritev2(fd, vectors, count, offset, flags);
}

// _FORTIFY_SOURCE: the buffer's size is known.
POLY_HOOK ssize_t __read_chk(int fd, void* data, size_t size, size_t room) {
  if (size > room) __chk_fail();
  return read(fd, data, size);
}

POLY_HOOK ssize_t __pread_chk(int fd, void* data, size_t size, off_t offset, size_t room) {
  if (size > room) __chk_fail();
  return pread(fd, data, size, offset);
}

POLY_HOOK off_t lseek(int fd, off_t offset, int whence) noexcept {
  POLY_SERVE_FD(off_t, fd, files::seek(fd, offset, whence));
  return real::lseek(fd, offset, whence);
}

POLY_HOOK int ftruncate(int fd, off_t size) noexcept {
  POLY_SERVE_FD(int, fd, files::resize(fd, size));
  return real::ftruncate(fd, size);
}

POLY_HOOK int fsync(int fd) {
  POLY_SERVE_FD(int, fd, files::sync(fd, false));
  return real::fsync(fd);
}

POLY_HOOK int fdatasync(int fd) {
  POLY_SERVE_FD(int, fd, files::sync(fd, true));
  return real::fdatasync(fd);
}

// No page of the file is in the kernel's cache because of us: there is nothing to write back.
POLY_HOOK int sync_file_range(int fd, off_t offset, off_t size, unsigned flags) {
  const bool sane = offset >= 0 && size >= 0 && offset <= INT64_MAX - size && (flags & ~7u) == 0;
  POLY_SERVE_FD(int, fd, sane ? 0 : files::promoted(fd));
  return real::sync_file_range(fd, offset, size, flags);
}

POLY_HOOK int fallocate(int fd, int mode, off_t offset, off_t size) {
  POLY_SERVE_FD(int, fd, files::allocate(fd, mode, offset, size));
  return real::fallocate(fd, mode, offset, size);
}

// Answers with the error itself. Where the service cannot, libc writes zeros through the kernel.
POLY_HOOK int posix_fallocate(int fd, off_t offset, off_t size) {
  if (fds::is_library(fd)) {
    long result = files::allocate(fd, 0, offset, size);
    if (result == -EOPNOTSUPP) result = files::promoted(fd);
    if (result != kDeclined) return static_cast<int>(-result);
  }
  return real::posix_fallocate(fd, offset, size);
}

// Advice about pages that the kernel does not have for us. Answers with the error itself.
POLY_HOOK int posix_fadvise(int fd, off_t offset, off_t size, int advice) noexcept {
  if (fds::is_library(fd)) return size < 0 || advice < 0 || advice > POSIX_FADV_NOREUSE ? EINVAL : 0;
  return real::posix_fadvise(fd, offset, size, advice);
}

POLY_HOOK ssize_t readahead(int fd, off_t offset, size_t size) noexcept {
  POLY_SERVE_FD(int, fd, files::is_readable(fd));
  return real::readahead(fd, offset, size);
}

POLY_HOOK ssize_t copy_file_range(int in, off_t* in_offset, int out, off_t* out_offset, size_t size,
                                  unsigned flags) {
  if (flags == 0) POLY_SERVE(ssize_t, files::copy_range(in, in_offset, out, out_offset, size));
  if (process::on()) mounts::refresh_size(in);
  return real::copy_file_range(in, in_offset, out, out_offset, size, flags);
}

POLY_ALIAS(__read, read)
POLY_ALIAS(__write, write)
POLY_ALIAS(pread64, pread)
POLY_ALIAS(__pread64, pread)
POLY_ALIAS(pwrite64, pwrite)
POLY_ALIAS(__pwrite64, pwrite)
POLY_ALIAS(preadv64, preadv)
POLY_ALIAS(pwritev64, pwritev)
POLY_ALIAS(preadv64v2, preadv2)
POLY_ALIAS(pwritev64v2, pwritev2)
POLY_ALIAS(__pread64_chk, __pread_chk)
POLY_ALIAS(lseek64, lseek)
POLY_ALIAS(__lseek, lseek)
POLY_ALIAS(llseek, lseek)
POLY_ALIAS(ftruncate64, ftruncate)
POLY_ALIAS(fallocate64, fallocate)
POLY_ALIAS(posix_fallocate64, posix_fallocate)
POLY_ALIAS(posix_fadvise64, posix_fadvise)
