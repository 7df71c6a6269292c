// chown(2), lchown(2), fchown(2).
#include "test/conformance/suite/suite.hpp"

CASE(chown, every_kind_by_root, .root = true) {
  for (const Kind kind : all_kinds()) {
    NOTE("%s", kind_name(kind));
    OK(make(kind, "x"));
    OK(lchown("x", 123, 456));
    EQ(owner("x"), "123:456");
    OK(lchown("x", static_cast<uid_t>(-1), 789));
    EQ(owner("x"), "123:789");
    OK(lchown("x", 321, static_cast<gid_t>(-1)));
    EQ(owner("x"), "321:789");
    OK(lchown("x", 0, 0));
    EQ(owner("x"), "0:0");
    OK(remove_any("x"));
  }
}

CASE(chown, large_ids, .root = true) {
  OK(make_file("f"));
  OK(chown("f", 0xfffffffe, 0xfffffffd));
  EQ(owner("f"), "4294967294:4294967293");
}

CASE(chown, follows_symlinks, .root = true) {
  OK(make_file("f"));
  OK(symlink("f", "link"));
  OK(chown("link", 123, 456));
  EQ(owner("f"), "123:456");
  EQ(owner("link"), "0:0");
  OK(lchown("link", 1, 2));
  EQ(owner("f"), "123:456");
  EQ(owner("link"), "1:2");
  OK(fchownat(AT_FDCWD, "link", 5, 6, 0));
  EQ(owner("f"), "5:6");
  OK(fchownat(AT_FDCWD, "link", 7, 8, AT_SYMLINK_NOFOLLOW));
  EQ(owner("link"), "7:8");
}

CASE(chown, owner_may_choose_among_own_groups, .root = true) {
  const User member{65534, 65532, {65531}};
  for (const Kind kind : all_kinds()) {
    NOTE("%s", kind_name(kind));
    OK(make(kind, "x"));
    OK(lchown("x", 65534, 65533));
    as(member, [] { OK(lchown("x", static_cast<uid_t>(-1), 65532)); });
    EQ(owner("x"), "65534:65532");
    as(member, [] { OK(lchown("x", 65534, 65531)); });
    EQ(owner("x"), "65534:65531");
    as(member, [] { FAILS(EPERM, lchown("x", static_cast<uid_t>(-1), 65533)); });
    as(member, [] { FAILS(EPERM, lchown("x", 65533, static_cast<gid_t>(-1))); });
    EQ(owner("x"), "65534:65531");
    OK(remove_any("x"));
  }
}

CASE(chown, others_may_not, .root = true) {
  for (const Kind kind : all_kinds()) {
    OK(make(kind, "x"));
    OK(lchown("x", 65534, 65534));
    as(kBob, [] {
      FAILS(EPERM, lchown("x", 65533, 65533));
      FAILS(EPERM, lchown("x", 65534, 65533));
      FAILS(EPERM, lchown("x", static_cast<uid_t>(-1), 65533));
    });
    EQ(owner("x"), "65534:65534");
    OK(remove_any("x"));
  }
}

// chown(2) with both ids -1 asks for nothing, so anybody may.
CASE(chown, no_change_is_allowed_to_all, .root = true) {
  for (const Kind kind : all_kinds()) {
    OK(make(kind, "x"));
    as(kAlice, [] { OK(lchown("x", static_cast<uid_t>(-1), static_cast<gid_t>(-1))); });
    EQ(owner("x"), "0:0");
    OK(remove_any("x"));
  }
}

CASE(chown, to_oneself_without_change) {
  OK(make_file("f"));
  OK(chown("f", getuid(), getgid()));
  OK(chown("f", static_cast<uid_t>(-1), static_cast<gid_t>(-1)));
}

CASE(chown, by_owner_clears_set_ids, .root = true) {
  const User member{65534, 65532, {65531}};
  OK(make_file("f"));
  OK(chown("f", 65534, 65532));
  for (const mode_t bits : {06555u, 04555u, 02555u, 06444u}) {
    OK(chmod("f", bits));
    NOTE("%o", bits);
    as(member, [] { OK(chown("f", static_cast<uid_t>(-1), 65531)); });
    RECORD(std::stoi(mode("f"), nullptr, 8));
    OK(chown("f", 65534, 65532));
  }
}

// Set-group-ID that stands for nothing executable stays only with members of the file's group, whatever kind
// it is (setattr_should_drop_sgid, fs/attr.c).
CASE(chown, by_owner_of_another_group_clears_set_ids, .root = true) {
  for (const Kind kind : all_but({Kind::symlink})) {
    OK(make(kind, "x"));
    OK(lchown("x", 65534, 65533));
    for (const mode_t bits : {06555u, 02555u, 02343u, 06444u}) {
      OK(chmod("x", bits));
      NOTE("%o", bits);
      as({65534, 65532, {65531}}, [] { OK(chown("x", static_cast<uid_t>(-1), 65531)); });
      RECORD(std::stoi(mode("x"), nullptr, 8));
      OK(chown("x", 65534, 65533));
    }
    OK(remove_any("x"));
  }
}

CASE(chown, by_root_and_set_ids, .root = true) {
  OK(make_file("f", "", 06555));
  OK(chown("f", 65532, 65531));
  RECORD(std::stoi(mode("f"), nullptr, 8));
}

CASE(chown, directories_keep_set_ids, .root = true) {
  OK(make_dir("d", 06755));
  OK(chown("d", 65534, 65532));
  EQ(mode("d"), "06755");
  as({65534, 65532, {65531}}, [] { OK(chown("d", static_cast<uid_t>(-1), 65531)); });
  EQ(mode("d"), "06755");
}

CASE(chown, no_change_and_set_ids, .root = true) {
  OK(make_file("f", "", 06555));
  OK(chown("f", static_cast<uid_t>(-1), static_cast<gid_t>(-1)));
  RECORD(std::stoi(mode("f"), nullptr, 8));
}

CASE(chown, stamps, .root = true) {
  for (const Kind kind : all_kinds()) {
    OK(make(kind, "x"));
    EQ(moved({"x", "."}, [] { OK(lchown("x", 123, 456)); }), "x:c .:-");
    OK(remove_any("x"));
  }
}

CASE(chown, failure_changes_nothing, .root = true) {
  OK(make_file("f", "", 06755));
  EQ(moved({"f"}, [] { as(kAlice, [] { FAILS(EPERM, chown("f", 65534, 65534)); }); }), "f:-");
  EQ(mode("f"), "06755");
}

CASE(chown, fchown_and_fchownat, .root = true) {
  OK(make_file("f"));
  const Fd fd = OK(open("f", O_RDONLY)), dir = OK(open(".", O_PATH));
  OK(fchown(fd, 1, 2));
  EQ(owner("f"), "1:2");
  OK(fchownat(dir, "f", 3, 4, 0));
  EQ(owner("f"), "3:4");
  OK(fchownat(fd, "", 5, 6, AT_EMPTY_PATH));
  EQ(owner("f"), "5:6");
  FAILS(EBADF, fchown(-1, 1, 1));
  FAILS(EBADF, fchownat(-1, "f", 1, 1, 0));
  FAILS(EINVAL, fchownat(dir, "f", 1, 1, 0x8000));
}
