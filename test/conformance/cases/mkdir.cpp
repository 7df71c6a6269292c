// mkdir(2) and rmdir(2).
#include "test/conformance/suite/suite.hpp"

namespace {

std::string made_mode(mode_t mask, mode_t wanted) {
  umask(mask);
  OK(mkdir("d", wanted));
  umask(022);
  const std::string result = mode("d");
  OK(rmdir("d"));
  return result;
}

}  // namespace

CASE(mkdir, mode_and_umask) {
  EQ(made_mode(0, 0755), "0755");
  EQ(made_mode(0, 0151), "0151");
  EQ(made_mode(077, 0151), "0100");
  EQ(made_mode(070, 0345), "0305");
  EQ(made_mode(0501, 0345), "0244");
  EQ(made_mode(022, 0777), "0755");
  EQ(made_mode(0, 01777), "01777");
}

// mkdir(2): on Linux the set-id bits of mode are ignored.
CASE(mkdir, set_id_bits_are_ignored) {
  EQ(made_mode(0, 06755), "0755");
}

CASE(mkdir, new_directory) {
  OK(mkdir("d", 0755));
  EQ(kind("d"), "directory");
  EQ(nlink("d"), 2);
  EQ(nlink("."), 3);
  EQ(names("d"), "");
  CHECK(same_file("d/..", "."));
  CHECK(same_file("d/.", "d"));
}

CASE(mkdir, callers_ids, .root = true) {
  OK(make_dir("open", 0777));
  as({65534, 65533, {65532}}, [] {
    OK(mkdir("open/d", 0755));
    EQ(owner("open/d"), "65534:65533");
  });
}

CASE(mkdir, stamps) {
  EQ(moved({"."}, [] { OK(mkdir("d", 0755)); }), ".:mc");
}

CASE(mkdir, exists) {
  for (const Kind kind : all_kinds()) {
    OK(make(kind, "x"));
    FAILS(EEXIST, mkdir("x", 0755));
    OK(remove_any("x"));
  }
  for (const char* path : {".", "..", "/", "./."}) FAILS(EEXIST, mkdir(path, 0755));
}

CASE(mkdir, trailing_slash) {
  OK(mkdir("d/", 0755));
  OK(mkdir("e//", 0755));
  FAILS(ENOENT, mkdir("none/.", 0755));
  EQ(names("."), "d e");
}

CASE(mkdir, through_a_dangling_link_is_eexist) {
  OK(symlink("nowhere", "link"));
  FAILS(EEXIST, mkdir("link", 0755));
  FAILS(EEXIST, mkdir("link/", 0755));
  EQ(names("."), "link");
}

CASE(mkdir, in_a_removed_directory_is_enoent) {
  OK(mkdir("d", 0755));
  OK(chdir("d"));
  OK(rmdir("../d"));
  FAILS(ENOENT, mkdir("e", 0755));
  FAILS(ENOENT, open("f", O_CREAT | O_WRONLY, 0644));
  FAILS(ENOENT, symlink("a", "b"));
}

CASE(mkdir, mkdirat_and_its_errors) {
  OK(mkdir("d", 0755));
  OK(make_file("f"));
  const Fd dir = OK(open("d", O_PATH)), file = OK(open("f", O_RDONLY));
  OK(mkdirat(dir, "e", 0755));
  FAILS(ENOTDIR, mkdirat(file, "e", 0755));
  FAILS(EBADF, mkdirat(-1, "e", 0755));
  EQ(names("d"), "e");
}

CASE(mkdir, many_levels) {
  for (int i = 0; i < 60; ++i) {
    if (mkdir("level", 0755) != 0 || chdir("level") != 0) break;
  }
  OK(make_file("bottom", "text"));
  std::string path;
  for (int i = 0; i < 59; ++i) path += "../";
  EQ(names(path), "level");
  EQ(content("bottom"), "text");
}

CASE(rmdir, removes) {
  OK(mkdir("d", 0755));
  EQ(moved({"."}, [] { OK(rmdir("d")); }), ".:mc");
  EQ(nlink("."), 2);
  EQ(attrs("d"), "<ENOENT>");
  FAILS(ENOENT, rmdir("d"));
}

CASE(rmdir, full_directory) {
  OK(mkdir("d", 0755));
  for (const Kind kind : all_kinds()) {
    OK(make(kind, "d/x"));
    FAILS(one_of(ENOTEMPTY, EEXIST), rmdir("d"));
    EQ(names("d"), "x");
    OK(remove_any("d/x"));
  }
  OK(rmdir("d"));
}

CASE(rmdir, not_a_directory) {
  OK(mkdir("d", 0755));
  for (const Kind kind : all_but({Kind::directory})) {
    OK(make(kind, "x"));
    FAILS(ENOTDIR, rmdir("x"));
    OK(remove_any("x"));
  }
  OK(symlink("d", "link"));
  FAILS(ENOTDIR, rmdir("link"));
  FAILS(ENOTDIR, rmdir("link/"));
  EQ(names("."), "d link");
}

CASE(rmdir, dot_and_dot_dot) {
  OK(mkdir("d", 0755));
  OK(mkdir("d/e", 0755));
  FAILS(EINVAL, rmdir("d/e/."));
  FAILS(EINVAL, rmdir("."));
  FAILS(one_of(ENOTEMPTY, EEXIST), rmdir("d/e/.."));
  OK(rmdir("d/e/"));
}

CASE(rmdir, of_an_open_directory) {
  OK(mkdir("d", 0755));
  const Fd fd = OK(open("d", O_RDONLY | O_DIRECTORY));
  OK(rmdir("d"));
  EQ(nlink(static_cast<int>(fd)), 0);
  FAILS(ENOENT, openat(fd, "f", O_CREAT | O_WRONLY, 0644));
  FAILS(ENOENT, mkdirat(fd, "e", 0755));
  OK(fchmod(fd, 0700));
  EQ(mode(static_cast<int>(fd)), "0700");
}

CASE(rmdir, name_can_be_used_again) {
  OK(mkdir("d", 0755));
  const Fd fd = OK(open("d", O_RDONLY | O_DIRECTORY));
  OK(rmdir("d"));
  OK(make_file("d", "text"));
  EQ(kind("d"), "regular");
  OK(unlink("d"));
  OK(mkdir("d", 0700));
  OK(make_file("d/f"));
  FAILS(ENOENT, openat(fd, "f", O_RDONLY));
}

CASE(rmdir, unlinkat_with_removedir) {
  OK(mkdir("d", 0755));
  OK(mkdir("d/e", 0755));
  OK(make_file("d/f"));
  const Fd fd = OK(open("d", O_RDONLY | O_DIRECTORY));
  FAILS(ENOTDIR, unlinkat(fd, "f", AT_REMOVEDIR));
  FAILS(EISDIR, unlinkat(fd, "e", 0));
  FAILS(EINVAL, unlinkat(fd, "e", 0x40));
  OK(unlinkat(fd, "e", AT_REMOVEDIR));
  EQ(names("d"), "f");
}

CASE(rmdir, sticky, .root = true) {
  for (const uid_t directory : {kAlice.uid, kBob.uid, 0u}) {
    for (const uid_t child : {kAlice.uid, kBob.uid, 0u}) {
      OK(make_dir("sticky", 01777));
      OK(chown("sticky", directory, directory));
      OK(make_dir("sticky/d", 0777));
      OK(chown("sticky/d", child, child));
      NOTE("%u's in %u's", child, directory);
      const bool allowed = directory == kAlice.uid || child == kAlice.uid;
      as(kAlice, [&] { FAILS(allowed ? 0 : EPERM, rmdir("sticky/d")); });
      if (!allowed) OK(rmdir("sticky/d"));
      OK(rmdir("sticky"));
    }
  }
}
