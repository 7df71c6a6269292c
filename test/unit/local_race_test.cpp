// `local` is not led out of its root, and keeps its wits under concurrent calls: symlinks in every position,
// host processes that swap directories for symlinks, threads on one tree.
#include <fcntl.h>
#include <linux/fs.h>

#include <set>
#include <thread>

#include "test/unit/local_rig.hpp"

using namespace rig;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kMilliseconds = 700;
#else
constexpr int kMilliseconds = 1500;
#endif

using Clock = std::chrono::steady_clock;

// A place outside the root that must never be read or changed.
struct Outside {
  Outside() {
    REQUIRE(::mkdir((temp.path + "/b").c_str(), 0755) == 0);
    for (const char* name : {"/file", "/b/file"}) {
      const Fd fd(::open((temp.path + name).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
      REQUIRE(::write(fd.get(), "secret", 6) == 6);
    }
    before = print();
  }
  // Everything that a stray operation would change.
  std::string print() const {
    std::string text;
    for (const char* name : {"", "/b", "/file", "/b/file"}) {
      struct stat st {};
      CHECK_EQ(::lstat((temp.path + name).c_str(), &st), 0);
      for (const uint64_t value :
           {uint64_t{st.st_ino}, uint64_t{st.st_mode}, uint64_t{st.st_nlink}, uint64_t{st.st_uid},
            static_cast<uint64_t>(st.st_size), static_cast<uint64_t>(st.st_ctim.tv_sec),
            static_cast<uint64_t>(st.st_ctim.tv_nsec)})
        text += std::to_string(value) + " ";
    }
    return text;
  }
  TempDir temp;
  std::string before;
};

// A tree inside that looks like the one outside, and symlinks that lead there.
void make_tree(LocalRig& rig, const Outside& outside) {
  REQUIRE(rig.mkdir("a") == 0 && rig.mkdir("a/b") == 0);
  rig.host_write("a/file", "inside");
  rig.host_write("a/b/file", "inside");
  const std::string out = outside.temp.path;
  REQUIRE(::symlink(out.c_str(), rig.host("out").c_str()) == 0);
  REQUIRE(::symlink((out + "/file").c_str(), rig.host("outfile").c_str()) == 0);
  REQUIRE(::symlink((out + "/new").c_str(), rig.host("dangling").c_str()) == 0);
  const std::string relative = "../.." + out.substr(out.rfind('/'));
  REQUIRE(::symlink(relative.c_str(), rig.host("a/up").c_str()) == 0);
  REQUIRE(::symlink("..", rig.host("a/b/parent").c_str()) == 0);
}

}  // namespace

TEST(symlinks_lead_nowhere) {
  for (const Where& where : kEverywhere) {
    const Outside outside;
    LocalRig rig(where);
    make_tree(rig, outside);
    for (const char* path : {"out", "outfile", "dangling", "a/up", "a/b/parent"}) {
      const Ref<Node> node = rig.node(path);
      Entry entry;
      Ref<File> file;
      CHECK(S_ISLNK(rig.attr(*node).stx_mode));
      CHECK_EQ(rig.fs->lookup(rig.caller, *node, "file", entry), -ENOTDIR);
      CHECK_EQ(rig.fs->mkdir(rig.caller, *node, "new", 0755, entry), -ENOTDIR);
      CHECK_EQ(rig.fs->create(rig.caller, *node, "new", O_RDWR, 0644, entry, file), -ENOTDIR);
      CHECK_EQ(rig.fs->symlink(rig.caller, *node, "new", "x", entry), -ENOTDIR);
      CHECK_EQ(rig.fs->mknod(rig.caller, *node, "new", S_IFREG | 0644, 0, entry), -ENOTDIR);
      CHECK_EQ(rig.fs->link(rig.caller, *rig.node("a/file"), *node, "new", entry), -ENOTDIR);
      CHECK_EQ(rig.fs->rename(rig.caller, *rig.root, "a", *node, "new", 0), -ENOTDIR);
      CHECK(rig.fs->tmpfile(rig.caller, *node, O_RDWR, 0600, entry, file) < 0);
      CHECK_EQ(rig.fs->open(rig.caller, *node, O_RDWR | O_TRUNC, false, file), -ENXIO);
      CHECK_EQ(rig.fs->open(rig.caller, *node, O_RDONLY | O_DIRECTORY, false, file), -ENXIO);
      SetAttr set;
      set.mask = kSetSize;
      CHECK(rig.fs->setattr(rig.caller, *node, nullptr, set, entry.attr) < 0);
      set.mask = kSetUid | kSetMtime;
      set.uid = 5;
      CHECK_EQ(rig.fs->setattr(rig.caller, *node, nullptr, set, entry.attr), 0);
      CHECK_EQ(rig.fs->create(rig.caller, *rig.parent(path), LocalRig::leaf(path), O_RDWR, 0644, entry, file),
               -ELOOP);
      CHECK_EQ(rig.unlink(path), 0);
    }
    CHECK_EQ(outside.print(), outside.before);
  }
}

TEST(a_subdirectory_stays_below_the_root) {
  for (const Where& where : kEverywhere) {
    const Outside outside;
    LocalRig rig(where);
    make_tree(rig, outside);
    Entry entry;
    for (const char* good : {"a", "a/b", "a//b", "./a/./b/", "a/b/../b", "a/b/parent"}) {
      CHECK_EQ(rig.fs->root(good, entry), 0);
      CHECK(entry.node && S_ISDIR(entry.attr.stx_mode));
    }
    CHECK_EQ(rig.fs->root("a/b", entry), 0);
    CHECK_EQ(entry.node.get(), rig.node("a/b").get());
    CHECK_EQ(rig.fs->root("a/../a/..", entry), 0);
    CHECK_EQ(entry.node.get(), rig.root.get());
    for (const char* bad : {"..", "/", "/tmp", "a/../..", "out", "out/b", "a/up", "a/up/b", "../a"}) {
      entry = {};
      CHECK_EQ(rig.fs->root(bad, entry), -EXDEV);
      CHECK(!entry.node);
    }
    CHECK_EQ(rig.fs->root((outside.temp.path + "/b").c_str(), entry), -EXDEV);
    CHECK_EQ(rig.fs->root("none", entry), -ENOENT);
    CHECK_EQ(rig.fs->root("a/file", entry), -ENOTDIR);
    CHECK_EQ(rig.fs->root(std::string(5000, 'x').c_str(), entry), -ENAMETOOLONG);
  }
}

namespace {

// A host process that swaps a directory for a symlink to the outside and back, in three ways.
void swap_for_symlinks(const LocalRig& rig, const Outside& outside, const std::atomic<bool>& stop) {
  const std::string a = rig.host("a"), b = rig.host("a/b"), file = rig.host("a/b/file");
  const std::string hidden = rig.host("hidden"), trap = rig.host("trap"), file_trap = rig.host("file-trap");
  (void)::symlink(outside.temp.path.c_str(), trap.c_str());
  (void)::symlink((outside.temp.path + "/b/file").c_str(), file_trap.c_str());
  while (!stop.load()) {
    (void)::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, trap.c_str(), RENAME_EXCHANGE);
    (void)::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, trap.c_str(), RENAME_EXCHANGE);
    (void)::renameat2(AT_FDCWD, file.c_str(), AT_FDCWD, file_trap.c_str(), RENAME_EXCHANGE);
    (void)::renameat2(AT_FDCWD, file.c_str(), AT_FDCWD, file_trap.c_str(), RENAME_EXCHANGE);
    if (::rename(b.c_str(), hidden.c_str()) == 0) {
      (void)::symlink((outside.temp.path + "/b").c_str(), b.c_str());
      (void)::unlink(b.c_str());
      (void)::rename(hidden.c_str(), b.c_str());
    }
  }
}

// One of everything that could go astray, on whatever is found.
void wander(LocalRig& rig, std::mt19937_64& rng, std::atomic<uint64_t>& astray,
            std::atomic<uint64_t>& arrived) {
  Entry dir, entry;
  Ref<File> file;
  if (rng() % 3 == 0) {
    if (rig.fs->root(rng() % 2 == 0 ? "a/b" : "a", dir) != 0) return;
  } else {
    if (rig.fs->lookup(rig.caller, *rig.root, "a", dir) != 0) return;
    if (rng() % 2 == 0) {
      const Ref<Node> a = std::move(dir.node);
      if (rig.fs->lookup(rig.caller, *a, "b", dir) != 0) return;
    }
  }
  switch (rng() % 6) {
    case 0:
      if (rig.fs->create(rig.caller, *dir.node, "new", O_RDWR, 0644, entry, file) == 0) {
        (void)rig.write(*file, 0, "inside");
        (void)!rig.fs->unlink(rig.caller, *dir.node, "new", entry);
      }
      return;
    case 1:
      if (rig.fs->mkdir(rig.caller, *dir.node, "newdir", 0755, entry) == 0)
        (void)!rig.fs->rmdir(rig.caller, *dir.node, "newdir", entry);
      return;
    case 2:
      if (rig.fs->create(rig.caller, *dir.node, "file", O_RDWR, 0644, entry, file) != 0) return;
      break;
    default:
      if (rig.fs->lookup(rig.caller, *dir.node, "file", entry) != 0) return;
      if (S_ISLNK(entry.attr.stx_mode)) return;
      if (rig.fs->open(rig.caller, *entry.node, O_RDWR, false, file) != 0) return;
  }
  const std::string text = rig.read(*file);
  if (text == "secret")
    astray++;
  else if (text == "inside")
    arrived++;
  (void)rig.write(*file, 0, "inside");
  SetAttr set;
  set.mask = kSetMtimeNow | kSetMode;
  set.mode = 0600;
  (void)!rig.fs->setattr(rig.caller, *entry.node, nullptr, set, entry.attr);
}

}  // namespace

TEST(host_processes_swap_directories_for_symlinks) {
  for (const Where& where : kEverywhere) {
    const Outside outside;
    LocalRig rig(where, 0);  // nearly no cached descriptors: every step is taken anew
    make_tree(rig, outside);
    std::atomic<bool> stop{false};
    std::atomic<uint64_t> astray{0}, arrived{0};
    std::thread swapper([&] { swap_for_symlinks(rig, outside, stop); });
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 2; t++) {
      threads.emplace_back([&, t] {
        std::mt19937_64 rng(check::seed() + t);
        const auto end = Clock::now() + std::chrono::milliseconds(kMilliseconds);
        while (Clock::now() < end) wander(rig, rng, astray, arrived);
      });
    }
    for (auto& thread : threads) thread.join();
    stop.store(true);
    swapper.join();
    CHECK_EQ(astray.load(), 0);
    CHECK(arrived.load() > 0);
    CHECK_EQ(outside.print(), outside.before);
    CHECK(!std::filesystem::exists(outside.temp.path + "/new"));
    std::printf("%s: the right file %llu times\n", where.name,
                static_cast<unsigned long long>(arrived.load()));
  }
}

// Threads on one small tree. Every error must be one that a race explains; in the end all agrees with the
// host.
TEST(threads_on_one_tree) {
  const std::set<int> allowed{0, -ENOENT, -EEXIST, -ENOTEMPTY, -EISDIR, -ENOTDIR, -EINVAL, -ESTALE};
  for (const Where& where : kEverywhere) {
    LocalRig rig(where, 8);
    const size_t before = open_fds();
    for (const char* dir : {"d0", "d1", "d2"}) REQUIRE(rig.mkdir(dir) == 0);
    std::atomic<int> strange{0};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 4; t++) {
      threads.emplace_back([&, t] {
        std::mt19937_64 rng(check::seed() + t);
        const auto end = Clock::now() + std::chrono::milliseconds(kMilliseconds / 2);
        Ref<Node> dirs[3]{rig.node("d0"), rig.node("d1"), rig.node("d2")};
        while (Clock::now() < end) {
          Node& dir = *dirs[rng() % 3];
          Node& other = *dirs[rng() % 3];
          const std::string name = "n" + std::to_string(rng() % 4),
                            new_name = "n" + std::to_string(rng() % 4);
          Entry entry;
          Ref<File> file;
          int err = 0;
          switch (rng() % 8) {
            case 0:
              err = rig.fs->create(rig.caller, dir, name.c_str(), O_RDWR, 0644, entry, file);
              if (err == 0 && rig.write(*file, 0, "text") != 4) strange = 1000;
              break;
            case 1:
              err = rig.fs->mkdir(rig.caller, dir, name.c_str(), 0755, entry);
              break;
            case 2:
            case 3:
              err = rig.fs->lookup(rig.caller, dir, name.c_str(), entry);
              if (err == 0) {
                err = S_ISDIR(entry.attr.stx_mode) ? rig.fs->rmdir(rig.caller, dir, name.c_str(), entry)
                                                   : rig.fs->unlink(rig.caller, dir, name.c_str(), entry);
              }
              break;
            case 4:
              err = rig.fs->rename(rig.caller, dir, name.c_str(), other, new_name.c_str(), 0);
              break;
            case 5:
              err = rig.fs->lookup(rig.caller, dir, name.c_str(), entry);
              if (err == 0) err = rig.fs->link(rig.caller, *entry.node, other, new_name.c_str(), entry);
              if (err == -EPERM) err = 0;  // of a directory
              break;
            default:
              err = rig.fs->lookup(rig.caller, dir, name.c_str(), entry);
              if (err == 0 && (S_ISREG(entry.attr.stx_mode) || S_ISDIR(entry.attr.stx_mode)))
                err = rig.fs->open(rig.caller, *entry.node, O_RDONLY, false, file);
              Attr attr;
              if (file && rig.fs->getattr(*entry.node, nullptr, attr) == 0 &&
                  attr.stx_ino != entry.attr.stx_ino)
                strange = 2000;
          }
          if (!allowed.contains(err)) strange = err;
          // An open file, or in handle mode any known node, is not lost to an unlink at the same time.
          if (file) {
            Attr attr;
            if (rig.fs->getattr(*entry.node, file.get(), attr) != 0) strange = 3000;
            if (rig.where.handles && rig.fs->getattr(*entry.node, nullptr, attr) != 0) strange = 4000;
          }
        }
      });
    }
    for (auto& thread : threads) thread.join();
    CHECK_EQ(strange.load(), 0);
    for (const char* dir : {"d0", "d1", "d2"}) {
      for (int i = 0; i < 4; i++) {
        const std::string path = std::string(dir) + "/n" + std::to_string(i);
        Entry entry;
        CHECK_EQ(rig.look(path, entry) == 0, rig.host_exists(path));
        if (entry.node) CHECK_EQ(rig.attr(*entry.node).stx_nlink, rig.host_stat(path).st_nlink);
      }
    }
    CHECK_EQ(rig.parking.size(), 0);
    CHECK(open_fds() <= before + 8 + 16);
  }
}

// A file opened while it is unlinked: whichever is first, the keeper has it when both are done.
TEST(open_against_unlink_parks) {
  for (const Where& where : kEverywhere) {
    LocalRig rig(where);
    int missing = 0, both = 0;
    const auto end = Clock::now() + std::chrono::milliseconds(kMilliseconds / 2);
    for (int i = 0; Clock::now() < end; i++) {
      rig.host_write("f", "text");
      Entry entry;
      REQUIRE(rig.look("f", entry) == 0);
      Ref<File> file;
      int opened = -1;
      std::thread opener([&] { opened = rig.fs->open(rig.caller, *entry.node, O_RDONLY, false, file); });
      for (int spin = 0; spin < i % 200; spin++) std::atomic_signal_fence(std::memory_order_seq_cst);
      CHECK_EQ(rig.fs->unlink(rig.caller, *rig.root, "f", entry), 0);
      opener.join();
      CHECK_EQ(opened, 0);
      both++;
      if (rig.parking.size() != 1) missing++;
      file = nullptr;
      entry.node = nullptr;
      CHECK_EQ(rig.parking.size(), 0);
    }
    CHECK_EQ(missing, 0);
    std::printf("%s: %d rounds\n", where.name, both);
  }
}

CHECK_MAIN()
