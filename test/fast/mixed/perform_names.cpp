#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "test/fast/mixed/perform.hpp"

namespace mixed {
namespace {

constexpr int64_t kBillion = 1'000'000'000;

void copy_attributes(const struct stat& from, Attributes& to) {
  to.present = 1;
  to.mode = from.st_mode;
  to.uid = from.st_uid;
  to.gid = from.st_gid;
  to.inode = from.st_ino;
  to.nlink = from.st_nlink;
  to.size = S_ISDIR(from.st_mode) ? 0 : from.st_size;
  to.modified_ns = from.st_mtim.tv_sec * kBillion + from.st_mtim.tv_nsec;
  to.changed_ns = from.st_ctim.tv_sec * kBillion + from.st_ctim.tv_nsec;
}

void put_text(const std::string& text, Result& out) {
  out.hash = hash_of(text.data(), text.size());
  snprintf(out.text, sizeof out.text, "%s", text.c_str());
}

}  // namespace

int64_t Performer::status(const Request& r, Attributes& out) {
  struct stat st;
  const Name name = first(r);
  const int result = r.operation == Operation::fstat ? fstat(fd(r.slot), &st)
                     : r.operation == Operation::stat
                         ? fstatat(name.base, name.path.c_str(), &st, 0)
                         : fstatat(name.base, name.path.c_str(), &st, AT_SYMLINK_NOFOLLOW);
  if (result != 0) return -errno;
  copy_attributes(st, out);
  return 0;
}

int64_t Performer::set_times(const Request& r) {
  const timespec times[]{
      {(r.flags & 1) != 0 ? 0 : r.offset, (r.flags & 1) != 0 ? UTIME_OMIT : 1000},
      {r.offset * 3, (r.flags & 2) != 0 ? UTIME_NOW : static_cast<long>(r.seed % 1000000000)}};
  if (r.operation == Operation::futimes) return outcome(futimens(fd(r.slot), times));
  const Name name = first(r);
  return outcome(
      utimensat(name.base, name.path.c_str(), times, (r.flags & 4) != 0 ? AT_SYMLINK_NOFOLLOW : 0));
}

int64_t Performer::list(const Request& r, Result& out) {
  const Name name = first(r);
  const int fd = openat(name.base, name.path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  DIR* directory = fdopendir(fd);
  std::vector<std::string> names;
  while (const dirent* entry = readdir(directory))
    names.push_back(std::string(entry->d_name) + ":" + std::to_string(entry->d_type));
  closedir(directory);
  std::sort(names.begin(), names.end());
  std::string all;
  for (const std::string& one : names) all += one + " ";
  put_text(all, out);
  return static_cast<int64_t>(names.size());
}

int64_t Performer::xattr(const Request& r, Result& out) {
  const Name name = first(r);
  // These have no form with a directory descriptor.
  const std::string path = r.base >= 0 ? r.path : name.path;
  const std::string key = "user." + std::string(1, static_cast<char>('a' + r.flags % 3));
  char data[512];
  int64_t size;
  switch (r.operation) {
    case Operation::set_xattr: {
      const std::string value = bytes(r.seed, r.size % 300);
      return outcome(setxattr(path.c_str(), key.c_str(), value.data(), value.size(), 0));
    }
    case Operation::remove_xattr:
      return outcome(removexattr(path.c_str(), key.c_str()));
    case Operation::get_xattr:
      size = outcome(getxattr(path.c_str(), key.c_str(), data, sizeof data));
      if (size > 0) out.hash = hash_of(data, static_cast<size_t>(size));
      return size;
    default:
      size = outcome(listxattr(path.c_str(), data, sizeof data));
  }
  // In no certain order.
  for (int64_t i = 0; i < size; ++i) out.hash += static_cast<unsigned char>(data[i]);
  return size;
}

void Performer::on_attributes(const Request& r, Result& out) {
  const Name name = first(r);
  const char* path = name.path.c_str();
  switch (r.operation) {
    case Operation::fstat:
    case Operation::stat:
    case Operation::lstat:
      out.value = status(r, out.attributes);
      break;
    case Operation::access:
      out.value = outcome(faccessat(name.base, path, r.flags & 7, 0));
      break;
    case Operation::chmod:
      out.value = outcome(fchmodat(name.base, path, r.mode, 0));
      break;
    case Operation::fchmod:
      out.value = outcome(fchmod(fd(r.slot), r.mode));
      break;
    case Operation::chown:
      out.value = outcome(fchownat(name.base, path, r.seed % 3 == 0 ? 0 : 65534, r.seed % 2 == 0 ? 0 : 65534,
                                   (r.flags & 1) != 0 ? AT_SYMLINK_NOFOLLOW : 0));
      break;
    case Operation::utimes:
    case Operation::futimes:
      out.value = set_times(r);
      break;
    case Operation::truncate: {
      // Another call without a directory descriptor. Not to the size that the file has: then ext4 takes it
      // for modified, and tmpfs does not.
      const char* name = r.base >= 0 ? r.path : path;
      struct stat st {};
      const bool has_it = stat(name, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == r.offset;
      if (!has_it) out.value = outcome(::truncate(name, r.offset));
      break;
    }
    default:
      out.value = xattr(r, out);
  }
}

// A directory that a process holds open or works in, and that another front end has moved to another
// directory, must be moved among the kernel's names, too, when it is looked up; in the middle of a rename
// that fails (ESTALE; __d_unalias, fs/dcache.c, finds s_vfs_rename_mutex taken). So it is looked up before.
int64_t Performer::rename(const Name& from, const Name& to, unsigned flags) {
  struct stat st;
  (void)fstatat(from.base, from.path.c_str(), &st, AT_SYMLINK_NOFOLLOW);
  (void)fstatat(to.base, to.path.c_str(), &st, AT_SYMLINK_NOFOLLOW);
  return outcome(renameat2(from.base, from.path.c_str(), to.base, to.path.c_str(), flags));
}

void Performer::on_names(const Request& r, Result& out) {
  const Name one = first(r), two = second(r);
  const char *path = one.path.c_str(), *path2 = two.path.c_str();
  char target[kPath + 64];
  switch (r.operation) {
    case Operation::mkdir:
      out.value = outcome(mkdirat(one.base, path, r.mode | 0700));
      break;
    case Operation::rmdir:
      out.value = outcome(unlinkat(one.base, path, AT_REMOVEDIR));
      break;
    case Operation::unlink:
      out.value = outcome(unlinkat(one.base, path, 0));
      break;
    case Operation::rename:
      out.value = rename(one, two, 0);
      break;
    case Operation::exchange:
      out.value = rename(one, two, RENAME_EXCHANGE);
      break;
    case Operation::noreplace:
      out.value = rename(one, two, RENAME_NOREPLACE);
      break;
    case Operation::link:
      out.value =
          outcome(linkat(one.base, path, two.base, path2, (r.flags & 1) != 0 ? AT_SYMLINK_FOLLOW : 0));
      break;
    case Operation::symlink:
      out.value = outcome(symlinkat(r.path2, one.base, path));
      break;
    case Operation::readlink:
      out.value = outcome(readlinkat(one.base, path, target, sizeof target));
      if (out.value > 0) put_text(std::string(target, static_cast<size_t>(out.value)), out);
      break;
    case Operation::list:
      out.value = list(r, out);
      break;
    default:
      on_attributes(r, out);
  }
}

}  // namespace mixed
