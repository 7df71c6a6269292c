// renameat2(2): RENAME_NOREPLACE and RENAME_EXCHANGE.
#include <cstdio>

#include "test/conformance/suite/suite.hpp"

namespace {

int rename_with(unsigned flags, const char* from, const char* to) {
  return renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
}

}  // namespace

CASE(rename_flags, noreplace_moves_every_kind) {
  for (const Kind kind : all_kinds()) {
    OK(make(kind, "old"));
    const auto before = inode("old");
    OK(rename_with(RENAME_NOREPLACE, "old", "new"));
    CHECK(inode("new") == before);
    EQ(names("."), "new");
    OK(remove_any("new"));
  }
}

CASE(rename_flags, noreplace_refuses_every_kind) {
  OK(make_file("f", "text"));
  for (const Kind kind : all_kinds()) {
    OK(make(kind, "there"));
    FAILS(EEXIST, rename_with(RENAME_NOREPLACE, "f", "there"));
    OK(remove_any("there"));
  }
  EQ(content("f"), "text");
}

CASE(rename_flags, noreplace_onto_itself_and_own_link) {
  OK(make_file("f"));
  OK(link("f", "g"));
  FAILS(EEXIST, rename_with(RENAME_NOREPLACE, "f", "f"));
  FAILS(EEXIST, rename_with(RENAME_NOREPLACE, "f", "g"));
  EQ(nlink("f"), 2);
}

CASE(rename_flags, noreplace_missing_source) {
  FAILS(ENOENT, rename_with(RENAME_NOREPLACE, "f", "g"));
  OK(make_file("g"));
  FAILS(ENOENT, rename_with(RENAME_NOREPLACE, "f", "g"));
}

CASE(rename_flags, noreplace_refuses_dangling_link) {
  OK(make_file("f"));
  OK(symlink("nowhere", "link"));
  FAILS(EEXIST, rename_with(RENAME_NOREPLACE, "f", "link"));
}

CASE(rename_flags, exchange_every_pair) {
  for (const Kind a : all_kinds()) {
    for (const Kind b : all_kinds()) {
      NOTE("%s and %s", kind_name(a), kind_name(b));
      OK(make(a, "a"));
      OK(make(b, "b"));
      const auto first = inode("a"), second = inode("b");
      OK(rename_with(RENAME_EXCHANGE, "a", "b"));
      CHECK(inode("a") == second && inode("b") == first);
      OK(remove_any("a"));
      OK(remove_any("b"));
    }
  }
}

CASE(rename_flags, exchange_between_directories) {
  OK(mkdir("a", 0755));
  OK(mkdir("b", 0755));
  OK(make_file("a/f", "one"));
  OK(mkdir("b/d", 0755));
  OK(make_file("b/d/g", "two"));
  OK(rename_with(RENAME_EXCHANGE, "a/f", "b/d"));
  EQ(content("b/d"), "one");
  EQ(content("a/f/g"), "two");
  EQ(nlink("a"), 3);
  EQ(nlink("b"), 2);
  CHECK(same_file("a/f/..", "a"));
}

CASE(rename_flags, exchange_full_directories) {
  OK(mkdir("a", 0755));
  OK(mkdir("b", 0755));
  OK(make_file("a/x", "one"));
  OK(make_file("b/x", "two"));
  OK(rename_with(RENAME_EXCHANGE, "a", "b"));
  EQ(content("a/x"), "two");
  EQ(content("b/x"), "one");
}

CASE(rename_flags, exchange_needs_both) {
  OK(make_file("a"));
  FAILS(ENOENT, rename_with(RENAME_EXCHANGE, "a", "b"));
  FAILS(ENOENT, rename_with(RENAME_EXCHANGE, "b", "a"));
  EQ(names("."), "a");
}

CASE(rename_flags, exchange_with_own_subtree_is_einval) {
  OK(mkdir("a", 0755));
  OK(mkdir("a/b", 0755));
  FAILS(EINVAL, rename_with(RENAME_EXCHANGE, "a", "a/b"));
  FAILS(EINVAL, rename_with(RENAME_EXCHANGE, "a/b", "a"));
}

CASE(rename_flags, exchange_stamps) {
  OK(make_file("a"));
  OK(make_file("b"));
  OK(mkdir("d", 0755));
  OK(rename("b", "d/b"));
  EQ(moved({".", "d"}, [] { OK(rename_with(RENAME_EXCHANGE, "a", "d/b")); }), ".:mc d:mc");
}

CASE(rename_flags, exchange_keeps_open_files_apart) {
  OK(make_file("a", "one"));
  OK(make_file("b", "two"));
  const Fd a = OK(open("a", O_RDONLY));
  OK(rename_with(RENAME_EXCHANGE, "a", "b"));
  EQ(content(static_cast<int>(a)), "one");
  EQ(content("a"), "two");
  EQ(content("b"), "one");
}

CASE(rename_flags, impossible_combinations) {
  OK(make_file("a"));
  OK(make_file("b"));
  FAILS(EINVAL, rename_with(RENAME_NOREPLACE | RENAME_EXCHANGE, "a", "b"));
  FAILS(EINVAL, rename_with(RENAME_EXCHANGE | RENAME_WHITEOUT, "a", "b"));
  FAILS(EINVAL, rename_with(1u << 20, "a", "b"));
}
