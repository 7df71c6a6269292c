// poly-error-fs BACKING MOUNTPOINT: passes everything on to a directory, but fails what a file's name asks
// for.
//
// A file called "fail-read-EIO" fails every read(2) with EIO; operations are read, write, fsync and flush,
// errors EIO, ENOSPC and EDQUOT. The name may go on after another "-". Runs in the foreground until it is
// unmounted.
#define FUSE_USE_VERSION 31
#include <dirent.h>
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

namespace {

int backing = -1;

const char* relative(const char* path) {
  return path[1] ? path + 1 : ".";
}

int injected(const char* path, const std::string& operation) {
  std::string text(path);
  for (auto [name, error] : {std::pair("EIO", EIO), {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}}) {
    if (text.find("fail-" + operation + "-" + name) != std::string::npos) return error;
  }
  return 0;
}

int result(ssize_t value) {
  return value < 0 ? -errno : static_cast<int>(value);
}

int do_getattr(const char* path, struct stat* out, fuse_file_info*) {
  return result(fstatat(backing, relative(path), out, AT_SYMLINK_NOFOLLOW));
}

int do_readdir(const char* path, void* buffer, fuse_fill_dir_t fill, off_t, fuse_file_info*,
               fuse_readdir_flags) {
  int fd = openat(backing, relative(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* dir = fd < 0 ? nullptr : fdopendir(fd);
  if (!dir) return -errno;
  while (dirent* entry = readdir(dir)) fill(buffer, entry->d_name, nullptr, 0, fuse_fill_dir_flags{});
  closedir(dir);
  return 0;
}

int open_as(const char* path, int flags, mode_t mode, fuse_file_info* info) {
  int fd = openat(backing, relative(path), flags | O_CLOEXEC, mode);
  info->fh = static_cast<uint64_t>(fd);
  return fd < 0 ? -errno : 0;
}
int do_open(const char* path, fuse_file_info* info) {
  return open_as(path, info->flags & ~O_APPEND, 0, info);
}
int do_create(const char* path, mode_t mode, fuse_file_info* info) {
  return open_as(path, (info->flags & ~O_APPEND) | O_CREAT, mode, info);
}
int do_release(const char*, fuse_file_info* info) {
  return result(close(static_cast<int>(info->fh)));
}

int do_read(const char* path, char* out, size_t size, off_t offset, fuse_file_info* info) {
  if (int error = injected(path, "read")) return -error;
  return result(pread(static_cast<int>(info->fh), out, size, offset));
}
int do_write(const char* path, const char* in, size_t size, off_t offset, fuse_file_info* info) {
  if (int error = injected(path, "write")) return -error;
  return result(pwrite(static_cast<int>(info->fh), in, size, offset));
}
int do_fsync(const char* path, int, fuse_file_info* info) {
  if (int error = injected(path, "fsync")) return -error;
  return result(fsync(static_cast<int>(info->fh)));
}
int do_flush(const char* path, fuse_file_info*) {
  return -injected(path, "flush");
}

int do_truncate(const char* path, off_t size, fuse_file_info*) {
  int fd = openat(backing, relative(path), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  int failed = ftruncate(fd, size) == 0 ? 0 : -errno;
  close(fd);
  return failed;
}
int do_mkdir(const char* path, mode_t mode) {
  return result(mkdirat(backing, relative(path), mode));
}
int do_unlink(const char* path) {
  return result(unlinkat(backing, relative(path), 0));
}
int do_rmdir(const char* path) {
  return result(unlinkat(backing, relative(path), AT_REMOVEDIR));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || (backing = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
    fprintf(stderr, "usage: poly-error-fs BACKING MOUNTPOINT\n");
    return 2;
  }
  fuse_operations operations{};
  operations.getattr = do_getattr;
  operations.readdir = do_readdir;
  operations.open = do_open;
  operations.create = do_create;
  operations.release = do_release;
  operations.read = do_read;
  operations.write = do_write;
  operations.fsync = do_fsync;
  operations.flush = do_flush;
  operations.truncate = do_truncate;
  operations.mkdir = do_mkdir;
  operations.unlink = do_unlink;
  operations.rmdir = do_rmdir;
  char foreground[] = "-f";
  char* arguments[]{argv[0], foreground, argv[2], nullptr};
  return fuse_main(3, arguments, &operations, nullptr);
}
