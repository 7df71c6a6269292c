// Operations on names: made, removed and moved, each exactly once whoever dies meanwhile.
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "test/faults/workload/tree.hpp"

namespace faults {

void Tree::do_mkdir() {
  Place at = any_place();
  if (std::count(at.path.begin(), at.path.end(), '/') > 3 || !has_room_for_directories()) return;
  int got = report_.call("mkdir(" + at.path + ")", [&] { return mkdir(at.path.c_str(), 0750); });
  report_.expect(model_make(at, make_inode(Inode::Type::kDirectory, 0750)), got);
}

void Tree::do_rmdir() {
  Place at = existing_place();
  int got = report_.call("rmdir(" + at.path + ")", [&] { return rmdir(at.path.c_str()); });
  report_.expect(model_rmdir(at), got);
}

void Tree::do_create() {
  Place at = any_place();
  bool append = random_.one_in(3);
  int fd = -1;
  int got = report_.call("open(" + at.path + ", O_CREAT | O_EXCL" + (append ? " | O_APPEND)" : ")"), [&] {
    return fd = open(at.path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | (append ? O_APPEND : 0), 0640);
  });
  InodePtr fresh = make_inode(Inode::Type::kFile, 0640);
  report_.expect(model_make(at, fresh), got);
  if (fd >= 0) keep(fd, fresh, true, append);
}

void Tree::do_unlink() {
  Place at = existing_place();
  int got = report_.call("unlink(" + at.path + ")", [&] { return unlink(at.path.c_str()); });
  report_.expect(model_unlink(at), got);
}

void Tree::do_rename() {
  Place from = existing_place(), to = random_.one_in(2) ? existing_place() : any_place();
  if (std::count(to.path.begin(), to.path.end(), '/') > 3) return;
  static constexpr unsigned kFlags[]{0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
  unsigned flags = plain_ ? 0 : kFlags[random_.below(5)];
  const char* name = flags == RENAME_NOREPLACE  ? ", NOREPLACE)"
                     : flags == RENAME_EXCHANGE ? ", EXCHANGE)"
                                                : ")";
  int got = report_.call("rename(" + from.path + ", " + to.path + name, [&] {
    return renameat2(AT_FDCWD, from.path.c_str(), AT_FDCWD, to.path.c_str(), flags);
  });
  report_.expect(model_rename(from, to, flags), got);
}

void Tree::do_link() {
  Place from = existing_place(), to = any_place();
  InodePtr target = from.inode();
  if (!target) return;
  int got = report_.call("link(" + from.path + ", " + to.path + ")",
                         [&] { return linkat(AT_FDCWD, from.path.c_str(), AT_FDCWD, to.path.c_str(), 0); });
  report_.expect(model_link(target, to), got);
}

void Tree::do_symlink() {
  Place at = any_place();
  InodePtr fresh = make_inode(Inode::Type::kSymlink, 0777);
  fresh->data = "target-" + std::to_string(random_.next());
  int got =
      report_.call("symlink(" + at.path + ")", [&] { return symlink(fresh->data.c_str(), at.path.c_str()); });
  report_.expect(model_make(at, fresh), got);
}

// Sometimes given a name later, which only a tmpfile without O_EXCL can be.
void Tree::do_tmpfile() {
  if (plain_) return;
  std::string path;
  any_directory(path);
  if (path.empty()) path = ".";
  int fd = -1;
  int got = report_.call("open(" + path + ", O_TMPFILE)",
                         [&] { return fd = open(path.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0640); });
  if (!report_.expect(0, got)) return;
  InodePtr fresh = make_inode(Inode::Type::kFile, 0640);
  fresh->links = 0;
  keep(fd, fresh, true, false);
  Handle& handle = handles_.back();
  std::string data = random_.bytes(random_.below(5000));
  got = report_.call("pwrite(tmpfile)", [&] { return pwrite(fd, data.data(), data.size(), 0); });
  if (report_.expect(0, got)) model_write(*handle.inode, 0, data);
  if (random_.one_in(2)) return;
  Place to = any_place();
  std::string link = "/proc/self/fd/" + std::to_string(fd);
  got = report_.call("link(tmpfile, " + to.path + ")", [&] {
    return linkat(AT_FDCWD, link.c_str(), AT_FDCWD, to.path.c_str(), AT_SYMLINK_FOLLOW);
  });
  report_.expect(model_link(fresh, to), got);
}

}  // namespace faults
