// setxattr(2) and relatives in the namespaces user, trusted and security (xattr(7)).
#include <sys/xattr.h>

#include <algorithm>

#include "test/conformance/suite/suite.hpp"

namespace {

void need_user_xattrs() {
  OK(make_file("f", "text"));
  if (setxattr("f", "user.probe", "1", 1, 0) != 0) SKIP("no user xattrs");
  OK(removexattr("f", "user.probe"));
}

int set(const char* path, const char* name, const std::string& value, int flags = 0) {
  return setxattr(path, name, value.data(), value.size(), flags);
}

std::string get(const char* path, const char* name) {
  char buffer[65536];
  const ssize_t n = getxattr(path, name, buffer, sizeof buffer);
  return n < 0 ? "<" + error_name(errno) + ">" : std::string(buffer, static_cast<std::size_t>(n));
}

// Sorted names of one namespace; others (security.selinux and such) are the host's business.
std::string listed(const char* path, const std::string& space = "user.") {
  char buffer[65536];
  const ssize_t n = listxattr(path, buffer, sizeof buffer);
  if (n < 0) return "<" + error_name(errno) + ">";
  std::vector<std::string> found;
  for (ssize_t at = 0; at < n; at += static_cast<ssize_t>(found.back().size()) + 1)
    found.emplace_back(buffer + at);
  std::sort(found.begin(), found.end());
  std::string text;
  for (const std::string& name : found) {
    if (name.compare(0, space.size(), space) == 0) text += name + " ";
  }
  return text;
}

}  // namespace

CASE(xattr, set_get_list_remove) {
  need_user_xattrs();
  OK(set("f", "user.a", "one"));
  OK(set("f", "user.b", "two"));
  EQ(get("f", "user.a"), "one");
  EQ(listed("f"), "user.a user.b ");
  OK(set("f", "user.a", "other"));
  EQ(get("f", "user.a"), "other");
  OK(removexattr("f", "user.a"));
  EQ(get("f", "user.a"), "<ENODATA>");
  EQ(listed("f"), "user.b ");
  FAILS(ENODATA, removexattr("f", "user.a"));
}

CASE(xattr, create_and_replace) {
  need_user_xattrs();
  FAILS(ENODATA, set("f", "user.a", "x", XATTR_REPLACE));
  OK(set("f", "user.a", "one", XATTR_CREATE));
  FAILS(EEXIST, set("f", "user.a", "two", XATTR_CREATE));
  OK(set("f", "user.a", "three", XATTR_REPLACE));
  EQ(get("f", "user.a"), "three");
  FAILS(EINVAL, set("f", "user.a", "x", 8));
}

CASE(xattr, sizes) {
  need_user_xattrs();
  OK(set("f", "user.a", "0123456789"));
  char buffer[16] = {};
  EQ(OK(getxattr("f", "user.a", nullptr, 0)), 10);
  FAILS(ERANGE, getxattr("f", "user.a", buffer, 9));
  EQ(OK(getxattr("f", "user.a", buffer, 10)), 10);
  const ssize_t length = OK(listxattr("f", nullptr, 0));
  CHECK(length >= 7);
  FAILS(ERANGE, listxattr("f", buffer, 3));
  EQ(OK(setxattr("f", "user.empty", "", 0, 0)), 0);
  EQ(OK(getxattr("f", "user.empty", buffer, sizeof buffer)), 0);
  EQ(get("f", "user.empty"), "");
}

CASE(xattr, values_of_any_bytes) {
  need_user_xattrs();
  const std::string value("\0\n\xff\0x", 5);
  OK(set("f", "user.a", value));
  CHECK(get("f", "user.a") == value);
}

CASE(xattr, two_kilobytes) {
  need_user_xattrs();
  OK(set("f", "user.big", pattern(2048)));
  CHECK(get("f", "user.big") == pattern(2048));
  OK(set("f", "user.big", pattern(1000, 2)));
  CHECK(get("f", "user.big") == pattern(1000, 2));
}

// XATTR_SIZE_MAX is 64 KiB, checked before any filesystem is asked; XATTR_NAME_MAX is 255.
CASE(xattr, too_large) {
  need_user_xattrs();
  FAILS(E2BIG, set("f", "user.a", std::string(65537, 'x')));
  const std::string name = "user." + std::string(250, 'n');
  OK(set("f", name.c_str(), "x"));
  EQ(get("f", name.c_str()), "x");
  FAILS(ERANGE, set("f", (name + "n").c_str(), "x"));
  FAILS(ERANGE, set("f", "", "x"));
}

CASE(xattr, many) {
  need_user_xattrs();
  for (int i = 0; i < 40; ++i) {
    if (set("f", ("user.n" + std::to_string(i)).c_str(), std::to_string(i)) != 0) break;
  }
  EQ(get("f", "user.n0") + get("f", "user.n39"), "039");
  const std::string all = listed("f");
  EQ(std::count(all.begin(), all.end(), ' '), 40);
}

CASE(xattr, directories) {
  need_user_xattrs();
  OK(mkdir("d", 0755));
  OK(set("d", "user.a", "value"));
  EQ(get("d", "user.a"), "value");
  EQ(listed("d"), "user.a ");
}

// xattr(7): the user namespace is for files and directories only.
CASE(xattr, user_namespace_not_on_other_kinds) {
  need_user_xattrs();
  for (const Kind kind : all_but({Kind::regular, Kind::directory})) {
    OK(make(kind, "x"));
    FAILS(EPERM, lsetxattr("x", "user.a", "1", 1, 0));
    FAILS(ENODATA, lgetxattr("x", "user.a", nullptr, 0));
    OK(unlink("x"));
  }
}

CASE(xattr, follow_or_not) {
  need_user_xattrs();
  OK(symlink("f", "link"));
  OK(set("link", "user.a", "value"));
  EQ(get("f", "user.a"), "value");
  FAILS(ENODATA, lgetxattr("link", "user.a", nullptr, 0));
  FAILS(EPERM, lremovexattr("link", "user.a"));
}

CASE(xattr, by_descriptor) {
  need_user_xattrs();
  const Fd fd = OK(open("f", O_RDONLY)), path = OK(open("f", O_PATH));
  OK(fsetxattr(fd, "user.a", "value", 5, 0));
  char buffer[16];
  EQ(OK(fgetxattr(fd, "user.a", buffer, sizeof buffer)), 5);
  CHECK(OK(flistxattr(fd, nullptr, 0)) >= 7);
  OK(fremovexattr(fd, "user.a"));
  FAILS(ENODATA, fgetxattr(fd, "user.a", buffer, sizeof buffer));
  FAILS(EBADF, fsetxattr(path, "user.a", "v", 1, 0));
  FAILS(EBADF, fgetxattr(-1, "user.a", buffer, 1));
}

CASE(xattr, stay_with_the_file) {
  need_user_xattrs();
  OK(set("f", "user.a", "value"));
  OK(link("f", "g"));
  OK(rename("f", "h"));
  EQ(get("g", "user.a"), "value");
  EQ(get("h", "user.a"), "value");
  OK(truncate("h", 0));
  OK(chmod("h", 0600));
  EQ(get("h", "user.a"), "value");
  OK(make_file("f"));
  EQ(listed("f"), "");
}

CASE(xattr, stamps) {
  need_user_xattrs();
  EQ(moved({"f", "."}, [] { OK(set("f", "user.a", "v")); }), "f:c .:-");
  EQ(moved({"f"}, [] { OK(removexattr("f", "user.a")); }), "f:c");
  EQ(moved({"f"}, [] { EQ(get("f", "user.a"), "<ENODATA>"); }), "f:-");
}

CASE(xattr, permissions, .root = true) {
  need_user_xattrs();
  OK(set("f", "user.a", "value"));
  as(kAlice, [] {
    EQ(get("f", "user.a"), "value");
    FAILS(EACCES, set("f", "user.a", "x"));
    FAILS(EACCES, removexattr("f", "user.a"));
  });
  OK(chmod("f", 0602));
  as(kAlice, [] {
    EQ(get("f", "user.a"), "<EACCES>");
    OK(set("f", "user.a", "x"));
    EQ(listed("f"), "user.a ");
  });
}

CASE(xattr, sticky_directory_is_for_its_owner, .root = true) {
  need_user_xattrs();
  OK(make_dir("d", 01777));
  as(kAlice, [] { FAILS(EPERM, set("d", "user.a", "x")); });
  OK(set("d", "user.a", "x"));
}

CASE(xattr, trusted, .root = true) {
  OK(make_file("f"));
  OK(set("f", "trusted.a", "value"));
  EQ(get("f", "trusted.a"), "value");
  EQ(listed("f", "trusted."), "trusted.a ");
  as(kAlice, [] {
    EQ(get("f", "trusted.a"), "<ENODATA>");
    FAILS(EPERM, set("f", "trusted.b", "x"));
    EQ(listed("f", "trusted."), "");
  });
  OK(symlink("f", "link"));
  OK(lsetxattr("link", "trusted.l", "x", 1, 0));
  EQ(OK(lgetxattr("link", "trusted.l", nullptr, 0)), 1);
  OK(removexattr("f", "trusted.a"));
}

CASE(xattr, security, .root = true) {
  OK(make_file("f"));
  OK(set("f", "security.poly", "value"));
  EQ(get("f", "security.poly"), "value");
  as(kAlice, [] {
    EQ(get("f", "security.poly"), "value");
    FAILS(EPERM, set("f", "security.poly", "x"));
    FAILS(EPERM, removexattr("f", "security.poly"));
  });
  OK(removexattr("f", "security.poly"));
  EQ(get("f", "security.poly"), "<ENODATA>");
}

// A program's file capabilities (version 2, cap_net_raw) go when somebody writes to it.
CASE(xattr, capabilities_are_dropped_by_writing, .root = true) {
  OK(make_file("f", "text", 0777));
  const std::string capability(
      "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", 20);
  OK(set("f", "security.capability", capability));
  CHECK(get("f", "security.capability") == capability);
  as(kAlice, [] {
    const Fd fd = OK(open("f", O_RDWR));
    OK(write(fd, "x", 1));
  });
  EQ(get("f", "security.capability"), "<ENODATA>");
  OK(set("f", "security.capability", capability));
  OK(truncate("f", 0));
  EQ(get("f", "security.capability"), "<ENODATA>");
  OK(set("f", "security.capability", capability));
  OK(chown("f", 5, 5));
  EQ(get("f", "security.capability"), "<ENODATA>");
}

CASE(xattr, unknown_namespaces) {
  OK(make_file("f"));
  FAILS(EOPNOTSUPP, set("f", "nonsense.a", "x"));
  FAILS(EOPNOTSUPP, set("f", "plain", "x"));
  EQ(get("f", "nonsense.a"), "<EOPNOTSUPP>");
  FAILS(one_of(EOPNOTSUPP, EINVAL), set("f", "user.", "x"));
}
