// link(2) and unlink(2).
#include "test/conformance/suite/suite.hpp"

CASE(link, every_kind) {
  for (const Kind kind : all_but({Kind::directory})) {
    NOTE("%s", kind_name(kind));
    OK(make(kind, "a"));
    EQ(nlink("a"), 1);
    OK(link("a", "b"));
    EQ(nlink("a"), 2);
    CHECK(same_file("a", "b"));
    EQ(attrs("a"), attrs("b"));
    OK(link("b", "c"));
    EQ(nlink("a"), 3);
    OK(unlink("a"));
    EQ(nlink("c"), 2);
    OK(unlink("b"));
    EQ(nlink("c"), 1);
    OK(unlink("c"));
    EQ(names("."), "");
  }
}

CASE(link, changes_through_one_name_show_in_all) {
  OK(make_file("a", "text"));
  OK(link("a", "b"));
  OK(chmod("b", 0600));
  EQ(mode("a"), "0600");
  OK(truncate("b", 2));
  EQ(content("a"), "te");
  OK(make_file("a", "longer text"));
  EQ(content("b"), "longer text");
  EQ(size("b"), 11);
}

CASE(link, stamps) {
  OK(make_file("a"));
  OK(mkdir("d", 0755));
  EQ(moved({"a", ".", "d"}, [] { OK(link("a", "d/b")); }), "a:c .:- d:mc");
}

CASE(link, failure_changes_no_stamp) {
  OK(make_file("a"));
  OK(make_file("b"));
  EQ(moved({"a", "b", "."}, [] { FAILS(EEXIST, link("a", "b")); }), "a:- b:- .:-");
}

CASE(link, target_exists) {
  OK(make_file("a"));
  for (const Kind kind : all_kinds()) {
    OK(make(kind, "x"));
    FAILS(EEXIST, link("a", "x"));
    OK(remove_any("x"));
  }
  EQ(nlink("a"), 1);
}

CASE(link, directory_is_eperm) {
  OK(mkdir("d", 0755));
  FAILS(EPERM, link("d", "e"));
  FAILS(EPERM, link(".", "e"));
  EQ(nlink("d"), 2);
}

CASE(link, symlink_itself_unless_told_to_follow) {
  OK(make_file("f", "text"));
  OK(symlink("f", "link"));
  OK(link("link", "a"));
  EQ(kind("a"), "symlink");
  OK(linkat(AT_FDCWD, "link", AT_FDCWD, "b", AT_SYMLINK_FOLLOW));
  CHECK(same_file("b", "f"));
  FAILS(EINVAL, linkat(AT_FDCWD, "link", AT_FDCWD, "c", 0x8000));
}

CASE(link, by_descriptor) {
  OK(make_file("f", "text"));
  OK(mkdir("d", 0755));
  const Fd fd = OK(open("f", O_RDONLY)), dir = OK(open("d", O_PATH));
  OK(linkat(AT_FDCWD, ("/proc/self/fd/" + std::to_string(fd)).c_str(), dir, "g", AT_SYMLINK_FOLLOW));
  CHECK(same_file("d/g", "f"));
  OK(linkat(dir, "g", AT_FDCWD, "h", 0));
  EQ(nlink("f"), 3);
  FAILS(EBADF, linkat(-1, "g", AT_FDCWD, "i", 0));
  FAILS(ENOTDIR, linkat(fd, "g", AT_FDCWD, "i", 0));
}

CASE(link, missing_source) {
  FAILS(ENOENT, link("a", "b"));
  OK(symlink("nowhere", "dangling"));
  FAILS(ENOENT, linkat(AT_FDCWD, "dangling", AT_FDCWD, "b", AT_SYMLINK_FOLLOW));
}

// A name can no longer be given to a file whose last one is gone.
CASE(link, of_an_unlinked_file_is_enoent) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR));
  OK(unlink("f"));
  FAILS(ENOENT,
        linkat(AT_FDCWD, ("/proc/self/fd/" + std::to_string(fd)).c_str(), AT_FDCWD, "g", AT_SYMLINK_FOLLOW));
}

CASE(link, to_another_filesystem_is_exdev) {
  OK(make_file("f"));
  FAILS(EXDEV, link("/proc/version", "g"));
}

CASE(link, several_hundred) {
  OK(make_file("f", "text"));
  OK(mkdir("d", 0755));
  for (int i = 0; i < 300; ++i) {
    if (link("f", ("d/" + std::to_string(i)).c_str()) != 0) break;
  }
  EQ(nlink("f"), 301);
  EQ(list("d").size(), 300u);
  OK(unlink("f"));
  EQ(content("d/299"), "text");
  EQ(nlink("d/0"), 300);
}

CASE(link, needs_writable_directory, .root = true) {
  OK(make_dir("mine", 0777));
  OK(make_dir("theirs", 0755));
  OK(make_file("mine/f", "", 0666));
  OK(make_file("theirs/f", "", 0666));
  as(kAlice, [] {
    FAILS(EACCES, link("mine/f", "theirs/g"));
    OK(link("theirs/f", "mine/g"));
    OK(link("mine/f", "mine/h"));
  });
}

CASE(unlink, every_kind) {
  for (const Kind kind : all_but({Kind::directory})) {
    OK(make(kind, "x"));
    EQ(moved({"."}, [] { OK(unlink("x")); }), ".:mc");
    EQ(attrs("x"), "<ENOENT>");
    FAILS(ENOENT, unlink("x"));
  }
}

CASE(unlink, remaining_link_ctime) {
  OK(make_file("a"));
  OK(link("a", "b"));
  EQ(moved({"b"}, [] { OK(unlink("a")); }), "b:c");
}

// POSIX says EPERM; Linux has always said EISDIR (unlink(2)).
CASE(unlink, directory) {
  OK(mkdir("d", 0755));
  FAILS(one_of(EISDIR, EPERM), unlink("d"));
  FAILS(one_of(EISDIR, EPERM), unlink("."));
  OK(symlink("d", "link"));
  OK(unlink("link"));
  EQ(names("."), "d");
}

CASE(unlink, trailing_slash) {
  OK(make_file("f"));
  OK(mkdir("d", 0755));
  FAILS(ENOTDIR, unlink("f/"));
  FAILS(EISDIR, unlink("d/"));
  FAILS(ENOENT, unlink("none/"));
}

CASE(unlink, symlink_not_target) {
  OK(make_file("f", "text"));
  OK(symlink("f", "link"));
  OK(unlink("link"));
  EQ(content("f"), "text");
}

CASE(unlink, needs_no_permission_on_the_file, .root = true) {
  OK(make_dir("open", 0777));
  OK(make_file("open/f", "text", 0));
  OK(make_dir("fixed", 0755));
  OK(make_file("fixed/f", "text", 0777));
  OK(chown("fixed/f", kAlice.uid, kAlice.gid));
  as(kAlice, [] {
    OK(unlink("open/f"));
    FAILS(EACCES, unlink("fixed/f"));
  });
}

CASE(unlink, sticky, .root = true) {
  for (const uid_t directory : {kAlice.uid, kBob.uid, 0u}) {
    for (const uid_t file : {kAlice.uid, kBob.uid, 0u}) {
      for (const Kind kind : all_but({Kind::directory})) {
        OK(make_dir("sticky", 01777));
        OK(chown("sticky", directory, directory));
        OK(make(kind, "sticky/x"));
        OK(lchown("sticky/x", file, file));
        NOTE("%u's %s in %u's", file, kind_name(kind), directory);
        const bool allowed = directory == kAlice.uid || file == kAlice.uid;
        as(kAlice, [&] { FAILS(allowed ? 0 : EPERM, unlink("sticky/x")); });
        if (!allowed) OK(unlink("sticky/x"));
        OK(rmdir("sticky"));
      }
    }
  }
}
