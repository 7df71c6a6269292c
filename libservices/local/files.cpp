// Operations on open files and directories.
#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "libservices/local/local.hpp"

namespace poly {
namespace {

LocalFile& local(File& file) {
  return static_cast<LocalFile&>(file);
}

// struct linux_dirent64 of getdents64(2).
struct HostDirent {
  uint64_t ino;
  int64_t next;
  uint16_t size;
  uint8_t type;
  char name[];
};
constexpr size_t kDirectoryBuffer = 32 * 1024;

}  // namespace

ssize_t Local::read(File& file, uint64_t offset, std::span<std::byte> out) {
  size_t done = 0;
  while (done < out.size()) {
    ssize_t n =
        pread(local(file).fd->get(), out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0) {
      if (errno == EINTR) continue;
      return done ? static_cast<ssize_t>(done) : -errno;
    }
    done += static_cast<size_t>(n);
    // A short read of a regular file is its end; asking again would only cost a call.
    if (n == 0 || done < out.size()) break;
  }
  return static_cast<ssize_t>(done);
}

ssize_t Local::write(File& file, uint64_t offset, std::span<const std::byte> in) {
  size_t done = 0;
  while (done < in.size()) {
    ssize_t n =
        pwrite(local(file).fd->get(), in.data() + done, in.size() - done, static_cast<off_t>(offset + done));
    if (n < 0) {
      if (errno == EINTR) continue;
      return done ? static_cast<ssize_t>(done) : -errno;
    }
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return static_cast<ssize_t>(done);
}

// close(2) of a duplicate makes a host filesystem that reports late (NFS, FUSE) report now.
int Local::flush(File& file) {
  if (!flush_reports_) return 0;
  int fd = fcntl(local(file).fd->get(), F_DUPFD_CLOEXEC, 0);
  if (fd < 0) return -errno;
  return ::close(fd) == 0 || errno == EINTR ? 0 : -errno;
}

int Local::fsync(File& file, bool data_only) {
  int fd = local(file).fd->get();
  return (data_only ? fdatasync(fd) : ::fsync(fd)) == 0 ? 0 : -errno;
}

int Local::readdir(File& file, uint64_t cookie, DirSink& sink) {
  LocalFile& dir = local(file);
  std::lock_guard guard(dir.dir_lock);
  // rewinddir(3) must see the directory as it is now, so the start is never served from the buffer.
  if (cookie == 0 || cookie != dir.entries_cookie || dir.entries_used == dir.entries_size) {
    if (cookie != 0 && dir.entries.empty()) {
      // Opened again after a restart. ext4 takes the position of a descriptor's first getdents64 for its
      // start: one that begins at the end of the directory would find it empty ever after (ext4_dx_readdir,
      // fs/ext4/dir.c, Linux 6.18).
      dir.entries.resize(kDirectoryBuffer);
      (void)syscall(SYS_getdents64, dir.fd->get(), dir.entries.data(), dir.entries.size());
    }
    if (::lseek(dir.fd->get(), static_cast<off_t>(cookie), SEEK_SET) < 0) return -errno;
    dir.entries_used = dir.entries_size = 0;
    dir.entries_cookie = cookie;
  }
  if (dir.entries.empty()) dir.entries.resize(kDirectoryBuffer);
  for (;;) {
    if (dir.entries_used == dir.entries_size) {
      long n = syscall(SYS_getdents64, dir.fd->get(), dir.entries.data(), dir.entries.size());
      if (n < 0) return errno == ENOENT ? 0 : -errno;  // ENOENT: the directory is removed; it has no entries
      dir.entries_used = 0;
      dir.entries_size = static_cast<size_t>(n);
      if (n == 0) return 0;
    }
    auto* entry = reinterpret_cast<const HostDirent*>(dir.entries.data() + dir.entries_used);
    if (!sink.add({entry->name, entry->ino, static_cast<uint64_t>(entry->next), entry->type})) return 0;
    dir.entries_used += entry->size;
    dir.entries_cookie = static_cast<uint64_t>(entry->next);
  }
}

int Local::fallocate(File& file, uint32_t mode, uint64_t offset, uint64_t length) {
  int fd = local(file).fd->get();
  return ::fallocate(fd, static_cast<int>(mode), static_cast<off_t>(offset), static_cast<off_t>(length)) == 0
             ? 0
             : -errno;
}

int64_t Local::lseek(File& file, int64_t offset, int whence) {
  off_t found = ::lseek(local(file).fd->get(), offset, whence);
  return found < 0 ? -errno : found;
}

ssize_t Local::copy_range(File& in, uint64_t offset_in, File& out, uint64_t offset_out, uint64_t length) {
  off_t from = static_cast<off_t>(offset_in), to = static_cast<off_t>(offset_out);
  ssize_t n = copy_file_range(local(in).fd->get(), &from, local(out).fd->get(), &to, length, 0);
  return n < 0 ? -errno : n;
}

int Local::lend(File& file, Loan& out) {
  LocalFile& f = local(file);
  if (!S_ISREG(f.node->type)) return -ENOTSUP;
  int flags = fcntl(f.fd->get(), F_GETFL);
  if (flags < 0) return -errno;
  out = {f.fd->get(), (flags & O_ACCMODE) != O_RDONLY};
  return 0;
}

}  // namespace poly
