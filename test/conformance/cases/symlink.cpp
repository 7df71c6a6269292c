// symlink(2), readlink(2) and following links (symlink(7), path_resolution(7)).
#include "test/conformance/suite/suite.hpp"

CASE(symlink, attributes) {
  umask(077);
  OK(symlink("target", "link"));
  EQ(kind("link"), "symlink");
  EQ(mode("link"), "0777");
  EQ(size("link"), 6);
  EQ(nlink("link"), 1);
  EQ(target_of("link"), "target");
}

CASE(symlink, stamps) {
  EQ(moved({"."}, [] { OK(symlink("target", "link")); }), ".:mc");
}

CASE(symlink, exists) {
  for (const Kind kind : all_kinds()) {
    OK(make(kind, "x"));
    FAILS(EEXIST, symlink("target", "x"));
    OK(remove_any("x"));
  }
}

CASE(symlink, target_lengths) {
  for (const std::size_t length : {1u, 59u, 60u, 61u, 255u, 1000u, 4094u, 4095u}) {
    const std::string target(length, 't');
    NOTE("%zu bytes", length);
    OK(symlink(target.c_str(), "link"));
    CHECK(target_of("link") == target);
    EQ(size("link"), length);
    OK(unlink("link"));
  }
  FAILS(ENAMETOOLONG, symlink(std::string(4096, 't').c_str(), "link"));
  FAILS(ENOENT, symlink("", "link"));
}

CASE(symlink, target_with_odd_bytes) {
  const std::string target = "a\nb\xff\x01 \\\"'/../x";
  OK(symlink(target.c_str(), "link"));
  CHECK(target_of("link") == target);
}

CASE(symlink, callers_ids, .root = true) {
  OK(make_dir("open", 0777));
  as({65534, 65533, {65532}}, [] {
    OK(symlink("target", "open/link"));
    EQ(owner("open/link"), "65534:65533");
  });
}

CASE(symlink, readlink_cuts_short) {
  OK(symlink("target", "link"));
  char buffer[8] = "zzzzzzz";
  EQ(OK(readlink("link", buffer, 3)), 3);
  EQ(std::string(buffer, 4), "tarz");
  FAILS(EINVAL, readlink("link", buffer, 0));
}

CASE(symlink, readlink_of_other_kinds_is_einval) {
  char buffer[8];
  for (const Kind kind : all_but({Kind::symlink})) {
    OK(make(kind, "x"));
    FAILS(EINVAL, readlink("x", buffer, sizeof buffer));
    OK(remove_any("x"));
  }
}

CASE(symlink, relative_to_the_links_directory) {
  OK(mkdir("d", 0755));
  OK(make_file("f", "outer"));
  OK(make_file("d/f", "inner"));
  OK(symlink("f", "d/link"));
  OK(symlink("../f", "d/up"));
  EQ(content("d/link"), "inner");
  EQ(content("d/up"), "outer");
  OK(chdir("d"));
  EQ(content("up"), "outer");
}

CASE(symlink, absolute) {
  OK(make_file("f", "text"));
  OK(symlink((here() + "/f").c_str(), "link"));
  OK(symlink("/proc/self/status", "out"));
  EQ(content("link"), "text");
  OK(access("out", R_OK));
}

namespace {
// A walk that the kernel has to begin again, as when anything is mounted meanwhile, counts its links once
// more (nameidata::total_link_count, fs/namei.c, Linux 6.18): at the limit it may fail on every filesystem.
std::string content_at_the_limit(const char* path) {
  std::string text;
  for (int attempt = 0; attempt < 100; ++attempt) {
    text = content(path);
    if (text != "<ELOOP>") break;
  }
  return text;
}
}  // namespace

CASE(symlink, chain_of_forty) {
  OK(make_file("0", "text"));
  for (int i = 1; i <= 41; ++i) {
    if (symlink(std::to_string(i - 1).c_str(), std::to_string(i).c_str()) != 0) break;
  }
  EQ(content_at_the_limit("40"), "text");
  EQ(content("41"), "<ELOOP>");
  OK(unlink("20"));
  EQ(content("19"), "text");
  EQ(content_at_the_limit("40"), "<ENOENT>");
}

CASE(symlink, chain_through_directories) {
  OK(mkdir("a", 0755));
  OK(mkdir("a/b", 0755));
  OK(make_file("a/b/f", "text"));
  OK(symlink("a", "l1"));
  OK(symlink("b", "a/l2"));
  OK(symlink("l1/l2", "l3"));
  EQ(content("l3/f"), "text");
  EQ(content("l3/../b/f"), "text");
  EQ(content("l1/l2/./../l2/f"), "text");
}

CASE(symlink, loops) {
  OK(symlink("self", "self"));
  OK(symlink("b", "a"));
  OK(symlink("a", "b"));
  struct stat st {};
  for (const char* path : {"self", "a", "b", "a/x"}) {
    FAILS(ELOOP, stat(path, &st));
    FAILS(ELOOP, open(path, O_RDONLY));
    FAILS(ELOOP, truncate(path, 0));
    FAILS(ELOOP, chmod(path, 0644));
  }
  EQ(target_of("self"), "self");
}

CASE(symlink, dangling) {
  OK(symlink("nowhere", "link"));
  struct stat st {};
  FAILS(ENOENT, stat("link", &st));
  FAILS(ENOENT, open("link", O_RDONLY));
  FAILS(ENOENT, access("link", F_OK));
  FAILS(ENOENT, chdir("link"));
  OK(lstat("link", &st));
  OK(make_file("nowhere", "text"));
  EQ(content("link"), "text");
}

CASE(symlink, trailing_slash_follows) {
  OK(mkdir("d", 0755));
  OK(make_file("f"));
  OK(symlink("d", "dlink"));
  OK(symlink("f", "flink"));
  struct stat st {};
  OK(lstat("dlink/", &st));
  CHECK(S_ISDIR(st.st_mode));
  FAILS(ENOTDIR, lstat("flink/", &st));
  FAILS(ENOTDIR, unlink("dlink/"));
  FAILS(ENOENT, symlink("x", "new/"));
}

CASE(symlink, dot_dot_after_a_link_is_the_targets_parent) {
  OK(mkdir("a", 0755));
  OK(mkdir("a/b", 0755));
  OK(make_file("a/f", "in a"));
  OK(make_file("f", "on top"));
  OK(symlink("a/b", "link"));
  EQ(content("link/../f"), "in a");
}

CASE(symlink, target_can_be_replaced) {
  OK(make_file("one", "1"));
  OK(make_file("two", "2"));
  OK(symlink("one", "link"));
  EQ(content("link"), "1");
  OK(unlink("link"));
  OK(symlink("two", "link"));
  EQ(content("link"), "2");
  OK(symlink("one", "new"));
  OK(rename("new", "link"));
  EQ(content("link"), "1");
}

CASE(symlink, symlinkat_and_readlinkat) {
  OK(mkdir("d", 0755));
  const Fd dir = OK(open("d", O_RDONLY | O_DIRECTORY));
  OK(symlinkat("target", dir, "link"));
  char buffer[16];
  EQ(OK(readlinkat(dir, "link", buffer, sizeof buffer)), 6);
  FAILS(EBADF, symlinkat("target", -1, "link"));
  FAILS(EEXIST, symlinkat("target", dir, "link"));
  FAILS(ENOENT, readlinkat(dir, "none", buffer, sizeof buffer));
}
