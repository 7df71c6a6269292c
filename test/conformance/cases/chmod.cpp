// chmod(2) and what clears set-id bits.
#include "test/conformance/suite/suite.hpp"

CASE(chmod, every_kind) {
  for (const Kind kind : all_but({Kind::symlink})) {
    NOTE("%s", kind_name(kind));
    OK(make(kind, "x"));
    for (const mode_t bits : {0111u, 0644u, 0u, 0777u, 04000u, 02755u, 01777u, 07777u, 0600u}) {
      OK(chmod("x", bits));
      EQ(std::stoul(mode("x"), nullptr, 8), bits);
    }
    OK(remove_any("x"));
  }
}

CASE(chmod, follows_symlinks) {
  OK(make_file("f"));
  OK(symlink("f", "link"));
  OK(chmod("link", 0600));
  EQ(mode("f"), "0600");
  EQ(mode("link"), "0777");
}

CASE(chmod, stamps) {
  for (const Kind kind : all_but({Kind::symlink})) {
    OK(make(kind, "x"));
    EQ(moved({"x", "."}, [] { OK(chmod("x", 0700)); }), "x:c .:-");
    OK(remove_any("x"));
  }
}

CASE(chmod, fchmod_and_fchmodat) {
  OK(make_file("f"));
  OK(mkdir("d", 0755));
  const Fd fd = OK(open("f", O_RDONLY)), dir = OK(open(".", O_RDONLY));
  OK(fchmod(fd, 0640));
  EQ(mode("f"), "0640");
  OK(fchmodat(dir, "d", 0700, 0));
  EQ(mode("d"), "0700");
  FAILS(EBADF, fchmod(-1, 0600));
  FAILS(EBADF, fchmodat(-1, "f", 0600, 0));
  FAILS(ENOTDIR, fchmodat(fd, "f", 0600, 0));
}

CASE(chmod, open_descriptors_keep_their_rights) {
  if (is_root()) OK(chmod(".", 0777));
  unprivileged([] {
    OK(make_file("f", "text", 0644));
    const Fd fd = OK(open("f", O_RDWR));
    OK(chmod("f", 0));
    EQ(content(static_cast<int>(fd)), "text");
    OK(pwrite(fd, "T", 1, 0));
    FAILS(EACCES, open("f", O_RDONLY));
  });
}

CASE(chmod, only_the_owner, .root = true) {
  OK(make_dir("d", 0777));
  for (const Kind kind : all_but({Kind::symlink})) {
    OK(make(kind, "d/x"));
    OK(chown("d/x", kAlice.uid, kAlice.gid));
    as(kAlice, [] { OK(chmod("d/x", 0600)); });
    as(kBob, [] { FAILS(EPERM, chmod("d/x", 0777)); });
    as({65533, 65534}, [] { FAILS(EPERM, chmod("d/x", 0777)); });
    EQ(mode("d/x"), "0600");
    OK(remove_any("d/x"));
  }
}

// chmod(2): a caller outside the file's group cannot leave the set-group-ID bit on.
CASE(chmod, setgid_needs_membership, .root = true) {
  OK(make_file("f"));
  OK(chown("f", 65534, 65533));
  as({65534, 65534}, [] { OK(chmod("f", 02755)); });
  EQ(mode("f"), "0755");
  as({65534, 65534, {65533}}, [] { OK(chmod("f", 02755)); });
  EQ(mode("f"), "02755");
  as({65534, 65533}, [] { OK(chmod("f", 06711)); });
  EQ(mode("f"), "06711");
}

CASE(chmod, setgid_of_directory_needs_membership, .root = true) {
  OK(make_dir("d"));
  OK(chown("d", 65534, 65533));
  as({65534, 65534}, [] { OK(chmod("d", 02755)); });
  EQ(mode("d"), "0755");
}

CASE(chmod, sticky_file_by_owner, .root = true) {
  OK(make_file("f"));
  OK(chown("f", kAlice.uid, kAlice.gid));
  as(kAlice, [] { RECORD(chmod("f", 01644)); });
  EQ(mode("f"), "01644");
}

CASE(chmod, write_by_another_user_clears_set_ids, .root = true) {
  for (const mode_t bits : {04777u, 02777u, 06777u}) {
    OK(make_file("f", "text", bits));
    as(kAlice, [] {
      const Fd fd = OK(open("f", O_RDWR));
      OK(write(fd, "x", 1));
      EQ(mode(static_cast<int>(fd)), "0777");
    });
    EQ(mode("f"), "0777");
  }
}

// Without group execution, set-group-ID was mandatory locking, and writing leaves it alone unless the
// writer is outside the group (inode_setattr rules since Linux 6.2).
CASE(chmod, write_and_setgid_without_group_execution, .root = true) {
  OK(make_file("f", "text", 02666));
  as(kAlice, [] {
    const Fd fd = OK(open("f", O_WRONLY));
    OK(write(fd, "x", 1));
  });
  RECORD(std::stoi(mode("f"), nullptr, 8));
}

CASE(chmod, truncation_by_another_user_clears_set_ids, .root = true) {
  OK(make_file("f", "text", 06777));
  as(kAlice, [] { OK(truncate("f", 1)); });
  EQ(mode("f"), "0777");
  OK(chmod("f", 06777));
  as(kAlice, [] {
    const Fd fd = OK(open("f", O_RDWR));
    OK(ftruncate(fd, 3));
  });
  EQ(mode("f"), "0777");
  OK(chmod("f", 06777));
  as(kAlice, [] { const Fd fd = OK(open("f", O_WRONLY | O_TRUNC)); });
  EQ(mode("f"), "0777");
}

CASE(chmod, fallocate_by_another_user_clears_set_ids, .root = true) {
  OK(make_file("f", "text", 06777));
  as(kAlice, [] {
    const Fd fd = OK(open("f", O_RDWR));
    OK(fallocate(fd, 0, 0, 10000));
  });
  EQ(mode("f"), "0777");
}

CASE(chmod, root_writes_keep_set_ids, .root = true) {
  OK(make_file("f", "text", 06777));
  const Fd fd = OK(open("f", O_RDWR));
  OK(write(fd, "x", 1));
  OK(ftruncate(fd, 1));
  EQ(mode("f"), "06777");
}
