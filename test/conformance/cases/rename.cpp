// rename(2): what moves, what is replaced, what is refused.
#include "test/conformance/suite/suite.hpp"

CASE(rename, every_kind_keeps_its_inode) {
  for (const Kind kind : all_kinds()) {
    NOTE("%s", kind_name(kind));
    OK(make(kind, "old"));
    const auto before = inode("old");
    const std::string was = attrs("old");
    OK(rename("old", "new"));
    CHECK(inode("new") == before);
    EQ(attrs("new"), was);
    EQ(attrs("old"), "<ENOENT>");
    OK(remove_any("new"));
  }
}

CASE(rename, replaces_any_non_directory) {
  for (const Kind from : all_but({Kind::directory})) {
    for (const Kind to : all_but({Kind::directory})) {
      NOTE("%s over %s", kind_name(from), kind_name(to));
      OK(make(from, "old"));
      OK(make(to, "new"));
      const auto before = inode("old");
      OK(rename("old", "new"));
      CHECK(inode("new") == before);
      EQ(names("."), "new");
      OK(unlink("new"));
    }
  }
}

CASE(rename, file_over_directory_is_eisdir) {
  for (const Kind kind : all_but({Kind::directory})) {
    OK(make(kind, "old"));
    OK(mkdir("dir", 0755));
    FAILS(EISDIR, rename("old", "dir"));
    EQ(names("."), "dir old");
    OK(rmdir("dir"));
    OK(unlink("old"));
  }
}

CASE(rename, directory_over_file_is_enotdir) {
  OK(mkdir("dir", 0755));
  for (const Kind kind : all_but({Kind::directory})) {
    OK(make(kind, "new"));
    FAILS(ENOTDIR, rename("dir", "new"));
    EQ(names("."), "dir new");
    OK(unlink("new"));
  }
}

CASE(rename, directory_over_empty_directory) {
  OK(mkdir("a", 0755));
  OK(make_file("a/f", "text"));
  OK(mkdir("b", 0700));
  OK(rename("a", "b"));
  EQ(names("."), "b");
  EQ(mode("b"), "0755");
  EQ(content("b/f"), "text");
}

CASE(rename, directory_over_full_directory_is_refused) {
  OK(mkdir("a", 0755));
  OK(mkdir("b", 0755));
  for (const Kind kind : all_kinds()) {
    OK(make(kind, "b/x"));
    FAILS(one_of(ENOTEMPTY, EEXIST), rename("a", "b"));
    OK(remove_any("b/x"));
  }
  OK(rename("a", "b"));
}

CASE(rename, onto_itself_does_nothing) {
  OK(make_file("f", "text"));
  EQ(moved({"f", "."}, [] { OK(rename("f", "f")); }), "f:- .:-");
  EQ(content("f"), "text");
}

CASE(rename, onto_its_own_link_does_nothing) {
  OK(make_file("f", "text"));
  OK(link("f", "g"));
  EQ(moved({"f", "."}, [] { OK(rename("f", "g")); }), "f:- .:-");
  EQ(names("."), "f g");
  EQ(nlink("f"), 2);
}

CASE(rename, replaced_file_loses_one_link) {
  OK(make_file("f", "new"));
  OK(make_file("g", "old"));
  OK(link("g", "h"));
  OK(rename("f", "g"));
  EQ(content("g"), "new");
  EQ(content("h"), "old");
  EQ(nlink("h"), 1);
  EQ(nlink("g"), 1);
}

CASE(rename, of_one_of_several_links) {
  OK(make_file("f", "text"));
  OK(link("f", "g"));
  OK(mkdir("d", 0755));
  OK(rename("f", "d/f"));
  CHECK(same_file("d/f", "g"));
  EQ(nlink("g"), 2);
}

CASE(rename, stamps) {
  OK(mkdir("a", 0755));
  OK(mkdir("b", 0755));
  OK(make_file("a/f"));
  const Stamps before = stamps("a/f");
  EQ(moved({"a", "b"}, [] { OK(rename("a/f", "b/g")); }), "a:mc b:mc");
  CHECK(stamps("b/g").mtime == before.mtime);
  CHECK(stamps("b/g").ctime >= before.ctime);
}

CASE(rename, replaced_open_file_ctime) {
  OK(make_file("f"));
  OK(make_file("g"));
  OK(link("g", "h"));
  EQ(moved({"h"}, [] { OK(rename("f", "g")); }), "h:c");
}

CASE(rename, failure_changes_no_stamp) {
  OK(make_file("f"));
  OK(mkdir("d", 0755));
  OK(make_file("d/x"));
  EQ(moved({"f", "d", "."}, [] { FAILS(EISDIR, rename("f", "d")); }), "f:- d:- .:-");
}

CASE(rename, directory_moves_parent_link) {
  OK(mkdir("a", 0755));
  OK(mkdir("b", 0755));
  OK(mkdir("a/sub", 0755));
  EQ(nlink("a"), 3);
  CHECK(same_file("a/sub/..", "a"));
  OK(rename("a/sub", "b/sub"));
  EQ(nlink("a"), 2);
  EQ(nlink("b"), 3);
  CHECK(same_file("b/sub/..", "b"));
}

CASE(rename, replaced_directory_counts) {
  OK(mkdir("a", 0755));
  OK(mkdir("a/x", 0755));
  OK(mkdir("b", 0755));
  OK(mkdir("b/x", 0755));
  OK(rename("a/x", "b/x"));
  EQ(nlink("a"), 2);
  EQ(nlink("b"), 3);
}

CASE(rename, into_own_subtree_is_einval) {
  OK(mkdir("a", 0755));
  OK(mkdir("a/b", 0755));
  OK(mkdir("a/b/c", 0755));
  FAILS(EINVAL, rename("a", "a/x"));
  FAILS(EINVAL, rename("a", "a/b"));
  FAILS(EINVAL, rename("a", "a/b/c/d"));
  EQ(names("a/b"), "c");
}

CASE(rename, over_own_ancestor_is_enotempty) {
  OK(mkdir("a", 0755));
  OK(mkdir("a/b", 0755));
  OK(make_file("a/b/f"));
  FAILS(one_of(ENOTEMPTY, EEXIST), rename("a/b/f", "a"));
  FAILS(one_of(ENOTEMPTY, EEXIST), rename("a/b", "a"));
}

CASE(rename, dot_and_dot_dot_are_refused) {
  OK(mkdir("a", 0755));
  OK(mkdir("a/b", 0755));
  for (const char* path : {"a/.", "a/b/.."}) {
    FAILS(one_of(EINVAL, EBUSY), rename(path, "x"));
    FAILS(one_of(EINVAL, EBUSY, EEXIST, ENOTEMPTY), rename("a/b", path));
  }
}

CASE(rename, missing_source_leaves_target) {
  OK(make_file("g", "text"));
  FAILS(ENOENT, rename("f", "g"));
  EQ(content("g"), "text");
}

CASE(rename, trailing_slash) {
  OK(mkdir("d", 0755));
  OK(make_file("f"));
  OK(rename("d/", "e/"));
  OK(rename("e", "d/"));
  FAILS(ENOTDIR, rename("f/", "g"));
  FAILS(ENOTDIR, rename("f", "g/"));
  EQ(names("."), "d f");
}

CASE(rename, open_file_goes_on_working) {
  OK(make_file("f", "text"));
  OK(mkdir("d", 0755));
  const Fd fd = OK(open("f", O_RDWR));
  OK(rename("f", "d/g"));
  EQ(content(static_cast<int>(fd)), "text");
  OK(pwrite(fd, "next", 4, 4));
  EQ(content("d/g"), "textnext");
}

CASE(rename, over_open_file) {
  OK(make_file("f", "new"));
  OK(make_file("g", "old"));
  const Fd fd = OK(open("g", O_RDWR));
  OK(rename("f", "g"));
  EQ(content(static_cast<int>(fd)), "old");
  EQ(nlink(static_cast<int>(fd)), 0);
  OK(pwrite(fd, "er", 2, 3));
  EQ(content(static_cast<int>(fd)), "older");
  EQ(content("g"), "new");
}

CASE(rename, open_directory_goes_on_working) {
  OK(mkdir("a", 0755));
  OK(make_file("a/f", "text"));
  OK(mkdir("b", 0755));
  const Fd dir = OK(open("a", O_RDONLY | O_DIRECTORY));
  OK(rename("a", "b/c"));
  const Fd fd = OK(openat(dir, "f", O_RDONLY));
  EQ(content(static_cast<int>(fd)), "text");
  const Fd made = OK(openat(dir, "g", O_CREAT | O_WRONLY, 0644));
  EQ(names("b/c"), "f g");
}

CASE(rename, of_current_directory) {
  const std::string top = here();
  OK(mkdir("a", 0755));
  OK(chdir("a"));
  OK(rename("../a", "../b"));
  EQ(here() == top + "/b", true);
  OK(make_file("f"));
  EQ(names("../b"), "f");
}

CASE(rename, of_deep_tree_is_visible_at_once) {
  OK(mkdir("a", 0755));
  OK(mkdir("a/b", 0755));
  OK(mkdir("a/b/c", 0755));
  OK(make_file("a/b/c/f", "text"));
  EQ(content("a/b/c/f"), "text");
  OK(rename("a", "z"));
  EQ(content("z/b/c/f"), "text");
  EQ(content("a/b/c/f"), "<ENOENT>");
  OK(mkdir("a", 0755));
  FAILS(ENOENT, access("a/b", F_OK));
}

CASE(rename, negative_names_are_forgotten) {
  OK(make_file("f"));
  FAILS(ENOENT, access("g", F_OK));
  OK(rename("f", "g"));
  OK(access("g", F_OK));
  FAILS(ENOENT, access("f", F_OK));
  OK(rename("g", "f"));
  OK(access("f", F_OK));
}

CASE(rename, symlink_itself_moves) {
  OK(make_file("target", "text"));
  OK(symlink("target", "link"));
  OK(mkdir("d", 0755));
  OK(rename("link", "d/link"));
  EQ(kind("target"), "regular");
  EQ(target_of("d/link"), "target");
  OK(make_file("f", "other"));
  OK(symlink("target", "link"));
  OK(rename("f", "link"));
  EQ(kind("link"), "regular");
  EQ(content("target"), "text");
}

CASE(rename, renameat_with_descriptors) {
  OK(mkdir("a", 0755));
  OK(mkdir("b", 0755));
  OK(make_file("a/f", "text"));
  const Fd a = OK(open("a", O_RDONLY | O_DIRECTORY));
  const Fd b = OK(open("b", O_PATH));
  OK(renameat(a, "f", b, "g"));
  EQ(content("b/g"), "text");
  const Fd file = OK(open("b/g", O_RDONLY));
  FAILS(ENOTDIR, renameat(file, "g", a, "f"));
  FAILS(EBADF, renameat(-1, "g", a, "f"));
  FAILS(EBADF, renameat(b, "g", 12345, "f"));
  OK(renameat(-1, (here() + "/b/g").c_str(), a, "f"));
}

CASE(rename, to_another_filesystem_is_exdev) {
  OK(make_file("f"));
  FAILS(EXDEV, rename("f", "/proc/poly-conformance"));
}
