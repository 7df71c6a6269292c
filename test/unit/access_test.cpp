// The permission rules against the kernel's own: random owners, modes, ACLs and users, judged by both. Needs
// root.
#include "native/core/access.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "fastpath/wire.hpp"
#include "test/unit/as_user.hpp"
#include "test/unit/local_rig.hpp"

using namespace rig;

namespace {

constexpr Hardening kSoft{};
constexpr Hardening kHard{2, 1, 2, 2};

bool root_only() {
  if (::geteuid() == 0) return true;
  std::printf("skipped: needs root\n");
  return false;
}

// faccessat2(2) by the effective ids, Linux 5.8.
int kernel_access(int fd, int mask) {
  return ::syscall(439 /* SYS_faccessat2 */, fd, "", mask, AT_EMPTY_PATH | AT_EACCESS) == 0 ? 0 : -errno;
}

// A file or directory with random everything, as the libservice and as the kernel see it.
struct Subject {
  explicit Subject(LocalRig& rig) {
    const bool directory = below(2) != 0;
    const std::string path = rig.host("x");
    REQUIRE((directory ? ::mkdir(path.c_str(), 0700) : ::mknod(path.c_str(), S_IFREG | 0600, 0)) == 0);
    REQUIRE(::chown(path.c_str(), kUsers[below(4)], kGroups[below(4)]) == 0);
    REQUIRE(::chmod(path.c_str(), static_cast<mode_t>(below(010000))) == 0);
    if (below(2)) {
      const std::string acl = random_acl();
      REQUIRE(::setxattr(path.c_str(), "system.posix_acl_access", acl.data(), acl.size(), 0) == 0);
    }
    REQUIRE(rig.look("x", entry) == 0);
    fd = Fd(::open(path.c_str(), O_PATH | O_CLOEXEC));
  }
  Entry entry;
  Fd fd;
};

void remove(LocalRig& rig) {
  REQUIRE(::remove(rig.host("x").c_str()) == 0);
}

Attr attr_of(mode_t mode, uid_t uid, gid_t gid = 2001) {
  Attr attr{};
  attr.stx_mode = static_cast<uint16_t>(mode);
  attr.stx_uid = uid;
  attr.stx_gid = gid;
  return attr;
}

}  // namespace

TEST(access_is_what_the_kernel_says) {
  if (!root_only()) return;
  LocalRig rig(kEverywhere[2]);
  for (int i = 0; i < 1500; i++) {
    Subject subject(rig);
    for (int user = 0; user < 4; user++) {
      const Credentials who = random_credentials();
      const Permissions permissions(*rig.fs, who, kSoft);
      for (int mask = 1; mask < 8; mask++) {
        const int ours = permissions.may(*subject.entry.node, subject.entry.attr, mask);
        int kernel;
        {
          AsUser as(who);
          kernel = kernel_access(subject.fd.get(), mask);
        }
        if (!CHECK_EQ(ours, kernel))
          std::fprintf(stderr, "  mode %o owner %u:%u uid %u gid %u mask %d\n", subject.entry.attr.stx_mode,
                       subject.entry.attr.stx_uid, subject.entry.attr.stx_gid, who.uid, who.gid, mask);
      }
    }
    remove(rig);
  }
}

// What is remembered of an ACL's absence ends with the ACL's coming.
TEST(an_acl_that_comes_later_counts) {
  if (!root_only()) return;
  LocalRig rig(kEverywhere[2]);
  rig.host_write("x", "");
  REQUIRE(::chmod(rig.host("x").c_str(), 0644) == 0);
  const Credentials who{1001, 2001, {}, false};
  const Permissions permissions(*rig.fs, who, kSoft);
  Entry entry;
  REQUIRE(rig.look("x", entry) == 0);
  ::usleep(1'100'000);  // old enough to be remembered
  CHECK_EQ(permissions.may(*entry.node, entry.attr, kMayRead), 0);
  CHECK(entry.node->no_acl_ctime.load() != 0);
  const char acl[] =
      "\2\0\0\0\1\0\6\0\377\377\377\377\2\0\0\0\351\3\0\0\4\0\4\0\377\377\377\377\x10\0\4\0\377\377\377\377 "
      "\0\4\0\377\377\377\377";
  REQUIRE(::setxattr(rig.host("x").c_str(), "system.posix_acl_access", acl, sizeof acl - 1, 0) == 0);
  REQUIRE(rig.look("x", entry) == 0);
  CHECK_EQ(permissions.may(*entry.node, entry.attr, kMayRead), -EACCES);
}

TEST(links_in_sticky_directories) {
  LocalRig rig(kEverywhere[2]);
  const Credentials who{1001, 2001, {}, false}, root{0, 0, {}, true};
  const Permissions hard(*rig.fs, who, kHard), soft(*rig.fs, who, kSoft), hard_root(*rig.fs, root, kHard);
  const Attr sticky = attr_of(S_IFDIR | 01777, 0), plain = attr_of(S_IFDIR | 0777, 0);
  const Attr own = attr_of(S_IFLNK | 0777, 1001), other = attr_of(S_IFLNK | 0777, 1002);
  CHECK_EQ(hard.may_follow(sticky, own), 0);
  CHECK_EQ(hard.may_follow(sticky, other), -EACCES);
  CHECK_EQ(hard.may_follow(plain, other), 0);
  CHECK_EQ(hard.may_follow(attr_of(S_IFDIR | 01777, 1002), other), 0);  // the directory's owner's
  CHECK_EQ(hard.may_follow(attr_of(S_IFDIR | 01770, 0), other), 0);
  CHECK_EQ(hard_root.may_follow(sticky, other), -EACCES);  // no capability helps
  CHECK_EQ(soft.may_follow(sticky, other), 0);
}

TEST(opening_others_files_in_sticky_directories) {
  LocalRig rig(kEverywhere[2]);
  const Credentials who{1001, 2001, {}, false};
  const Attr file = attr_of(S_IFREG | 0666, 1002), fifo = attr_of(S_IFIFO | 0666, 1002);
  const Attr world = attr_of(S_IFDIR | 01777, 0), group = attr_of(S_IFDIR | 01770, 0);
  auto judge = [&](Hardening hardening, const Attr& dir, const Attr& found) {
    return Permissions(*rig.fs, who, hardening).may_reuse(dir, found);
  };
  CHECK_EQ(judge({0, 0, 0, 0}, world, file), 0);
  CHECK_EQ(judge({0, 0, 1, 0}, world, file), -EACCES);
  CHECK_EQ(judge({0, 0, 1, 0}, world, fifo), 0);
  CHECK_EQ(judge({0, 0, 0, 1}, world, fifo), -EACCES);
  CHECK_EQ(judge({0, 0, 1, 1}, group, file), 0);
  CHECK_EQ(judge({0, 0, 2, 1}, group, file), -EACCES);
  CHECK_EQ(judge({0, 0, 2, 1}, group, fifo), 0);
  CHECK_EQ(judge({0, 0, 2, 2}, group, fifo), -EACCES);
  CHECK_EQ(judge(kHard, world, attr_of(S_IFREG | 0666, 1001)), 0);
  CHECK_EQ(judge(kHard, attr_of(S_IFDIR | 01777, 1002), file), 0);
  CHECK_EQ(judge(kHard, attr_of(S_IFDIR | 0777, 0), file), 0);
}

TEST(hard_links_to_others_files) {
  LocalRig rig(kEverywhere[2]);
  rig.host_write("x", "");
  Entry entry;
  REQUIRE(rig.look("x", entry) == 0);
  const Credentials who{1001, 2001, {}, false};
  auto judge = [&](Hardening hardening, mode_t mode, uid_t owner) {
    return Permissions(*rig.fs, who, hardening).may_link(*entry.node, attr_of(mode, owner));
  };
  CHECK_EQ(judge(kHard, S_IFREG | 0666, 1002), 0);
  CHECK_EQ(judge(kHard, S_IFREG | 0644, 1002), -EPERM);
  CHECK_EQ(judge(kHard, S_IFREG | 0644, 1001), 0);
  CHECK_EQ(judge(kHard, S_IFREG | 04666, 1002), -EPERM);
  CHECK_EQ(judge(kHard, S_IFREG | 02676, 1002), -EPERM);
  CHECK_EQ(judge(kHard, S_IFREG | 02666, 1002), 0);
  CHECK_EQ(judge(kHard, S_IFIFO | 0666, 1002), -EPERM);
  CHECK_EQ(judge(kSoft, S_IFIFO | 0600, 1002), 0);
}

TEST(the_sysctls_are_the_machines) {
  auto value = [](const char* name) {
    std::FILE* file = std::fopen((std::string("/proc/sys/fs/protected_") + name).c_str(), "re");
    int number = -1;
    REQUIRE(file != nullptr && std::fscanf(file, "%d", &number) == 1);
    std::fclose(file);
    return number;
  };
  const Hardening now = Hardening::current();
  CHECK_EQ(now.symlinks, value("symlinks"));
  CHECK_EQ(now.hardlinks, value("hardlinks"));
  CHECK_EQ(now.regular, value("regular"));
  CHECK_EQ(now.fifos, value("fifos"));
}

TEST(xattr_namespaces) {
  LocalRig rig(kEverywhere[2]);
  rig.host_write("x", "");
  Entry entry;
  REQUIRE(rig.look("x", entry) == 0);
  const Credentials who{1001, 2001, {}, false};
  const Permissions permissions(*rig.fs, who, kSoft);
  auto judge = [&](mode_t mode, uid_t owner, const char* name, bool write) {
    return permissions.may_xattr(*entry.node, attr_of(mode, owner), name, write);
  };
  CHECK_EQ(judge(S_IFREG | 0666, 0, "user.x", true), 0);
  CHECK_EQ(judge(S_IFREG | 0644, 0, "user.x", true), -EACCES);
  CHECK_EQ(judge(S_IFREG | 0600, 0, "user.x", false), -EACCES);
  CHECK_EQ(judge(S_IFDIR | 0777, 0, "user.x", true), 0);
  CHECK_EQ(judge(S_IFDIR | 01777, 0, "user.x", true), -EPERM);
  CHECK_EQ(judge(S_IFDIR | 01777, 0, "user.x", false), 0);
  CHECK_EQ(judge(S_IFDIR | 01777, 1001, "user.x", true), 0);
  for (const char* name : {"trusted.x", "security.x", "system.x", "other", "userx", ""})
    CHECK_EQ(judge(S_IFREG | 0777, 1001, name, false), kDeclined);
  CHECK_EQ(judge(S_IFLNK | 0777, 1001, "user.x", false), kDeclined);
}

CHECK_MAIN()
