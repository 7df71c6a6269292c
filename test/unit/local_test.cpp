// `local` in both modes over a directory and over `memory`: every operation compared with what the host then
// sees, files without names, restarts. Confinement to the root and races are in local_race_test.cpp.
#include "libservices/local/local.hpp"

#include <fcntl.h>
#include <grp.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <algorithm>
#include <functional>
#include <set>
#include <thread>

#include "libservices/identity.hpp"
#include "test/unit/local_rig.hpp"

using namespace rig;

namespace {

void everywhere(void (*test)(LocalRig&)) {
  for (const Where& where : kEverywhere) {
    const uint64_t before = check::failures.load();
    LocalRig rig(where);
    test(rig);
    if (check::failures.load() != before) std::fprintf(stderr, "  in %s\n", where.name);
  }
}

std::string names(std::vector<std::string> all) {
  std::erase(all, ".");
  std::erase(all, "..");
  std::ranges::sort(all);
  std::string text;
  for (auto& name : all) text += (text.empty() ? "" : " ") + name;
  return text;
}

bool same_times(const timespec& a, const statx_timestamp& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

// What the libservice says of a node is what lstat(2) says of its name.
void compare_attr(LocalRig& rig, const std::string& path) {
  const Ref<Node> node = rig.node(path);
  const Attr attr = rig.attr(*node);
  const struct stat st = rig.host_stat(path);
  CHECK_EQ(attr.stx_ino, st.st_ino);
  CHECK_EQ(attr.stx_mode, st.st_mode);
  CHECK_EQ(attr.stx_nlink, st.st_nlink);
  CHECK_EQ(attr.stx_uid, st.st_uid);
  CHECK_EQ(attr.stx_gid, st.st_gid);
  CHECK_EQ(attr.stx_size, st.st_size);
  CHECK_EQ(attr.stx_blocks, st.st_blocks);
  CHECK_EQ(makedev(attr.stx_rdev_major, attr.stx_rdev_minor), st.st_rdev);
  CHECK(same_times(st.st_mtim, attr.stx_mtime) && same_times(st.st_ctim, attr.stx_ctime));
}

}  // namespace

TEST(makes_every_kind_of_file) {
  everywhere([](LocalRig& rig) {
    Entry entry;
    CHECK_EQ(rig.mkdir("d", 0751), 0);
    CHECK_EQ(rig.mkdir("d", 0755), -EEXIST);
    CHECK_EQ(rig.mkdir("d/e", 01777), 0);
    const Ref<File> file = rig.create("d/f", O_RDWR | O_EXCL, 0640);
    CHECK_EQ(rig.fs->symlink(rig.caller, *rig.root, "s", "../anywhere/at all", entry), 0);
    CHECK_EQ(rig.fs->mknod(rig.caller, *rig.root, "p", S_IFIFO | 0600, 0, entry), 0);
    CHECK_EQ(rig.fs->mknod(rig.caller, *rig.root, "k", S_IFSOCK | 0600, 0, entry), 0);
    CHECK_EQ(rig.fs->mknod(rig.caller, *rig.root, "r", S_IFREG | 04755, 0, entry), 0);
    CHECK_EQ(rig.fs->mknod(rig.caller, *rig.root, "c", S_IFCHR | 0600, makedev(1, 3), entry), 0);
    CHECK_EQ(rig.fs->mknod(rig.caller, *rig.root, "b", S_IFBLK | 0600, makedev(300, 70000), entry), 0);
    CHECK_EQ(rig.link(*rig.node("d/f"), "l"), 0);
    CHECK_EQ(rig.link(*rig.node("s"), "sl"), 0);  // of the symlink itself
    CHECK_EQ(rig.link(*rig.node("d"), "dl"), -EPERM);
    for (const char* path : {"d", "d/e", "d/f", "s", "p", "k", "r", "c", "b", "l", "sl"})
      compare_attr(rig, path);
    CHECK_EQ(rig.node("l").get(), rig.node("d/f").get());
    CHECK_EQ(rig.host_stat("l").st_nlink, 2);
    char target[64]{};
    CHECK_EQ(rig.fs->readlink(*rig.node("s"), target), 18);
    CHECK_EQ(std::string(target), "../anywhere/at all");
    CHECK_EQ(rig.fs->readlink(*rig.node("d"), target), -EINVAL);
    Ref<File> nothing;
    for (const char* path : {"s", "p", "k", "c", "b"})  // the kernel in front opens those
      CHECK_EQ(rig.fs->open(rig.caller, *rig.node(path), O_RDONLY, false, nothing), -ENXIO);
    CHECK_EQ(rig.fs->create(rig.caller, *rig.root, "p", O_RDWR, 0644, entry, nothing), -ESTALE);
    CHECK_EQ(rig.fs->create(rig.caller, *rig.root, "s", O_RDWR, 0644, entry, nothing), -ELOOP);
    CHECK_EQ(rig.fs->create(rig.caller, *rig.root, "r", O_RDWR | O_EXCL, 0644, entry, nothing), -EEXIST);
    CHECK_EQ(rig.fs->lookup(rig.caller, *rig.root, "none", entry), -ENOENT);
    CHECK_EQ(rig.fs->lookup(rig.caller, *rig.node("r"), "x", entry), -ENOTDIR);
    CHECK_EQ(rig.fs->lookup(rig.caller, *rig.root, std::string(256, 'n').c_str(), entry), -ENAMETOOLONG);
    CHECK_EQ(rig.mkdir(std::string(255, 'n')), 0);
  });
}

TEST(reads_and_writes) {
  everywhere([](LocalRig& rig) {
    const Ref<File> file = rig.create("f");
    CHECK_EQ(rig.write(*file, 0, "hello world"), 11);
    CHECK_EQ(rig.write(*file, 6, "there"), 5);
    CHECK_EQ(rig.host_text("f"), "hello there");
    CHECK_EQ(rig.read(*file, 6), "there");
    CHECK_EQ(rig.read(*file, 6, 2), "th");
    CHECK_EQ(rig.read(*file, 11), "");
    CHECK_EQ(rig.read(*file, 1'000'000), "");
    CHECK_EQ(rig.write(*file, 1'000'000, "x"), 1);
    CHECK_EQ(rig.host_stat("f").st_size, 1'000'001);
    CHECK_EQ(rig.fs->lseek(*file, 0, SEEK_DATA), 0);
    CHECK(rig.fs->lseek(*file, 0, SEEK_HOLE) < 1'000'000);
    CHECK_EQ(rig.fs->lseek(*file, 2'000'000, SEEK_DATA), -ENXIO);
    CHECK_EQ(rig.fs->fallocate(*file, 0, 0, 2'000'000), 0);
    CHECK_EQ(rig.host_stat("f").st_size, 2'000'000);
    CHECK_EQ(rig.fs->fallocate(*file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 65536), 0);
    CHECK_EQ(rig.read(*file, 0, 5), std::string(5, '\0'));
    CHECK_EQ(rig.fs->fallocate(*file, 0x8000, 0, 1), -EOPNOTSUPP);
    CHECK_EQ(rig.fs->flush(*file), 0);
    CHECK_EQ(rig.fs->fsync(*file, false), 0);
    CHECK_EQ(rig.fs->fsync(*file, true), 0);
    if (rig.where.memory)
      CHECK_EQ(rig.fs->syncfs(*rig.root), 0);  // of the machine's disk it would take its time

    const Ref<File> other = rig.create("g");
    CHECK_EQ(rig.fs->copy_range(*file, 999'999, *other, 3, 2), 2);
    CHECK_EQ(rig.host_text("g"), std::string("\0\0\0\0x", 5));
    CHECK_EQ(rig.fs->copy_range(*file, 0, *file, 1, 100), -EINVAL);

    const Ref<File> read_only = rig.open(*rig.node("f"), O_RDONLY);
    CHECK_EQ(rig.write(*read_only, 0, "x"), -EBADF);
    const Ref<File> emptied = rig.open(*rig.node("f"), O_WRONLY | O_TRUNC);
    CHECK_EQ(rig.host_stat("f").st_size, 0);
    CHECK_EQ(rig.read(*emptied), "E9");
    rig.write(*emptied, 0, "abc");
    Ref<File> restored;
    CHECK_EQ(rig.fs->open(rig.caller, *rig.node("f"), O_RDWR | O_TRUNC, true, restored), 0);
    CHECK_EQ(rig.host_text("f"), "abc");  // an open of before a restart truncates nothing

    Loan loan;
    CHECK_EQ(rig.fs->lend(*read_only, loan), 0);
    CHECK(loan.fd >= 0 && !loan.writable);
    CHECK_EQ(rig.fs->lend(*file, loan), 0);
    CHECK(loan.writable);
    CHECK_EQ(rig.fs->lend(*rig.open(*rig.root, O_RDONLY | O_DIRECTORY), loan), -ENOTSUP);
    Ref<File> nothing;
    CHECK_EQ(rig.fs->open(rig.caller, *rig.root, O_RDWR, false, nothing), -EISDIR);
    CHECK_EQ(rig.fs->open(rig.caller, *rig.node("f"), O_RDONLY | O_DIRECTORY, false, nothing), -ENOTDIR);
    struct statvfs st {};
    CHECK_EQ(rig.fs->statfs(*rig.node("f"), st), 0);
    CHECK(st.f_bsize > 0 && st.f_namemax == 255);
  });
}

// Whoever opens to read may get a descriptor that was opened before; it holds nothing that has gone.
TEST(opens_to_read_share_what_can_be_shared) {
  everywhere([](LocalRig& rig) {
    rig.stop();
    rig.read_fds = 16;
    rig.start();
    const auto free_blocks = [&] {
      struct statvfs fs;
      REQUIRE(rig.fs->statfs(*rig.root, fs) == 0);
      return fs.f_bfree;
    };
    const auto before = free_blocks();
    {
      Ref<Node> node;
      {
        const Ref<File> file = rig.create("f");
        CHECK_EQ(rig.write(*file, 0, std::string(1 << 20, 'x')), 1 << 20);
        node = rig.node("f");
      }
      const Ref<File> first = rig.open(*node, O_RDONLY), second = rig.open(*node, O_RDONLY);
      CHECK_EQ(rig.read(*second, 0, 1), "x");
      CHECK_EQ(rig.write(*second, 0, "y"), -EBADF);
      CHECK_EQ(rig.write(*rig.open(*node, O_RDWR), 0, "z"), 1);
      CHECK_EQ(rig.read(*first, 0, 1), "z");
      CHECK_EQ(rig.unlink("f"), 0);
      CHECK_EQ(rig.read(*rig.open(*node, O_RDONLY), 0, 1), "z");
    }
    if (rig.where.memory) CHECK_EQ(free_blocks(), before);
  });
}

TEST(sets_attributes) {
  everywhere([](LocalRig& rig) {
    const Ref<File> file = rig.create("f", O_RDWR | O_EXCL, 0600);
    const Ref<Node> node = rig.node("f");
    const auto apply = [&](SetAttr set, File* through = nullptr) {
      Attr attr{};
      const int err = rig.fs->setattr(rig.caller, *node, through, set, attr);
      if (err == 0) {
        CHECK_EQ(attr.stx_mode, rig.host_stat("f").st_mode);
        compare_attr(rig, "f");
      }
      return err;
    };
    SetAttr set;
    set.mask = kSetMode | kSetUid | kSetGid;
    set.mode = 06755;
    set.uid = 12;
    set.gid = 34;
    CHECK_EQ(apply(set), 0);
    CHECK_EQ(rig.host_stat("f").st_mode & 07777, 06755);
    CHECK_EQ(rig.host_stat("f").st_uid, 12);
    CHECK_EQ(rig.host_stat("f").st_gid, 34);
    for (File* through : {static_cast<File*>(nullptr), file.get()}) {
      set = {};
      set.mask = kSetSize;
      set.size = 12345;
      CHECK_EQ(apply(set, through), 0);
      CHECK_EQ(rig.host_stat("f").st_size, 12345);
      set.size = 1;
      CHECK_EQ(apply(set, through), 0);
    }
    set = {};
    set.mask = kSetAtime | kSetMtime;
    set.atime = {1, 999'999'999};
    set.mtime = {-5, 7};
    CHECK_EQ(apply(set), 0);
    CHECK_EQ(rig.host_stat("f").st_atim.tv_nsec, 999'999'999);
    CHECK_EQ(rig.host_stat("f").st_mtim.tv_sec, -5);
    set.mask = kSetMtimeNow;
    CHECK_EQ(apply(set), 0);
    CHECK(rig.host_stat("f").st_mtim.tv_sec > 1'000'000);
    CHECK_EQ(rig.host_stat("f").st_atim.tv_sec, 1);
    // Set-id bits go as for a writer without CAP_FSETID, also those given in the same call.
    set = {};
    set.mask = kSetMode;
    set.mode = 06777;
    CHECK_EQ(apply(set), 0);
    set.mask = kSetKillPriv | kSetSize;
    CHECK_EQ(apply(set), 0);
    CHECK_EQ(rig.host_stat("f").st_mode & 07777, 0777);
    Entry link;
    CHECK_EQ(rig.fs->symlink(rig.caller, *rig.root, "s", "f", link), 0);
    set = {};
    set.mask = kSetUid | kSetMtime;
    set.uid = 77;
    set.mtime = {99, 0};
    Attr attr{};
    CHECK_EQ(rig.fs->setattr(rig.caller, *link.node, nullptr, set, attr), 0);
    CHECK_EQ(rig.host_stat("s").st_uid, 77);  // of the symlink itself
    CHECK_EQ(rig.host_stat("s").st_mtim.tv_sec, 99);
    CHECK_EQ(rig.host_stat("f").st_uid, 12);
    set = {};
    set.mask = kSetMode;
    set.mode = 0600;
    CHECK_EQ(rig.fs->setattr(rig.caller, *link.node, nullptr, set, attr), -EOPNOTSUPP);
  });
}

TEST(extended_attributes) {
  everywhere([](LocalRig& rig) {
    const Ref<File> file = rig.create("f");
    const Ref<Node> node = rig.node("f");
    const auto value = [](std::string_view text) { return std::as_bytes(std::span(text)); };
    std::byte room[256];
    // user.* on tmpfs needs Linux 6.6; trusted.* is everywhere.
    CHECK_EQ(rig.fs->setxattr(*node, "trusted.a", value("one"), XATTR_REPLACE), -ENODATA);
    CHECK_EQ(rig.fs->setxattr(*node, "trusted.a", value("one"), XATTR_CREATE), 0);
    CHECK_EQ(rig.fs->setxattr(*node, "trusted.a", value("one"), XATTR_CREATE), -EEXIST);
    CHECK_EQ(rig.fs->setxattr(*node, "trusted.b", value(""), 0), 0);
    CHECK_EQ(rig.fs->getxattr(*node, "trusted.a", {}), 3);
    CHECK_EQ(rig.fs->getxattr(*node, "trusted.a", std::span(room, 2)), -ERANGE);
    CHECK_EQ(rig.fs->getxattr(*node, "trusted.a", room), 3);
    CHECK(std::memcmp(room, "one", 3) == 0);
    CHECK_EQ(rig.fs->getxattr(*node, "trusted.none", room), -ENODATA);
    const ssize_t size = rig.fs->listxattr(*node, {});
    CHECK_EQ(size, rig.fs->listxattr(*node, room));
    CHECK(size >= 20);
    CHECK_EQ(rig.fs->removexattr(*node, "trusted.a"), 0);
    CHECK_EQ(rig.fs->removexattr(*node, "trusted.a"), -ENODATA);
    CHECK_EQ(rig.fs->setxattr(*node, "nonsense", value("x"), 0), -EOPNOTSUPP);
    Entry link;
    CHECK_EQ(rig.fs->symlink(rig.caller, *rig.root, "s", "f", link), 0);
    CHECK_EQ(rig.fs->setxattr(*link.node, "trusted.s", value("1"), 0), 0);  // of the symlink itself
    CHECK_EQ(rig.fs->getxattr(*node, "trusted.s", room), -ENODATA);
  });
}

TEST(reads_directories) {
  everywhere([](LocalRig& rig) {
    REQUIRE(rig.mkdir("d") == 0);
    const Ref<Node> dir = rig.node("d");
    const Ref<File> open = rig.open(*dir, O_RDONLY | O_DIRECTORY);
    Listing empty;
    CHECK_EQ(rig.fs->readdir(*open, 0, empty), 0);
    CHECK_EQ(names(empty.names), "");
    CHECK_EQ(empty.names.size(), 2);
    std::set<std::string> expected;
    for (int i = 0; i < 1500; i++) {
      const std::string name = "entry-" + std::string(static_cast<size_t>(i % 40), 'x') + std::to_string(i);
      rig.host_write("d/" + name, "");
      expected.insert(name);
    }
    // In portions of any size, each from the cookie where the last one ended, through two open files in turn.
    const Ref<File> second = rig.open(*dir, O_RDONLY | O_DIRECTORY);
    std::set<std::string> seen;
    uint64_t cookie = 0;
    for (size_t portion = 1;; portion = portion % 97 + 1) {
      Listing some(portion);
      CHECK_EQ(rig.fs->readdir(portion % 3 == 0 ? *second : *open, cookie, some), 0);
      if (some.names.empty()) break;
      for (auto& name : some.names) CHECK(seen.insert(name).second);
      cookie = some.cookies.back();
    }
    CHECK_EQ(seen.size(), expected.size() + 2);
    // Cookies hold while others come and go.
    Listing half(700);
    CHECK_EQ(rig.fs->readdir(*open, 0, half), 0);
    std::set<std::string> rest(expected);
    for (auto& name : half.names) rest.erase(name);
    for (size_t i = 0; i < half.names.size(); i++) {
      if (half.names[i][0] != '.' && i % 2 == 0) CHECK_EQ(rig.unlink("d/" + half.names[i]), 0);
    }
    for (int i = 0; i < 300; i++) rig.host_write("d/new" + std::to_string(i), "");
    Listing others;
    CHECK_EQ(rig.fs->readdir(*second, half.cookies.back(), others), 0);
    for (auto& name : others.names) rest.erase(name);
    CHECK(rest.empty());
    // rewinddir(3) sees what is new.
    rig.host_write("d/late", "");
    Listing again;
    CHECK_EQ(rig.fs->readdir(*open, 0, again), 0);
    CHECK(std::ranges::count(again.names, "late") == 1);
    // A removed directory has no entries.
    REQUIRE(rig.mkdir("gone") == 0);
    const Ref<File> gone = rig.open(*rig.node("gone"), O_RDONLY | O_DIRECTORY);
    CHECK_EQ(rig.rmdir("gone"), 0);
    Listing none;
    CHECK_EQ(rig.fs->readdir(*gone, 0, none), 0);
    CHECK_EQ(names(none.names), "");
    const Ref<File> file = rig.create("f");
    CHECK_EQ(rig.fs->readdir(*file, 0, none), -ENOTDIR);
  });
}

TEST(renames) {
  everywhere([](LocalRig& rig) {
    rig.host_write("a", "a");
    rig.host_write("b", "b");
    REQUIRE(rig.mkdir("d") == 0 && rig.mkdir("d/sub") == 0 && rig.mkdir("e") == 0);
    rig.host_write("d/sub/f", "f");
    const Ref<Node> a = rig.node("a"), b = rig.node("b"), f = rig.node("d/sub/f");
    CHECK_EQ(rig.rename("none", "x"), -ENOENT);
    CHECK_EQ(rig.rename("a", "b", RENAME_NOREPLACE), -EEXIST);
    CHECK_EQ(rig.text(*b), "b");
    CHECK_EQ(rig.rename("a", "b", RENAME_EXCHANGE), 0);
    CHECK_EQ(rig.host_text("a") + rig.host_text("b"), "ba");
    CHECK_EQ(rig.text(*a) + rig.text(*b), "ab");
    CHECK_EQ(rig.rename("a", "b", 1u << 30), -EINVAL);
    CHECK_EQ(rig.rename("a", "none", RENAME_EXCHANGE), -ENOENT);
    CHECK_EQ(rig.rename("d", "e"), 0);
    CHECK_EQ(rig.text(*f), "f");  // below a directory that moved
    CHECK_EQ(rig.rename("e", "e/sub/x"), -EINVAL);
    CHECK_EQ(rig.rename("b", "e"), -EISDIR);
    CHECK_EQ(rig.rename("e", "b"), -ENOTDIR);
    REQUIRE(rig.mkdir("full") == 0);
    rig.host_write("full/x", "");
    CHECK_EQ(rig.rename("e", "full"), -ENOTEMPTY);
    CHECK_EQ(rig.rename("full", "full"), 0);
    CHECK_EQ(rig.rename("e/sub/f", "g"), 0);
    CHECK_EQ(rig.text(*f), "f");
    // Two names of one file: rename(2) does nothing.
    CHECK_EQ(rig.link(*f, "h"), 0);
    CHECK_EQ(rig.rename("g", "h"), 0);
    CHECK(rig.host_exists("g") && rig.host_exists("h"));
    CHECK_EQ(rig.rename("g", "w", RENAME_WHITEOUT), 0);
    CHECK(S_ISCHR(rig.host_stat("g").st_mode));
    CHECK_EQ(rig.text(*f), "f");
    CHECK_EQ(rig.text(*a), "a");
  });
}

TEST(open_files_without_names) {
  everywhere([](LocalRig& rig) {
    const Ref<File> file = rig.create("f");
    const Ref<Node> node = rig.node("f");
    rig.write(*file, 0, "kept");
    CHECK_EQ(rig.parking.size(), 0);
    CHECK_EQ(rig.unlink("f"), 0);
    CHECK_EQ(rig.parking.size(), 1);  // before the name went
    CHECK(!rig.host_exists("f"));
    CHECK_EQ(rig.text(*node), "kept");
    CHECK_EQ(rig.attr(*node).stx_nlink, 0);
    rig.write(*rig.open(*node), 4, "!");
    CHECK_EQ(rig.read(*file), "kept!");
    const Ref<File> next = rig.create("f");  // another file of that name
    CHECK(rig.node("f").get() != node.get());
    CHECK_EQ(rig.read(*file), "kept!");
    CHECK_EQ(rig.parking.size(), 1);

    // Replaced by a rename, with the file closed: only the kernel still knows it.
    rig.host_write("v", "victim");
    Ref<Node> victim = rig.node("v");
    CHECK_EQ(rig.rename("f", "v"), 0);
    CHECK_EQ(rig.text(*victim), "victim");
    CHECK_EQ(rig.attr(*victim).stx_nlink, 0);
    victim = nullptr;

    // A directory that is somebody's current one.
    REQUIRE(rig.mkdir("d") == 0);
    Ref<Node> dir = rig.node("d");
    CHECK_EQ(rig.rmdir("d"), 0);
    CHECK_EQ(rig.attr(*dir).stx_nlink, 0);
    Entry entry;
    CHECK_EQ(rig.fs->lookup(rig.caller, *dir, "x", entry), -ENOENT);
    CHECK_EQ(rig.fs->mkdir(rig.caller, *dir, "x", 0755, entry), -ENOENT);
  });
}

TEST(what_is_parked_goes_with_its_node) {
  everywhere([](LocalRig& rig) {
    for (int i = 0; i < 20; i++) {
      const Ref<File> file = rig.create("f");
      const Ref<Node> node = rig.node("f");
      CHECK_EQ(rig.unlink("f"), 0);
      CHECK_EQ(rig.parking.size(), 1);
    }
    CHECK_EQ(rig.parking.size(), 0);
    // What the keeper cannot take must not be unlinked while it is open.
    const Ref<File> file = rig.create("f");
    const Ref<Node> node = rig.node("f");
    rig.parking.refuse = -EMFILE;
    CHECK_EQ(rig.unlink("f"), -EMFILE);
    CHECK(rig.host_exists("f"));
    rig.parking.refuse = 0;
    CHECK_EQ(rig.unlink("f"), 0);
  });
}

TEST(hard_links_come_and_go) {
  everywhere([](LocalRig& rig) {
    rig.host_write("one", "text");
    const Ref<Node> node = rig.node("one");
    CHECK_EQ(rig.link(*node, "two"), 0);
    CHECK_EQ(rig.link(*node, "three"), 0);
    CHECK_EQ(rig.unlink("three"), 0);  // the last known name in path mode
    CHECK_EQ(rig.attr(*node).stx_nlink, 2);
    CHECK_EQ(rig.unlink("one"), 0);
    CHECK_EQ(rig.text(*node), "text");
    CHECK_EQ(rig.node("two").get(), node.get());
    CHECK_EQ(rig.link(*node, "four"), 0);
    CHECK_EQ(rig.unlink("two"), 0);
    CHECK_EQ(rig.text(*node), "text");
    CHECK_EQ(rig.unlink("four"), 0);
    CHECK_EQ(rig.text(*node), "text");
    Entry entry;
    CHECK_EQ(rig.fs->link(rig.caller, *node, *rig.root, "five", entry), -ENOENT);  // no name, no way back
  });
}

TEST(a_name_gone_on_the_host_while_another_stays) {
  everywhere([](LocalRig& rig) {
    rig.host_write("one", "text");
    REQUIRE(::link(rig.host("one").c_str(), rig.host("two").c_str()) == 0);
    const Ref<Node> node = rig.node("one");
    CHECK_EQ(rig.node("two").get(), node.get());
    REQUIRE(::unlink(rig.host("two").c_str()) == 0);
    CHECK_EQ(rig.unlink("one"), 0);
    CHECK_EQ(rig.text(*node), "text");
  });
}

TEST(tmpfiles) {
  everywhere([](LocalRig& rig) {
    Entry entry;
    Ref<File> file;
    CHECK_EQ(rig.fs->tmpfile(rig.caller, *rig.root, O_RDWR, 0600, entry, file), 0);
    CHECK_EQ(entry.attr.stx_nlink, 0);
    CHECK_EQ(rig.parking.size(), 1);
    rig.write(*file, 0, "text");
    CHECK_EQ(rig.text(*entry.node), "text");
    CHECK_EQ(rig.link(*entry.node, "named"), 0);
    CHECK_EQ(rig.host_text("named"), "text");
    CHECK_EQ(rig.node("named").get(), entry.node.get());
  });
}

// Changes on the host behind our back.
TEST(files_moved_and_replaced_on_the_host) {
  everywhere([](LocalRig& rig) {
    LocalRig small(rig.where, 0);  // nearly no cached descriptors, so that every use finds its way anew
    const auto crowd_out = [&] {
      std::vector<Ref<Node>> crowd;
      for (int i = 0; i < 500; i++) small.host_write("crowd" + std::to_string(i), "");
      for (int i = 0; i < 500; i++) {
        crowd.push_back(small.node("crowd" + std::to_string(i)));
        (void)small.attr(*crowd.back());
      }
    };
    small.host_write("a", "a");
    REQUIRE(::mkdir(small.host("d").c_str(), 0755) == 0);
    small.host_write("d/f", "f");
    const Ref<Node> a = small.node("a"), f = small.node("d/f");
    REQUIRE(::rename(small.host("a").c_str(), small.host("b").c_str()) == 0);
    REQUIRE(::rename(small.host("d").c_str(), small.host("e").c_str()) == 0);
    small.host_write("a", "another");
    crowd_out();
    Attr attr;
    if (small.where.handles) {
      CHECK_EQ(small.text(*a) + small.text(*f), "af");
    } else {
      CHECK_EQ(small.fs->getattr(*a, nullptr, attr), -ESTALE);  // never the file that took the name
      CHECK_EQ(small.text(*a), "E" + std::to_string(ESTALE));
      CHECK_EQ(small.fs->getattr(*f, nullptr, attr), -ESTALE);
    }
    CHECK_EQ(small.text(*small.node("a")), "another");
    CHECK_EQ(small.node("b").get(), a.get());
    CHECK_EQ(small.node("e/f").get(), f.get());
    CHECK_EQ(small.text(*a) + small.text(*f), "af");  // found again
    // Removed for good.
    REQUIRE(::unlink(small.host("b").c_str()) == 0);
    crowd_out();
    CHECK_EQ(small.fs->getattr(*a, nullptr, attr), -ESTALE);
  });
}

TEST(nodes_come_back_after_a_restart) {
  everywhere([](LocalRig& rig) {
    REQUIRE(rig.mkdir("d") == 0 && rig.mkdir("d/e") == 0 && rig.mkdir("d/e/f") == 0);
    rig.host_write("d/e/f/" + std::string(255, 'n'), "deep");
    rig.host_write("top", "top");
    Entry entry;
    CHECK_EQ(rig.fs->symlink(rig.caller, *rig.root, "s", "top", entry), 0);
    entry.node = nullptr;
    const std::string paths[]{"", "d/e/f/" + std::string(255, 'n'), "d/e/f", "d/e", "d", "top", "s"};
    for (int life = 0; life < 3; life++) {
      std::vector<NodeHandle> handles;
      for (auto& path : paths) handles.push_back(rig.handle(*rig.node(path)));
      rig.stop();
      rig.start();
      std::vector<Ref<Node>> nodes;  // children before their parents
      for (auto& handle : handles) {
        Ref<Node> node;
        REQUIRE(rig.fs->decode(handle, node) == 0);
        nodes.push_back(std::move(node));
      }
      rig.fs->all_restored();
      CHECK_EQ(nodes[0].get(), rig.root.get());
      CHECK_EQ(rig.text(*nodes[1]), "deep");
      for (size_t i = 0; i < std::size(paths); i++) {
        CHECK_EQ(rig.attr(*nodes[i]).stx_ino, rig.host_stat(paths[i] + (i == 0 ? "." : "")).st_ino);
        CHECK_EQ(rig.node(paths[i]).get(), nodes[i].get());
      }
    }
  });
}

TEST(renamed_nodes_come_back_after_a_restart) {
  everywhere([](LocalRig& rig) {
    REQUIRE(rig.mkdir("d") == 0 && rig.mkdir("d/e") == 0);
    rig.host_write("d/e/f", "text");
    Ref<Node> held_dir = rig.node("d/e"), held_file = rig.node("d/e/f");
    CHECK_EQ(rig.rename("d/e", "moved"), 0);
    CHECK_EQ(rig.rename("moved/f", "moved/g"), 0);
    const NodeHandle dir = rig.handle(*held_dir), file = rig.handle(*held_file);
    held_dir = held_file = nullptr;
    rig.stop();
    rig.start();
    Ref<Node> file_node, dir_node;
    REQUIRE(rig.fs->decode(file, file_node) == 0 && rig.fs->decode(dir, dir_node) == 0);
    CHECK_EQ(rig.text(*file_node), "text");
    CHECK_EQ(rig.node("moved/g").get(), file_node.get());
  });
}

namespace {

// Stores handles as the dispatcher does; with the n-th its service dies: just before, or just after.
class MortalStore final : public HandleStore {
 public:
  explicit MortalStore(FakeParking& parking) : parking_(parking) {}
  int handle_changed(Libservice& fs, Node& node) override {
    occasion();
    const int err = parking_.deaf ? 0 : fs.encode(node, handles[&node]);
    occasion();
    return err;
  }
  int lives = -1;
  std::map<Node*, NodeHandle> handles;

 private:
  void occasion() {
    if (lives-- == 0) parking_.deaf = true;
  }
  FakeParking& parking_;
};

struct Renaming {
  const char* name;
  std::function<int(LocalRig&)> run;
  const char* removed = nullptr;  // a name that goes before
  const char* found = nullptr;    // that by which a node is found last: as the dispatcher looks who loses it
};

// What is in use has been looked up by these names, in this order.
constexpr const char* kInUse[]{"d", "d/e", "d/e/f", "empty", "a", "b", "b2", "a2", "c", "c2", "c3"};

void make_names(LocalRig& rig) {
  REQUIRE(rig.mkdir("d") == 0 && rig.mkdir("d/e") == 0 && rig.mkdir("empty") == 0);
  for (const char* name : {"d/e/f", "a", "b", "c"}) rig.host_write(name, name);
  const std::pair<const char*, const char*> links[]{{"a", "a2"}, {"b", "b2"}, {"c", "c2"}, {"c", "c3"}};
  for (auto& [from, to] : links) REQUIRE(::link(rig.host(from).c_str(), rig.host(to).c_str()) == 0);
}

}  // namespace

// Without being asked again: whoever uses a node at once must reach it.
TEST(a_change_of_names_that_is_cut_short_loses_no_node) {
  const Renaming renamings[]{
      {"rename", [](LocalRig& rig) { return rig.rename("d/e/f", "g"); }},
      {"rename of a directory", [](LocalRig& rig) { return rig.rename("d", "empty/d"); }},
      {"rename over a directory", [](LocalRig& rig) { return rig.rename("d", "empty"); }},
      {"rename over a file with another name", [](LocalRig& rig) { return rig.rename("d/e/f", "b2"); }},
      {"rename of one of two names", [](LocalRig& rig) { return rig.rename("a", "d/a"); }},
      {"rename of the other", [](LocalRig& rig) { return rig.rename("a2", "d/a"); }},
      {"rename to the same inode", [](LocalRig& rig) { return rig.rename("a2", "a"); }},
      {"exchange", [](LocalRig& rig) { return rig.rename("d/e", "a", RENAME_EXCHANGE); }},
      {"exchange of links", [](LocalRig& rig) { return rig.rename("c", "b", RENAME_EXCHANGE); }},
      {"unlink of one of two names", [](LocalRig& rig) { return rig.unlink("a"); }, nullptr, "a"},
      {"unlink of the other", [](LocalRig& rig) { return rig.unlink("a2"); }, nullptr, "a2"},
      {"unlink of one of three names", [](LocalRig& rig) { return rig.unlink("c"); }, nullptr, "c"},
      {"unlink of two of three", [](LocalRig& rig) { return rig.unlink("c3"); }, "c2", "c3"},
      {"link", [](LocalRig& rig) { return rig.link(*rig.node("d/e/f"), "g"); }},
  };
  for (const Where& where : kEverywhere) {
    for (auto& renaming : renamings) {
      for (int lives = 0;; lives++) {
        LocalRig rig(where);
        MortalStore store(rig.parking);
        rig.stop();
        rig.handles = &store;
        rig.start();
        make_names(rig);
        std::map<Node*, std::pair<Ref<Node>, uint64_t>> used;
        for (const char* path : kInUse) {
          Ref<Node> node = rig.node(path);
          used[node.get()] = {node, rig.host_stat(path).st_ino};
          store.handles[node.get()] = rig.handle(*node);
        }
        if (renaming.removed) REQUIRE(rig.unlink(renaming.removed) == 0);
        if (renaming.found) (void)rig.node(renaming.found);
        store.lives = lives;
        CHECK_EQ(renaming.run(rig), 0);
        const bool died = rig.parking.deaf.exchange(true);
        std::vector<std::pair<NodeHandle, uint64_t>> left;
        for (auto& [node, held] : used) left.emplace_back(store.handles[node], held.second);
        used.clear();
        rig.stop();
        rig.handles = nullptr;
        rig.start();
        std::vector<Ref<Node>> nodes;
        for (auto& [handle, ino] : left) REQUIRE(rig.fs->decode(handle, nodes.emplace_back()) == 0);
        rig.fs->all_restored();
        for (size_t i = 0; i < nodes.size(); i++) {
          Attr attr{};
          const bool reached = CHECK_EQ(rig.fs->getattr(*nodes[i], nullptr, attr), 0);
          if (!reached || !CHECK_EQ(attr.stx_ino, left[i].second))
            std::fprintf(stderr, "  %s, death %d, %s\n", renaming.name, lives, where.name);
        }
        nodes.clear();
        CHECK_EQ(rig.parking.size(), 0);
        if (!died) break;
      }
    }
  }
}

TEST(unlinked_files_come_back_after_restarts) {
  everywhere([](LocalRig& rig) {
    Ref<File> file = rig.create("f");
    Ref<Node> node = rig.node("f");
    rig.write(*file, 0, "kept");
    REQUIRE(rig.unlink("f") == 0);
    for (int life = 0; life < 4; life++) {
      const NodeHandle handle = rig.handle(*node);
      rig.parking.deaf = true;
      file = nullptr;
      node = nullptr;
      rig.stop();
      CHECK_EQ(rig.parking.size(), 1);
      rig.start();
      REQUIRE(rig.fs->decode(handle, node) == 0);
      rig.fs->all_restored();
      CHECK_EQ(rig.parking.size(), 1);
      CHECK_EQ(rig.attr(*node).stx_nlink, 0);
      if (life % 2 == 0) {  // in other lives nobody touches it
        REQUIRE(rig.fs->open(rig.caller, *node, O_RDWR, true, file) == 0);
        CHECK_EQ(rig.read(*file), "kept");
      }
    }
    file = nullptr;
    node = nullptr;
    CHECK_EQ(rig.parking.size(), 0);
  });
}

// Open before one restart, unlinked after it without having been touched in between, and then the next
// restart.
TEST(a_file_unlinked_after_a_restart_survives_the_next) {
  everywhere([](LocalRig& rig) {
    Ref<File> file = rig.create("f");
    Ref<Node> node = rig.node("f");
    rig.write(*file, 0, "kept");
    for (int life = 0; life < 2; life++) {
      const NodeHandle handle = rig.handle(*node);
      rig.parking.deaf = true;
      file = nullptr;
      node = nullptr;
      rig.stop();
      rig.start();
      REQUIRE(rig.fs->decode(handle, node) == 0);
      rig.fs->all_restored();
      if (life == 0) CHECK_EQ(rig.unlink("f"), 0);
    }
    CHECK_EQ(rig.text(*node), "kept");
  });
}

TEST(what_nobody_claims_is_dropped) {
  for (const Where& where : kEverywhere) {
    LocalRig rig(where);
    Ref<File> file = rig.create("f");
    Ref<Node> node = rig.node("f");
    REQUIRE(rig.unlink("f") == 0);
    rig.parking.deaf = true;  // it dies just before it can say that the file is not needed any more
    file = nullptr;
    node = nullptr;
    rig.stop();
    CHECK_EQ(rig.parking.size(), 1);
    rig.start();
    rig.fs->all_restored();
    CHECK_EQ(rig.parking.size(), 0);
  }
}

// Inode numbers are used again: the record of a file long gone, which nobody has forgotten, has the number of
// one that is open, and of one that waits without a name in the keeper.
TEST(a_stale_handle_is_in_nobodys_way) {
  everywhere([](LocalRig& rig) {
    for (const bool unlinked : {false, true}) {
      Ref<File> file = rig.create("f");
      Ref<Node> kept = rig.node("f");
      rig.write(*file, 0, "text");
      if (unlinked) REQUIRE(rig.unlink("f") == 0);
      const NodeHandle good = rig.handle(*kept);
      NodeHandle stale = good;  // begins with the identity
      stale.bytes[offsetof(NodeIdentity, birth_nanoseconds)] ^= std::byte{1};
      rig.parking.deaf = true;
      file = nullptr;
      kept = nullptr;
      rig.stop();
      rig.start();
      Ref<Node> gone;
      (void)!rig.fs->decode(stale, gone);
      REQUIRE(rig.fs->decode(good, kept) == 0);
      rig.fs->all_restored();
      CHECK(gone.get() != kept.get());
      CHECK_EQ(rig.text(*kept), "text");
      CHECK_EQ(rig.parking.size(), unlinked ? 1 : 0);
      if (unlinked) continue;
      CHECK_EQ(rig.node("f").get(), kept.get());
      REQUIRE(rig.unlink("f") == 0);
    }
  });
}

TEST(nonsense_handles_are_refused) {
  everywhere([](LocalRig& rig) {
    rig.host_write("f", "text");
    const NodeHandle good = rig.handle(*rig.node("f"));
    Ref<Node> node;
    NodeHandle bad = good;
    for (uint16_t size = 0; size < good.size; size++) {
      bad.size = size;
      CHECK_EQ(rig.fs->decode(bad, node), -ESTALE);
    }
    auto& rng = check::random();
    for (int i = 0; i < 2000; i++) {
      bad = good;
      for (int flips = 0; flips < 3; flips++) bad.bytes[rng() % good.size] = static_cast<std::byte>(rng());
      Attr attr;
      if (rng() % 4 == 0) bad.size = static_cast<uint16_t>(rng() % NodeHandle::kMax);
      if (rig.fs->decode(bad, node) == 0)
        (void)!rig.fs->getattr(*node, nullptr, attr);  // anything but a crash
      node = nullptr;
    }
    REQUIRE(rig.fs->decode(good, node) == 0);
    CHECK_EQ(rig.text(*node), "text");
  });
}

// Descriptors: bounded by the cache, whatever is looked up, and none is left when it is all over.
TEST(no_descriptor_per_node) {
  for (const Where& where : kEverywhere) {
    const size_t at_first = open_fds();
    {
      LocalRig rig(where, 64);
      const size_t before = open_fds();
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
      constexpr int kFiles = 500, kRounds = 2;
#else
      constexpr int kFiles = 800, kRounds = 16;  // 51,200 lookups in all
#endif
      std::vector<Ref<Node>> held;
      for (int i = 0; i < kFiles; i++) {
        const std::string name = "n" + std::to_string(i);
        if (i % 5 == 0)
          REQUIRE(::mkdir(rig.host(name).c_str(), 0755) == 0);
        else
          rig.host_write(name, "");
      }
      for (int round = 0; round < kRounds; round++) {
        for (int i = 0; i < kFiles; i++) {
          Ref<Node> node = rig.node("n" + std::to_string(i));
          (void)rig.attr(*node);
          if (round == 0) held.push_back(std::move(node));
        }
      }
      CHECK(open_fds() <= before + 64 + 16);
      // Failing removals leave nothing behind.
      for (int i = 0; i < kFiles; i += 5) {
        rig.host_write("n" + std::to_string(i) + "/x", "");
        CHECK_EQ(rig.rmdir("n" + std::to_string(i)), -ENOTEMPTY);
        CHECK_EQ(rig.rename("n5", "n" + std::to_string(i)), i == 5 ? 0 : -ENOTEMPTY);
      }
      CHECK(open_fds() <= before + 64 + 16);
      CHECK_EQ(rig.parking.size(), 0);
      // Removals that work hold one each, as long as the node is known.
      for (int i = 1; i < 200; i += 5) CHECK_EQ(rig.unlink("n" + std::to_string(i)), 0);
      for (int i = 1; i < 200; i += 5) (void)rig.attr(*held[static_cast<size_t>(i)]);
      held.clear();
      CHECK(open_fds() <= before + 64 + 16);
    }
    CHECK_EQ(open_fds(), at_first);
  }
}

namespace {

constexpr int kDepth = 3000;

// Makes the tree, crowds it out of the descriptor cache, asks for its bottom, and lets all its nodes go.
void* use_deep_tree(void* argument) {
  LocalRig& rig = *static_cast<LocalRig*>(argument);
  std::vector<Ref<Node>> chain{rig.root};
  for (int i = 0; i < kDepth; i++) {
    Entry entry;
    REQUIRE(rig.fs->mkdir(rig.caller, *chain.back(), "d", 0755, entry) == 0);
    chain.push_back(std::move(entry.node));
  }
  for (int i = 0; i < 500; i++) (void)rig.attr(*chain[static_cast<size_t>(i)]);
  CHECK_EQ(rig.attr(*chain.back()).stx_nlink, 2);
  Ref<Node> last = chain.back();
  chain.clear();
  last = nullptr;  // and so go its parents
  return nullptr;
}

// No path is long enough for what is below: it is moved up in stretches.
void flatten(LocalRig& rig) {
  std::vector<Fd> every_hundredth;
  Fd dir = duplicate(rig.host_root.get());
  for (int i = 0; i < kDepth; i++) {
    Fd next(::openat(dir.get(), "d", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (i % 100 == 99) every_hundredth.push_back(std::move(dir));
    dir = std::move(next);
  }
  for (size_t i = every_hundredth.size(); i-- > 0;)
    CHECK_EQ(::renameat(every_hundredth[i].get(), "d", rig.host_root.get(), std::to_string(i).c_str()), 0);
}

}  // namespace

// In path mode a node is found through all its parents. However many those are, the stack stays small.
TEST(a_deep_tree_on_a_small_stack) {
  for (const Where& where : kEverywhere) {
    LocalRig rig(where, 16);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 192 * 1024);
    pthread_t thread;
    REQUIRE(::pthread_create(&thread, &small, use_deep_tree, &rig) == 0);
    ::pthread_join(thread, nullptr);
    pthread_attr_destroy(&small);
    flatten(rig);
  }
}

// As git makes objects: under a temporary name, then linked to the final one. No descriptor stays behind, and
// the node is found by what is left of its names, after a restart too.
TEST(a_name_that_was_only_temporary) {
  for (const Where& where : kEverywhere) {
    LocalRig rig(where, 16);
    const size_t before = open_fds();
    std::vector<Ref<Node>> nodes;
    for (int i = 0; i < 300; i++) {
      const std::string name = "object" + std::to_string(i), other = "other" + std::to_string(i);
      (void)rig.create("temporary");
      nodes.push_back(rig.node("temporary"));
      CHECK_EQ(rig.link(*nodes.back(), name), 0);
      CHECK_EQ(rig.unlink("temporary"), 0);
      if (i % 2 == 0) {  // the other way round
        CHECK_EQ(rig.link(*nodes.back(), other), 0);
        CHECK_EQ(rig.unlink(other), 0);
      }
    }
    CHECK(open_fds() <= before + 16 + 16);
    for (auto& node : nodes) CHECK_EQ(rig.attr(*node).stx_nlink, 1);
    const NodeHandle handle = rig.handle(*nodes[20]);
    nodes.clear();
    rig.stop();
    rig.start();
    Ref<Node> node;
    REQUIRE(rig.fs->decode(handle, node) == 0);
    CHECK_EQ(rig.attr(*node).stx_ino, rig.host_stat("object20").st_ino);
    // A name left behind by a rename holds nothing.
    REQUIRE(rig.mkdir("a") == 0 && rig.mkdir("b") == 0);
    rig.host_write("a/f", "text");
    const Ref<Node> file = rig.node("a/f");
    CHECK_EQ(rig.rename("a/f", "b/f"), 0);
    CHECK_EQ(rig.rmdir("a"), 0);
    CHECK_EQ(rig.parking.size(), 0);
    CHECK_EQ(rig.text(*file), "text");
  }
}

// Directories turned upside down on the host: what was known of them leads in a circle.
TEST(names_in_a_circle_end) {
  LocalRig rig({"directory by name", false, false}, 0);
  REQUIRE(rig.mkdir("a") == 0 && rig.mkdir("a/b") == 0);
  Ref<Node> a = rig.node("a"), b = rig.node("a/b");
  const Ref<File> held = rig.open(*b, O_RDONLY | O_DIRECTORY);
  REQUIRE(::rename(rig.host("a/b").c_str(), rig.host("b").c_str()) == 0);
  REQUIRE(::rename(rig.host("a").c_str(), rig.host("b/a").c_str()) == 0);
  Entry entry;
  const int found = rig.fs->lookup(rig.caller, *b, "a", entry);  // while a descriptor of b is cached
  CHECK(found == 0 || found == -ESTALE);
  std::vector<Ref<Node>> crowd;
  for (int i = 0; i < 500; i++) {
    rig.host_write("crowd" + std::to_string(i), "");
    crowd.push_back(rig.node("crowd" + std::to_string(i)));
    (void)rig.attr(*crowd.back());
  }
  Attr attr;
  CHECK_EQ(rig.fs->getattr(*a, nullptr, attr), -ESTALE);
  CHECK_EQ(rig.node("b").get(), b.get());
  CHECK_EQ(rig.node("b/a").get(), a.get());
}

TEST(ownership_umask_and_default_acls) {
  for (const Where& where : kEverywhere) {
    LocalRig rig(where);
    std::thread([&] {  // a thread of its own, as in the service: fsuid, umask and more are per thread
      prepare_thread_identity();
      const Caller caller{1000, 2000, 0, 027};
      Entry entry;
      Ref<File> file;
      REQUIRE(::chmod(rig.host("").c_str(), 0777) == 0);
      CHECK_EQ(rig.fs->create(caller, *rig.root, "f", O_RDWR | O_EXCL, 0666, entry, file), 0);
      CHECK_EQ(rig.fs->mkdir(caller, *rig.root, "d", 0777, entry), 0);
      CHECK_EQ(rig.fs->symlink(caller, *rig.root, "s", "x", entry), 0);
      CHECK_EQ(rig.fs->mknod(caller, *rig.root, "p", S_IFIFO | 0666, 0, entry), 0);
      for (const char* name : {"f", "d", "s", "p"}) {
        CHECK_EQ(rig.host_stat(name).st_uid, 1000);
        CHECK_EQ(rig.host_stat(name).st_gid, 2000);
      }
      CHECK_EQ(rig.host_stat("f").st_mode & 07777, 0640);
      CHECK_EQ(rig.host_stat("d").st_mode & 07777, 0750);
      // setgid directories hand their group on.
      REQUIRE(::chown(rig.host("d").c_str(), 1000, 3000) == 0 && ::chmod(rig.host("d").c_str(), 02770) == 0);
      const Ref<Node> dir = rig.node("d");
      CHECK_EQ(rig.fs->mkdir(caller, *dir, "sub", 0777, entry), 0);
      CHECK_EQ(rig.host_stat("d/sub").st_gid, 3000);
      CHECK_EQ(rig.host_stat("d/sub").st_mode & 07777, 02750);
      // A default ACL replaces the umask (acl(5)): user::rwx group::rwx other::r--
      const uint8_t acl[]{2, 0, 0,   0,   1,   0,   7,  0, 255, 255, 255, 255, 4,   0,
                          7, 0, 255, 255, 255, 255, 32, 0, 4,   0,   255, 255, 255, 255};
      CHECK_EQ(rig.fs->setxattr(*dir, "system.posix_acl_default", std::as_bytes(std::span(acl)), 0), 0);
      CHECK_EQ(rig.fs->create(caller, *dir, "g", O_RDWR | O_EXCL, 0666, entry, file), 0);
      CHECK_EQ(rig.host_stat("d/g").st_mode & 07777, 0664);
      // Another caller on the same thread.
      CHECK_EQ(rig.fs->create(Caller{7, 8, 0, 0}, *rig.root, "g", O_RDWR | O_EXCL, 0666, entry, file), 0);
      CHECK_EQ(rig.host_stat("g").st_uid, 7);
      CHECK_EQ(rig.host_stat("g").st_mode & 07777, 0666);
    })
        .join();
    rig.host_write("mine", "");  // this thread is as it was
    CHECK_EQ(rig.host_stat("mine").st_uid, ::geteuid());
  }
}

// A service without any privilege: path mode by itself, and everything that does not need root.
TEST(without_privileges) {
  for (const bool memory : {false, true}) {
    TempDir temp;
    REQUIRE(::chmod(temp.path.c_str(), 0777) == 0);
    const pid_t pid = ::fork();
    if (pid == 0) {
      if (::geteuid() == 0 && (::setgroups(0, nullptr) != 0 || ::setgid(65534) != 0 || ::setuid(65534) != 0))
        _exit(2);
      ::prctl(PR_SET_DUMPABLE, 1);  // or /proc/self belongs to root
      Fd root;
      if (memory) {
        MemoryOptions options;
        options.uid = ::geteuid();
        options.gid = ::getegid();
        const int err = make_memory(options, root);
        // No user namespaces here; or none for ThreadSanitizer, which has a thread of its own.
        if (err == -EPERM || err == -ENOSPC || err == -EINVAL) _exit(77);
        if (err != 0) _exit(3);
      } else {
        root = open_directory(temp.path);
      }
      std::unique_ptr<Local> fs;
      if (Local::create(std::move(root), {}, fs) != 0 || fs->uses_handles()) _exit(4);
      Entry top, dir, made;
      Ref<File> file;
      const Caller caller{::geteuid(), ::getegid(), 0, 022};
      if (fs->root("", top) != 0 || fs->mkdir(caller, *top.node, "d", 0755, dir) != 0) _exit(5);
      if (fs->create(caller, *dir.node, "f", O_RDWR | O_EXCL, 0444, made, file) != 0) _exit(6);
      if (fs->write(*file, 0, std::as_bytes(std::span("text", 4))) != 4) _exit(7);
      if (fs->link(caller, *made.node, *top.node, "l", made) != 0 || made.attr.stx_nlink != 2) _exit(8);
      if (fs->unlink(caller, *dir.node, "f", made) != 0 || fs->unlink(caller, *top.node, "l", made) != 0)
        _exit(9);
      std::byte text[8];
      if (fs->read(*file, 0, text) != 4) _exit(10);
      if (fs->tmpfile(caller, *dir.node, O_RDWR, 0600, made, file) != 0) _exit(11);
      if (fs->link(caller, *made.node, *top.node, "t", made) != 0) _exit(12);
      SetAttr set;
      set.mask = kSetUid;
      set.uid = 1;
      if (fs->setattr(caller, *dir.node, nullptr, set, made.attr) != -EPERM) _exit(13);
      if (fs->rmdir(caller, *top.node, "d", dir) != 0) _exit(14);
      _exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
      std::printf("skipped: no user namespaces for memory without privileges\n");
    else
      CHECK_EQ(WEXITSTATUS(status), 0);
  }
}

CHECK_MAIN()
