// Who may enter, search and use what; access(2); set-group-ID directories.
#include "test/conformance/suite/suite.hpp"

CASE(permissions, searching_every_parent, .root = true) {
  OK(make_dir("a", 0711));
  OK(make_dir("a/b", 0711));
  OK(make_file("a/b/f", "text"));
  as(kAlice, [] { EQ(content("a/b/f"), "text"); });
  OK(chmod("a", 0766));
  as(kAlice, [] {
    EQ(content("a/b/f"), "<EACCES>");
    EQ(attrs("a/b"), "<EACCES>");
    FAILS(EACCES, chdir("a/b"));
  });
  OK(chmod("a", 0711));
  OK(chmod("a/b", 0600));
  as(kAlice, [] { EQ(content("a/b/f"), "<EACCES>"); });
}

// One user's look-ups must not open the way for another, whatever has been cached meanwhile.
CASE(permissions, not_bypassed_by_what_another_user_cached, .root = true) {
  OK(make_dir("a", 0700));
  OK(make_dir("a/b", 0777));
  OK(make_file("a/b/f", "secret", 0666));
  EQ(content("a/b/f"), "secret");
  as(kAlice, [] {
    EQ(content("a/b/f"), "<EACCES>");
    EQ(attrs("a/b/f"), "<EACCES>");
    FAILS(EACCES, open("a/b/g", O_CREAT | O_WRONLY, 0644));
    FAILS(EACCES, unlink("a/b/f"));
  });
  EQ(content("a/b/f"), "secret");
}

CASE(permissions, change_of_mode_holds_at_once, .root = true) {
  OK(make_file("f", "text", 0644));
  SharedCounter turn;
  Process reader([&] {
    as(kAlice, [&] {
      EQ(content("f"), "text");
      turn.add();
      turn.wait_for(2);
      EQ(content("f"), "<EACCES>");
    });
  });
  turn.wait_for(1);
  OK(chmod("f", 0600));
  turn.add();
}

CASE(permissions, directory_opened_before_it_was_closed_to_us, .root = true) {
  OK(make_dir("d", 0755));
  OK(make_file("d/f", "text"));
  SharedCounter turn;
  Process user([&] {
    as(kAlice, [&] {
      const Fd dir = OK(open("d", O_RDONLY | O_DIRECTORY));
      turn.add();
      turn.wait_for(2);
      FAILS(EACCES, openat(dir, "f", O_RDONLY));
    });
  });
  turn.wait_for(1);
  OK(chmod("d", 0700));
  turn.add();
}

CASE(permissions, supplementary_groups, .root = true) {
  OK(make_file("f", "text", 0640));
  OK(chown("f", 0, 65000));
  as(kAlice, [] { EQ(content("f"), "<EACCES>"); });
  as({65534, 65534, {65000}}, [] { EQ(content("f"), "text"); });
  as({65534, 65534, {64999, 65000, 65001}}, [] { EQ(content("f"), "text"); });
  as({65534, 65000}, [] { EQ(content("f"), "text"); });
}

CASE(permissions, many_supplementary_groups, .root = true) {
  OK(make_file("f", "text", 0640));
  OK(chown("f", 0, 65000));
  User user{65534, 65534};
  for (gid_t group = 64000; group <= 65000; ++group) user.groups.push_back(group);
  as(user, [] { EQ(content("f"), "text"); });
  user.groups.pop_back();
  as(user, [] { EQ(content("f"), "<EACCES>"); });
}

CASE(permissions, groups_of_a_directory, .root = true) {
  OK(make_dir("d", 0770));
  OK(chown("d", 0, 65000));
  as({65534, 65534, {65000}}, [] {
    OK(make_file("d/f", "text"));
    OK(mkdir("d/e", 0755));
    EQ(owner("d/f"), "65534:65534");
  });
  as(kAlice, [] { FAILS(EACCES, access("d/f", F_OK)); });
}

// The owner's bits count for the owner, even where the group or the others have more.
CASE(permissions, the_first_matching_class_decides, .root = true) {
  OK(make_file("f", "text", 0077));
  OK(chown("f", kAlice.uid, kAlice.gid));
  as(kAlice, [] { EQ(content("f"), "<EACCES>"); });
  OK(chmod("f", 0707));
  OK(chown("f", 0, kAlice.gid));
  as(kAlice, [] { EQ(content("f"), "<EACCES>"); });
  as(kBob, [] { EQ(content("f"), "text"); });
}

CASE(permissions, root_passes, .root = true) {
  OK(make_dir("d", 0));
  OK(make_file("d/f", "text", 0));
  EQ(content("d/f"), "text");
  OK(make_file("d/f", "more", 0));
  OK(access("d/f", R_OK | W_OK));
  FAILS(EACCES, access("d/f", X_OK));
  OK(chmod("d/f", 0001));
  OK(access("d/f", X_OK));
}

CASE(access, answers_by_class, .root = true) {
  OK(make_file("f", "text", 0642));
  OK(chown("f", kAlice.uid, 65000));
  as(kAlice, [] {
    OK(access("f", R_OK | W_OK));
    FAILS(EACCES, access("f", X_OK));
  });
  as({65533, 65000}, [] {
    OK(access("f", R_OK));
    FAILS(EACCES, access("f", W_OK));
    FAILS(EACCES, access("f", R_OK | W_OK));
  });
  as(kBob, [] {
    OK(access("f", W_OK | F_OK));
    FAILS(EACCES, access("f", R_OK));
  });
}

CASE(access, directories_and_links) {
  OK(make_dir("d", 0755));
  OK(make_file("f", "", 0644));
  OK(symlink("f", "link"));
  OK(symlink("nowhere", "dangling"));
  OK(access("d", R_OK | W_OK | X_OK));
  OK(access("link", R_OK));
  FAILS(ENOENT, access("dangling", F_OK));
  OK(faccessat(AT_FDCWD, "dangling", F_OK, AT_SYMLINK_NOFOLLOW));
  FAILS(EINVAL, access("f", 64));
}

// access(2) asks for the real ids, AT_EACCESS (faccessat2, Linux 5.8) for the effective ones.
CASE(access, real_and_effective_ids, .root = true) {
  OK(make_file("f", "text", 0600));
  in_child([] {
    OK(setresgid(kAlice.gid, 0, 0));
    OK(setresuid(kAlice.uid, 0, 0));
    FAILS(EACCES, access("f", R_OK));
    OK(faccessat(AT_FDCWD, "f", R_OK, AT_EACCESS));
    EQ(content("f"), "text");
  });
  in_child([] {
    OK(setresuid(0, kAlice.uid, 0));
    OK(access("f", R_OK));
    FAILS(EACCES, faccessat(AT_FDCWD, "f", R_OK, AT_EACCESS));
  });
}

CASE(access, faccessat_by_descriptor) {
  OK(make_dir("d", 0755));
  OK(make_file("d/f", "text", 0600));
  const Fd dir = OK(open("d", O_PATH)), file = OK(open("d/f", O_RDONLY));
  OK(faccessat(dir, "f", R_OK, 0));
  FAILS(ENOTDIR, faccessat(file, "f", R_OK, 0));
  FAILS(EBADF, faccessat(-1, "f", R_OK, 0));
}

CASE(setgid_directory, gives_its_group, .root = true) {
  OK(make_dir("d", 0777));
  OK(chown("d", 0, 65000));
  OK(chmod("d", 02777));
  as(kAlice, [] {
    OK(make_file("d/f"));
    OK(mkdir("d/e", 0755));
    OK(mkfifo("d/fifo", 0644));
    OK(symlink("x", "d/link"));
    for (const char* path : {"d/f", "d/e", "d/fifo", "d/link"}) EQ(owner(path), "65534:65000");
  });
  EQ(mode("d/e"), "02755");
  EQ(mode("d/f"), "0644");
}

CASE(setgid_directory, goes_down_the_tree, .root = true) {
  OK(make_dir("d", 0777));
  OK(chown("d", 0, 65000));
  OK(chmod("d", 02777));
  as(kAlice, [] {
    OK(mkdir("d/e", 0755));
    OK(mkdir("d/e/deeper", 0700));
    EQ(owner("d/e/deeper"), "65534:65000");
    EQ(mode("d/e/deeper"), "02700");
  });
}

// A stranger to the group must not make a program that runs with it (Linux 4.11 and later, CVE-2018-13405).
CASE(setgid_directory, no_setgid_programs_for_strangers, .root = true) {
  OK(make_dir("d", 0777));
  OK(chown("d", 0, 65000));
  OK(chmod("d", 02777));
  as(kAlice, [] {
    umask(0);
    const Fd fd = OK(open("d/f", O_CREAT | O_WRONLY, 02775));
    EQ(mode("d/f"), "0775");
    OK(mknod("d/g", S_IFREG | 02775, 0));
    EQ(mode("d/g"), "0775");
  });
  as({65534, 65534, {65000}}, [] {
    umask(0);
    const Fd fd = OK(open("d/h", O_CREAT | O_WRONLY, 02775));
    EQ(mode("d/h"), "02775");
  });
}

CASE(setgid_directory, rename_keeps_the_group, .root = true) {
  OK(make_dir("d", 0777));
  OK(chown("d", 0, 65000));
  OK(chmod("d", 02777));
  OK(make_file("f"));
  OK(rename("f", "d/f"));
  EQ(owner("d/f"), "0:0");
}

CASE(permissions, umask_is_the_callers, .root = true) {
  OK(chmod(".", 0777));
  SharedCounter turn;
  Process strict([&] {
    umask(077);
    turn.add();
    turn.wait_for(2);
    for (int i = 0; i < 20; ++i)
      (void)!open(("strict" + std::to_string(i)).c_str(), O_CREAT | O_WRONLY, 0666);
  });
  umask(0);
  turn.wait_for(1);
  turn.add();
  for (int i = 0; i < 20; ++i) (void)!open(("open" + std::to_string(i)).c_str(), O_CREAT | O_WRONLY, 0666);
  strict.wait();
  std::string wrong;
  for (int i = 0; i < 20; ++i) {
    if (mode("strict" + std::to_string(i)) != "0600") wrong += "strict ";
    if (mode("open" + std::to_string(i)) != "0666") wrong += "open ";
  }
  EQ(wrong, "");
}
