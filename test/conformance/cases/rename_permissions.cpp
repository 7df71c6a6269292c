// Who may rename what: parents' write permission and sticky directories.
#include "test/conformance/suite/suite.hpp"

namespace {

struct Owner {
  const char* name;
  uid_t uid;
};
const Owner kOwners[] = {{"alice", kAlice.uid}, {"bob", kBob.uid}, {"root", 0}};

int make_owned(Kind kind, const char* path, uid_t uid) {
  return make(kind, path) == 0 ? lchown(path, uid, uid) : -1;
}

// sticky(7): in such a directory only the owners of the file and of the directory may move or replace it.
bool may_remove(uid_t directory, uid_t file) {
  return directory == kAlice.uid || file == kAlice.uid;
}

}  // namespace

CASE(rename, sticky_source, .root = true) {
  OK(make_dir("sticky", 01777));
  OK(make_dir("open", 0777));
  for (const Owner& directory : kOwners) {
    OK(chown("sticky", directory.uid, 0));
    for (const Owner& file : kOwners) {
      for (const Kind kind : all_but({Kind::directory})) {
        NOTE("%s's %s in %s's directory", file.name, kind_name(kind), directory.name);
        OK(make_owned(kind, "sticky/f", file.uid));
        const int expected = may_remove(directory.uid, file.uid) ? 0 : EPERM;
        as(kAlice, [&] { FAILS(expected, rename("sticky/f", "open/f")); });
        OK(unlink(expected == 0 ? "open/f" : "sticky/f"));
      }
    }
  }
}

CASE(rename, sticky_target, .root = true) {
  OK(make_dir("sticky", 01777));
  OK(make_dir("open", 0777));
  for (const Owner& directory : kOwners) {
    OK(chown("sticky", directory.uid, 0));
    for (const Owner& file : kOwners) {
      for (const Kind kind : all_but({Kind::directory})) {
        NOTE("over %s's %s in %s's directory", file.name, kind_name(kind), directory.name);
        OK(make_owned(Kind::regular, "open/f", kAlice.uid));
        OK(make_owned(kind, "sticky/f", file.uid));
        const int expected = may_remove(directory.uid, file.uid) ? 0 : EPERM;
        as(kAlice, [&] { FAILS(expected, rename("open/f", "sticky/f")); });
        OK(unlink("sticky/f"));
        if (expected != 0) OK(unlink("open/f"));
      }
    }
  }
}

CASE(rename, sticky_directories_inside, .root = true) {
  OK(make_dir("sticky", 01777));
  OK(make_dir("open", 0777));
  for (const Owner& directory : kOwners) {
    OK(chown("sticky", directory.uid, 0));
    OK(make_owned(Kind::directory, "sticky/d", kAlice.uid));
    as(kAlice, [&] { OK(rename("sticky/d", "open/d")); });
    OK(make_owned(Kind::directory, "sticky/d", kBob.uid));
    const int expected = may_remove(directory.uid, kBob.uid) ? 0 : EPERM;
    as(kAlice, [&] { FAILS(expected, rename("open/d", "sticky/d")); });
    if (exists("open/d")) OK(rmdir("open/d"));
    OK(rmdir("sticky/d"));
  }
}

CASE(rename, sticky_exchange_checks_both, .root = true) {
  OK(make_dir("sticky", 01777));
  OK(make_owned(Kind::regular, "sticky/a", kAlice.uid));
  OK(make_owned(Kind::regular, "sticky/b", kBob.uid));
  as(kAlice, [] {
    FAILS(EPERM, renameat2(AT_FDCWD, "sticky/a", AT_FDCWD, "sticky/b", RENAME_EXCHANGE));
    FAILS(EPERM, renameat2(AT_FDCWD, "sticky/b", AT_FDCWD, "sticky/a", RENAME_EXCHANGE));
  });
}

CASE(rename, both_parents_must_be_writable, .root = true) {
  OK(make_dir("mine", 0777));
  OK(make_dir("theirs", 0755));
  OK(make_owned(Kind::regular, "mine/f", kAlice.uid));
  OK(make_owned(Kind::regular, "theirs/g", kAlice.uid));
  as(kAlice, [] {
    FAILS(EACCES, rename("mine/f", "theirs/f"));
    FAILS(EACCES, rename("theirs/g", "mine/g"));
    FAILS(EACCES, rename("theirs/g", "theirs/h"));
    FAILS(EACCES, rename("mine/f", "theirs/g"));
    OK(rename("mine/f", "mine/h"));
  });
}

// POSIX lets moving a directory demand write permission on it, because its .. changes.
CASE(rename, moving_somebody_elses_directory, .root = true) {
  OK(make_dir("a", 0777));
  OK(make_dir("b", 0777));
  OK(make_dir("a/d", 0700));
  as(kAlice, [] {
    OK(rename("a/d", "a/e"));
    MAY_FAIL(EACCES, rename("a/e", "b/d"));
  });
}

CASE(rename, file_needs_no_permission_on_itself, .root = true) {
  OK(make_dir("open", 0777));
  OK(make_file("open/f", "text", 0));
  as(kAlice, [] {
    OK(rename("open/f", "open/g"));
    FAILS(EACCES, open("open/g", O_RDONLY));
  });
}
