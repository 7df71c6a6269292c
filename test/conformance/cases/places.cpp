// Whether a path leads where it seems to: mounts over and beside, other roots, other namespaces, other
// credentials. All in children with a mount namespace of their own; nothing of it is seen outside.
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include "test/conformance/suite/suite.hpp"

namespace {

// With a mount namespace of its own from the start, as containers have it.
void in_own_namespace(const std::function<void()>& work) {
  in_child([&] {
    if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
      SKIP("no mount namespaces here");
    work();
  });
}

}  // namespace

CASE(places, mounted_over, .root = true) {
  OK(make_dir("d"));
  OK(make_file("d/f", "below"));
  EQ(content(here() + "/d/f"), "below");
  in_own_namespace([] {
    const std::string path = here() + "/d";
    EQ(content(path + "/f"), "below");
    OK(mount("none", "d", "tmpfs", 0, nullptr));
    EQ(content(path + "/f"), "<ENOENT>");
    EQ(content("d/f"), "<ENOENT>");
    OK(make_file(path + "/f", "above"));
    EQ(content(path + "/f"), "above");
    EQ(content("d/../d/f"), "above");
    OK(umount("d"));
    EQ(content(path + "/f"), "below");
  });
  EQ(content("d/f"), "below");
}

CASE(places, bound_read_only, .root = true) {
  OK(make_dir("d"));
  OK(make_file("d/f", "text"));
  OK(make_dir("bound"));
  in_own_namespace([] {
    OK(mount("d", "bound", nullptr, MS_BIND, nullptr));
    OK(mount(nullptr, "bound", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr));
    const std::string path = here() + "/bound";
    EQ(content(path + "/f"), "text");
    FAILS(EROFS, open((path + "/f").c_str(), O_WRONLY));
    FAILS(EROFS, mkdir((path + "/new").c_str(), 0755));
    FAILS(EXDEV, rename("d/f", "bound/g"));
    OK(make_file("d/f", "other"));
    EQ(content(path + "/f"), "other");
  });
}

CASE(places, working_directory_stays_when_mounted_over, .root = true) {
  OK(make_dir("d"));
  OK(make_file("d/f", "below"));
  in_own_namespace([] {
    OK(chdir("d"));
    OK(mount("none", ".", "tmpfs", 0, nullptr));
    EQ(content("f"), "below");
    EQ(content("../d/f"), "<ENOENT>");
    const std::string path = here();
    EQ(content(path + "/f"), "<ENOENT>");
  });
}

CASE(places, other_root, .root = true) {
  OK(make_dir("root"));
  OK(make_file("root/f", "inside"));
  OK(make_file("f", "outside"));
  const std::string outside = here();
  in_child([&] {
    EQ(content(outside + "/f"), "outside");
    const Fd open_before = OK(open((outside + "/f").c_str(), O_RDONLY));
    OK(chroot("root"));
    EQ(content(outside + "/f"), "<ENOENT>");
    EQ(content("/f"), "inside");
    EQ(content("f"), "outside");  // the working directory is still out there
    OK(chdir("/"));
    EQ(content("f"), "inside");
    EQ(content("../f"), "inside");
    EQ(content(static_cast<int>(open_before)), "outside");
  });
}

CASE(places, same_path_in_another_root, .root = true) {
  const std::string path = here();
  // The root has the same names, down to where this directory would be.
  std::string made = "root";
  OK(make_dir(made));
  for (size_t at = 1; at != 0;) {  // one of the two places lies deeper: not in the transcript
    const size_t end = path.find('/', at);
    made += "/" + path.substr(at, end - at);
    if (mkdir(made.c_str(), 0755) != 0) FAIL(made);
    at = end + 1;
  }
  OK(make_file(made + "/f", "inside"));
  OK(make_file("f", "outside"));
  in_child([&] {
    EQ(content(path + "/f"), "outside");
    OK(chroot("root"));
    EQ(content(path + "/f"), "inside");
  });
}

CASE(places, other_namespace, .root = true) {
  OK(make_file("f", "text"));
  in_own_namespace([] {
    EQ(content(here() + "/f"), "text");
    EQ(content("f"), "text");
    OK(make_file("g", "new"));
  });
  EQ(content("g"), "new");
}

CASE(places, threads_with_directories_of_their_own) {
  OK(make_dir("d"));
  OK(make_file("f", "outer"));
  OK(make_file("d/f", "inner"));
  in_child([] {
    EQ(content("f"), "outer");
    OK(unshare(CLONE_FS));
    OK(chdir("d"));
    EQ(content("f"), "inner");
  });
}

CASE(places, unsearchable_parents, .root = true) {
  OK(make_dir("private", 0700));
  OK(make_dir("private/d"));
  OK(make_file("private/d/f", "text"));
  OK(chdir("private/d"));
  const std::string path = here();
  EQ(content(path + "/f"), "text");
  as(kAlice, [&] {
    EQ(content(path + "/f"), "<EACCES>");
    EQ(content("f"), "text");  // no parent is asked
    EQ(content("../d/f"), "<EACCES>");
  });
}

// ---- Credentials that change within one process ----

CASE(places, effective_ids_come_and_go, .root = true) {
  OK(make_file("f", "text", 0600));
  OK(make_file("g", "text", 0640));
  OK(chown("g", 0, 65000));
  in_child([] {
    const Fd fd = OK(open("f", O_RDWR));
    OK(setegid(kAlice.gid));
    OK(setgroups(0, nullptr));
    OK(seteuid(kAlice.uid));
    FAILS(EACCES, open("f", O_RDONLY));
    FAILS(EACCES, open("g", O_RDONLY));
    EQ(content(static_cast<int>(fd)), "text");
    OK(pwrite(fd, "T", 1, 0));
    FAILS(EPERM, fchmod(fd, 0644));
    OK(seteuid(0));
    EQ(content("f"), "Text");
    const gid_t group = 65000;
    OK(setgroups(1, &group));
    OK(seteuid(kAlice.uid));
    EQ(content("g"), "text");
    FAILS(EACCES, open("g", O_RDWR));
    FAILS(EACCES, open("f", O_RDONLY));
  });
}

CASE(places, access_asks_the_real_ids, .root = true) {
  OK(make_file("f", "text", 0600));
  OK(chown("f", kAlice.uid, kAlice.gid));
  in_child([] {
    OK(setresgid(kBob.gid, kAlice.gid, 0));
    OK(setgroups(0, nullptr));
    OK(setresuid(kBob.uid, kAlice.uid, 0));
    const Fd fd = OK(open("f", O_RDWR));
    FAILS(EACCES, access("f", R_OK));
    OK(faccessat(AT_FDCWD, "f", R_OK, AT_EACCESS));
    OK(eaccess("f", R_OK));
    FAILS(EACCES, eaccess("f", X_OK));
  });
}

CASE(places, the_mask_follows, ) {
  const mode_t before = umask(077);
  EQ(before, 022u);
  OK(mkdir("a", 0777));
  EQ(mode("a"), "0700");
  umask(0);
  const Fd fd = OK(open("b", O_CREAT | O_WRONLY, 0666));
  EQ(mode("b"), "0666");
  in_child([] {
    OK(mkfifo("c", 0666));
    EQ(mode("c"), "0666");
  });
}
