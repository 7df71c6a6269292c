// Contents and attributes. Half of the reads first drop the kernel's pages, so that the service is asked.
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "test/faults/workload/tree.hpp"

namespace faults {
namespace {

std::string show(const char* call, int fd, size_t offset, size_t size) {
  return std::string(call) + "(" + std::to_string(fd) + ", " + std::to_string(offset) + " + " +
         std::to_string(size) + ")";
}

}  // namespace

void Tree::do_open() {
  Place at = existing_place();
  InodePtr inode = at.inode();
  if (!inode || !inode->is_file()) return;
  bool truncate = random_.one_in(6), append = random_.one_in(3),
       writable = truncate || append || random_.one_in(2);
  int flags = O_CLOEXEC | O_NOFOLLOW | (writable ? O_RDWR : O_RDONLY) | (truncate ? O_TRUNC : 0) |
              (append ? O_APPEND : 0);
  int fd = -1;
  int got = report_.call("open(" + at.path +
                             (truncate ? ", O_TRUNC)"
                              : append ? ", O_APPEND)"
                                       : ")"),
                         [&] { return fd = open(at.path.c_str(), flags); });
  if (!report_.expect(0, got)) return;
  if (truncate) inode->data.clear();
  keep(fd, inode, writable, append);
}

void Tree::do_write() {
  Handle* h = any_handle();
  if (!h || !h->writable) return;
  size_t size = 1 + random_.below(random_.one_in(10) ? 150'000 : 6000);
  size_t end = h->inode->data.size();
  if (end + size > kLargest) return;
  std::string data = random_.bytes(size);
  size_t offset = h->append ? end : random_.below(end + 1000);
  ssize_t wrote = -1;
  int got = report_.call(show(h->append ? "append" : "pwrite", h->fd, offset, size), [&] {
    return wrote = h->append ? write(h->fd, data.data(), size)
                             : pwrite(h->fd, data.data(), size, static_cast<off_t>(offset));
  });
  if (!report_.expect(0, got)) return;
  report_.expect_that(wrote == static_cast<ssize_t>(size), "wrote only " + std::to_string(wrote));
  model_write(*h->inode, offset, data);
}

void Tree::verify_data(Handle& h, size_t offset, size_t size) {
  if (random_.one_in(2)) (void)posix_fadvise(h.fd, 0, 0, POSIX_FADV_DONTNEED);
  const std::string& all = h.inode->data;
  std::string wanted = offset < all.size() ? all.substr(offset, size) : "";
  std::string found(size, '\0');
  ssize_t n = -1;
  int got = report_.call(show("pread", h.fd, offset, size),
                         [&] { return n = pread(h.fd, found.data(), size, static_cast<off_t>(offset)); });
  if (!report_.expect(0, got)) return;
  found.resize(static_cast<size_t>(n));
  if (found == wanted) return;
  auto differ = std::mismatch(found.begin(), found.end(), wanted.begin(), wanted.end()).first - found.begin();
  report_.fail(std::to_string(n) + " bytes, expected " + std::to_string(wanted.size()) +
               ", first wrong one at " + std::to_string(offset + static_cast<size_t>(differ)) + " of " +
               std::to_string(all.size()) + (h.inode->links ? "" : " (unlinked)"));
}

void Tree::do_read() {
  Handle* h = any_handle();
  if (!h) return;
  size_t offset = random_.below(h->inode->data.size() + 1);
  verify_data(*h, offset, 1 + random_.below(random_.one_in(4) ? 200'000 : 9000));
}

void Tree::do_truncate() {
  size_t size = random_.below(20'000);
  Handle* h = any_handle();
  if (h && h->writable && random_.one_in(2)) {
    int got = report_.call(show("ftruncate", h->fd, 0, size),
                           [&] { return ftruncate(h->fd, static_cast<off_t>(size)); });
    if (report_.expect(0, got)) h->inode->data.resize(size);
    return;
  }
  Place at = existing_place();
  InodePtr inode = at.inode();
  if (!inode || inode->type == Inode::Type::kSymlink) return;
  int got = report_.call("truncate(" + at.path + ", " + std::to_string(size) + ")",
                         [&] { return truncate(at.path.c_str(), static_cast<off_t>(size)); });
  report_.expect(inode->is_directory() ? EISDIR : 0, got);
  if (got == 0 && inode->is_file()) inode->data.resize(size);
}

void Tree::do_punch() {
  Handle* h = any_handle();
  if (!h || !h->writable) return;
  std::string& data = h->inode->data;
  size_t offset = random_.below(data.size() + 1), size = 1 + random_.below(20'000);
  int got = report_.call(show("punch", h->fd, offset, size), [&] {
    return fallocate(h->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                     static_cast<off_t>(size));
  });
  if (report_.expect(0, got) && offset < data.size())
    std::fill_n(data.begin() + static_cast<ptrdiff_t>(offset), std::min(size, data.size() - offset), '\0');
}

void Tree::do_copy() {
  Handle *in = any_handle(), *out = any_handle();
  if (!in || in->inode == out->inode || !out->writable || out->append) return;
  off_t from = static_cast<off_t>(random_.below(in->inode->data.size() + 1));
  off_t to = static_cast<off_t>(random_.below(out->inode->data.size() + 1));
  size_t size = 1 + random_.below(30'000);
  auto start = static_cast<size_t>(from), goal = static_cast<size_t>(to);
  if (goal + size > kLargest) return;
  ssize_t n = -1;
  int got = report_.call(show("copy_file_range", out->fd, goal, size),
                         [&] { return n = copy_file_range(in->fd, &from, out->fd, &to, size, 0); });
  if (!report_.expect(0, got)) return;
  size_t wanted = std::min(size, in->inode->data.size() - start);
  report_.expect_that(n == static_cast<ssize_t>(wanted),
                      "copied " + std::to_string(n) + " of " + std::to_string(wanted));
  model_write(*out->inode, goal, in->inode->data.substr(start, static_cast<size_t>(n)));
}

void Tree::do_map() {
  Handle* h = any_handle();
  if (!h || !h->writable || h->inode->data.empty()) return;
  size_t size = h->inode->data.size(), offset = random_.below(size);
  std::string data = random_.bytes(1 + random_.below(std::min<size_t>(size - offset, 9000)));
  auto* map = static_cast<char*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, h->fd, 0));
  if (!report_.expect_that(map != MAP_FAILED, "mmap: " + error_name(errno))) return;
  int got = report_.call(show("mmap store", h->fd, offset, data.size()), [&] {
    std::memcpy(map + offset, data.data(), data.size());
    return msync(map, size, MS_SYNC);
  });
  munmap(map, size);
  if (report_.expect(0, got)) model_write(*h->inode, offset, data);
}

void Tree::do_close() {
  if (!handles_.empty()) close_handle(random_.below(handles_.size()));
}

void Tree::verify_stat(const struct stat& st, const Inode& inode) {
  mode_t type = inode.is_directory() ? S_IFDIR : inode.is_file() ? S_IFREG : S_IFLNK;
  report_.expect_that((st.st_mode & S_IFMT) == type, "another type of file");
  if (!inode.is_directory()) {
    report_.expect_that(st.st_nlink == inode.links,
                        std::to_string(st.st_nlink) + " links, expected " + std::to_string(inode.links));
    report_.expect_that(
        static_cast<size_t>(st.st_size) == inode.data.size(),
        "size " + std::to_string(st.st_size) + ", expected " + std::to_string(inode.data.size()));
  }
  if (type != S_IFLNK)
    report_.expect_that((st.st_mode & 07777) == inode.mode, "mode " + std::to_string(st.st_mode & 07777));
}

void Tree::do_stat() {
  struct stat st {};
  Handle* h = any_handle();
  if (h && random_.one_in(2)) {
    if (report_.expect(
            0, report_.call("fstat(" + std::to_string(h->fd) + ")", [&] { return fstat(h->fd, &st); })))
      verify_stat(st, *h->inode);
    return;
  }
  Place at = existing_place();
  InodePtr inode = at.inode();
  int got = report_.call("lstat(" + at.path + ")", [&] { return lstat(at.path.c_str(), &st); });
  if (!report_.expect(inode ? 0 : ENOENT, got) || !inode) return;
  verify_stat(st, *inode);
  if (inode->is_directory() || !random_.one_in(3)) return;
  if (inode->is_file()) {
    mode_t mode = 0600 | static_cast<mode_t>(random_.below(64));
    got = report_.call("chmod(" + at.path + ")", [&] { return chmod(at.path.c_str(), mode); });
    if (report_.expect(0, got)) inode->mode = mode;
    return;
  }
  char target[256];
  ssize_t n = -1;
  got = report_.call("readlink(" + at.path + ")",
                     [&] { return n = readlink(at.path.c_str(), target, sizeof target); });
  if (report_.expect(0, got))
    report_.expect_that(std::string(target, static_cast<size_t>(n)) == inode->data, "another target");
}

void Tree::do_xattr() {
  Place at = existing_place();
  InodePtr inode = at.inode();
  if (!inode || inode->type == Inode::Type::kSymlink) return;
  std::string name = "user.x" + std::to_string(random_.below(3));
  auto& xattrs = inode->xattrs;
  bool there = xattrs.contains(name);
  const char* path = at.path.c_str();
  if (random_.one_in(4)) {
    int got = report_.call("removexattr(" + at.path + ", " + name + ")",
                           [&] { return removexattr(path, name.c_str()); });
    if (report_.expect(there ? 0 : ENODATA, got)) xattrs.erase(name);
  } else if (random_.one_in(3)) {
    char value[256];
    ssize_t n = -1;
    int got = report_.call("getxattr(" + at.path + ", " + name + ")",
                           [&] { return n = getxattr(path, name.c_str(), value, sizeof value); });
    if (report_.expect(there ? 0 : ENODATA, got) && there)
      report_.expect_that(std::string(value, static_cast<size_t>(n)) == xattrs[name], "another value");
  } else {
    static constexpr int kFlags[]{0, XATTR_CREATE, XATTR_REPLACE};
    int flags = kFlags[random_.below(3)];
    // Often the value that is there: a repeated XATTR_CREATE must not take it for its own.
    std::string value = there && random_.one_in(2) ? xattrs[name] : random_.bytes(random_.below(40));
    int wanted = flags == XATTR_CREATE && there ? EEXIST : flags == XATTR_REPLACE && !there ? ENODATA : 0;
    int got = report_.call("setxattr(" + at.path + ", " + name + ", " + std::to_string(flags) + ")",
                           [&] { return setxattr(path, name.c_str(), value.data(), value.size(), flags); });
    if (report_.expect(wanted, got) && got == 0) xattrs[name] = value;
  }
}

void Tree::verify_names(const std::string& path, const Inode& directory) {
  std::string shown = path.empty() ? "." : path;
  DIR* dir = nullptr;
  int got = report_.call("opendir(" + shown + ")", [&] { return (dir = opendir(shown.c_str())) ? 0 : -1; });
  if (!report_.expect(0, got)) return;
  std::multiset<std::string> found;
  got = report_.call("readdir(" + shown + ")", [&] {
    errno = 0;
    while (dirent* entry = readdir(dir)) {
      if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0)
        found.insert(entry->d_name);
      errno = 0;
    }
    return errno ? -1 : 0;
  });
  closedir(dir);
  if (!report_.expect(0, got)) return;
  std::multiset<std::string> wanted;
  for (auto& [name, inode] : directory.entries) wanted.insert(name);
  report_.expect_that(found == wanted,
                      std::to_string(found.size()) + " entries, expected " + std::to_string(wanted.size()));
}

void Tree::do_list() {
  std::string path;
  InodePtr directory = any_directory(path);
  verify_names(path, *directory);
}

}  // namespace faults
