// O_TMPFILE (open(2)), which not every filesystem has; compared with the reference.
#include "test/conformance/suite/suite.hpp"

namespace {

Fd tmpfile_in(const char* directory, int flags, mode_t mode = 0644) {
  const int fd = open(directory, O_TMPFILE | flags, mode);
  if (fd < 0 && errno == EOPNOTSUPP) SKIP("no O_TMPFILE");
  return fd;
}

int link_into(const Fd& fd, const char* name) {
  return linkat(AT_FDCWD, ("/proc/self/fd/" + std::to_string(fd)).c_str(), AT_FDCWD, name, AT_SYMLINK_FOLLOW);
}

}  // namespace

CASE(tmpfile, has_no_name) {
  const Fd fd = OK(tmpfile_in(".", O_RDWR));
  EQ(names("."), "");
  OK(write(fd, "text", 4));
  EQ(content(static_cast<int>(fd)), "text");
  EQ(nlink(static_cast<int>(fd)), 0);
  EQ(mode(static_cast<int>(fd)), "0644");
}

CASE(tmpfile, gets_a_name_by_linkat) {
  const Fd fd = OK(tmpfile_in(".", O_RDWR, 0640));
  OK(write(fd, "text", 4));
  OK(link_into(fd, "f"));
  EQ(content("f"), "text");
  EQ(nlink("f"), 1);
  EQ(mode("f"), "0640");
  OK(link_into(fd, "g"));
  EQ(nlink("f"), 2);
  CHECK(same_file("f", "g"));
}

CASE(tmpfile, exclusive_never_gets_a_name) {
  const Fd fd = OK(tmpfile_in(".", O_RDWR | O_EXCL));
  FAILS(ENOENT, link_into(fd, "f"));
  EQ(names("."), "");
}

CASE(tmpfile, name_that_exists) {
  OK(make_file("f", "old"));
  const Fd fd = OK(tmpfile_in(".", O_RDWR));
  FAILS(EEXIST, link_into(fd, "f"));
  EQ(content("f"), "old");
}

CASE(tmpfile, needs_write_access) {
  FAILS(EINVAL, open(".", O_TMPFILE | O_RDONLY, 0644));
  const Fd fd = OK(tmpfile_in(".", O_WRONLY));
}

CASE(tmpfile, needs_a_directory) {
  OK(make_file("f"));
  (void)tmpfile_in(".", O_RDWR);
  FAILS(ENOTDIR, open("f", O_TMPFILE | O_RDWR, 0644));
  FAILS(ENOENT, open("none", O_TMPFILE | O_RDWR, 0644));
}

CASE(tmpfile, needs_a_writable_directory, .root = true) {
  (void)tmpfile_in(".", O_RDWR);
  OK(make_dir("fixed", 0755));
  as(kAlice, [] { FAILS(EACCES, open("fixed", O_TMPFILE | O_RDWR, 0644)); });
}

CASE(tmpfile, umask_applies) {
  umask(027);
  const Fd fd = OK(tmpfile_in(".", O_RDWR, 0666));
  EQ(mode(static_cast<int>(fd)), "0640");
}

CASE(tmpfile, many_at_once) {
  std::vector<Fd> fds;
  for (int i = 0; i < 50; ++i) {
    fds.push_back(tmpfile_in(".", O_RDWR));
    const std::string text = std::to_string(i);
    if (pwrite(fds.back(), text.data(), text.size(), 0) < 0) break;
  }
  EQ(fds.size(), 50u);
  EQ(content(static_cast<int>(fds[7])), "7");
  EQ(content(static_cast<int>(fds[49])), "49");
  OK(link_into(fds[7], "seven"));
  EQ(names("."), "seven");
}
