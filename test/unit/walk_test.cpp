// Path walks against the kernel's: random trees with links of every sort, walked by both with the same
// credentials. In a jail, as links lead out of the tree, too.
#include "native/core/walk.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include "fastpath/wire.hpp"
#include "test/unit/as_user.hpp"
#include "test/unit/jail.hpp"
#include "test/unit/local_rig.hpp"

using namespace rig;

namespace {

const char* const kNames[]{"a", "b", "c", "d"};

std::string random_path(size_t most, bool dots) {
  std::string path;
  const size_t components = 1 + below(most);
  for (size_t i = 0; i < components; i++) {
    const uint64_t kind = below(dots ? 10 : 8);
    path += kind == 8 ? ".." : kind == 9 ? "." : kNames[below(4)];
    if (i + 1 < components) path += below(12) == 0 ? "//" : "/";
  }
  if (below(10) == 0) path += below(2) ? "/" : "//";
  return path;
}

struct Tree {
  Tree() : rig(kEverywhere[2]) {
    REQUIRE(::fchmod(rig.host_root.get(), 0777) == 0);
    fill("", 0);
  }
  void fill(const std::string& dir, int depth) {
    for (const char* name : kNames) {
      const std::string path = dir + name, host = rig.host(path);
      switch (below(5)) {
        case 0:
        case 1:
          if (depth == 4) break;
          REQUIRE(::mkdir(host.c_str(), 0777) == 0);
          fill(path + "/", depth + 1);
          // Some may not be searched by everybody.
          REQUIRE(::chmod(host.c_str(), below(4) == 0 ? static_cast<mode_t>(below(02000)) : 0755) == 0);
          REQUIRE(::lchown(host.c_str(), kUsers[below(4)], kGroups[below(4)]) == 0);
          break;
        case 2:
          rig.host_write(path, "x");
          break;
        case 3: {
          const std::string target = (below(12) == 0 ? "/" : "") + random_path(4, true);
          REQUIRE(::symlink(target.c_str(), host.c_str()) == 0);
          REQUIRE(::lchown(host.c_str(), kUsers[below(4)], kGroups[below(4)]) == 0);
          break;
        }
        default:
          break;  // absent
      }
    }
  }
  int walk(const Credentials& who, const std::string& path, bool follow, uint16_t flags, Entry& out) {
    const Permissions permissions(*rig.fs, who);
    Walk walk(*rig.fs, recent, permissions, Caller{}, *rig.root, path, flags);
    return walk.resolve(follow, out);
  }

  LocalRig rig;
  const bool trusted = false;  // the tree changes behind the dispatcher's back
  RecentNames recent{trusted};
};

// What the kernel comes to: 0 and an inode, or -errno.
int kernel_walk(int root, const Credentials& who, const std::string& path, bool follow, struct stat& st) {
  AsUser as(who);
  return ::fstatat(root, path.c_str(), &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) == 0 ? 0 : -errno;
}

void walks_are_the_kernels() {
  uint64_t served = 0, declined = 0;
  for (int round = 0; round < 60; round++) {
    Tree tree;
    for (int i = 0; i < 400; i++) {
      const Credentials who = random_credentials();
      const std::string path = random_path(6, true);
      const bool follow = below(2);
      Entry entry;
      const int ours = tree.walk(who, path, follow, 0, entry);
      if (ours == kDeclined) {
        declined++;
        continue;
      }
      served++;
      struct stat st {};
      const int kernel = kernel_walk(tree.rig.host_root.get(), who, path, follow, st);
      if (!CHECK_EQ(ours, kernel) || (ours == 0 && !CHECK_EQ(entry.attr.stx_ino, st.st_ino)))
        std::fprintf(stderr, "  %s, %s, uid %u\n", path.c_str(), follow ? "followed" : "looked at", who.uid);
    }
  }
  std::printf("%llu walks, %llu declined\n", static_cast<unsigned long long>(served),
              static_cast<unsigned long long>(declined));
  CHECK(served > declined);
}

// Every declined walk leads out of the tree, or goes above its beginning.
void declined_is_only_what_leads_out() {
  Tree tree;
  LocalRig& rig = tree.rig;
  const Credentials root{0, 0, {}, true};
  REQUIRE(rig.mkdir("in") == 0 && rig.mkdir("in/deep") == 0);
  rig.host_write("in/file", "x");
  auto link = [&](const char* target, const char* name) {
    REQUIRE(::symlink(target, rig.host(name).c_str()) == 0);
  };
  link("/in/file", "absolute");
  link("../file", "in/deep/up");
  link("../../..", "in/deep/out");
  link("file", "in/plain");
  Entry entry;
  auto walk = [&](const char* path, uint16_t flags = 0) { return tree.walk(root, path, true, flags, entry); };
  CHECK_EQ(walk(".."), kDeclined);
  CHECK_EQ(walk("in/../.."), kDeclined);
  CHECK_EQ(walk("in/.."), 0);
  CHECK_EQ(walk("absolute"), kDeclined);
  CHECK_EQ(tree.walk(root, "absolute", false, 0, entry), 0);
  CHECK_EQ(walk("in/deep/up"), 0);
  CHECK_EQ(walk("in/deep/out"), kDeclined);
  CHECK_EQ(walk("in/plain"), 0);
  CHECK_EQ(walk("in/plain/"), -ENOTDIR);
  CHECK_EQ(walk("in/plain", kWalkDirectory), -ENOTDIR);
  CHECK_EQ(walk("in", kWalkDirectory), 0);
  CHECK_EQ(walk(""), 0);
  CHECK_EQ(walk("/"), 0);
  CHECK_EQ(walk("//in//./deep/"), 0);
  CHECK_EQ(walk("in/plain", kWalkNoLinks), kDeclined);
  CHECK_EQ(tree.walk(root, "in/plain", false, kWalkNoLinks, entry), 0);
  CHECK_EQ(walk("in/deep/..", kWalkNoLinks), kDeclined);
  CHECK_EQ(walk("in/deep/up/x", kWalkNoLinks), kDeclined);
}

void lengths_and_depths() {
  LocalRig rig(kEverywhere[2]);
  const bool trusted = true;
  RecentNames recent(trusted);
  const Credentials root{0, 0, {}, true};
  const Permissions permissions(*rig.fs, root);
  Entry entry;
  auto walk = [&](const std::string& path, bool follow = true) {
    return Walk(*rig.fs, recent, permissions, Caller{}, *rig.root, path, 0).resolve(follow, entry);
  };
  // Deeper than the inline stack, down and up again.
  std::string path;
  for (int i = 0; i < 40; i++) {
    path += "d/";
    REQUIRE(::mkdir(rig.host(path).c_str(), 0755) == 0);
  }
  CHECK_EQ(walk(path), 0);
  std::string up = path;
  for (int i = 0; i < 40; i++) up += "../";
  CHECK_EQ(walk(up), 0);
  CHECK_EQ(entry.node.get(), rig.root.get());
  CHECK_EQ(walk(up + ".."), kDeclined);
  CHECK_EQ(walk(std::string(NAME_MAX, 'n')), -ENOENT);
  CHECK_EQ(walk(std::string(NAME_MAX + 1, 'n')), -ENAMETOOLONG);
  CHECK_EQ(walk("d/" + std::string(NAME_MAX + 1, 'n') + "/x"), -ENAMETOOLONG);
  // Forty links, not forty-one; a chain at the end and in the middle.
  rig.host_write("l0", "x");
  for (int i = 1; i <= 41; i++)
    REQUIRE(::symlink(("l" + std::to_string(i - 1)).c_str(), rig.host("l" + std::to_string(i)).c_str()) == 0);
  CHECK_EQ(walk("l40"), 0);
  CHECK_EQ(walk("l41"), -ELOOP);
  CHECK_EQ(walk("l41", false), 0);
  REQUIRE(::symlink(".", rig.host("dot").c_str()) == 0);
  std::string dots;
  for (int i = 0; i < 40; i++) dots += "dot/";
  CHECK_EQ(walk(dots + "l0"), 0);
  CHECK_EQ(walk(dots + "dot/l0"), -ELOOP);
  REQUIRE(::symlink("self", rig.host("self").c_str()) == 0);
  CHECK_EQ(walk("self"), -ELOOP);
}

// What walks have passed is kept in use only as long as it has its name, and believed only where it may be.
void recent_names_can_go() {
  LocalRig rig(kEverywhere[2]);
  const bool trusted = true, doubted = false;
  RecentNames recent(trusted), doubtful(doubted);
  REQUIRE(rig.mkdir("d") == 0);
  Ref<Node> d = rig.node("d");
  Node& root = *rig.root;
  recent.keep(root, "d", 0, *d);
  recent.keep(root, "d", 0, *d);
  doubtful.keep(root, "d", 0, *d);
  Node* address = d.get();
  d = nullptr;
  CHECK_EQ(recent.find(root, "d").get(), address);
  CHECK(!recent.find(root, "e"));
  CHECK(!recent.find(*address, "d"));
  CHECK(!doubtful.find(root, "d"));
  {
    NamesChange change(root);
    CHECK(!recent.find(root, "d"));
    recent.keep(root, "d", 1, *address);
    CHECK(!recent.find(root, "d"));
  }
  CHECK(!recent.find(root, "d"));
  d = rig.node("d");
  CHECK_EQ(d.get(), address);
  recent.keep(root, "d", 0, *d);  // looked up before the change
  CHECK(!recent.find(root, "d"));
  recent.keep(root, "d", 2, *d);
  CHECK_EQ(recent.find(root, "d").get(), address);
  recent.drop(root, "d");
  recent.drop(root, "d");
  CHECK(!recent.find(root, "d"));
  doubtful.clear();
  CHECK_EQ(rig.attr(*d).stx_nlink, 2);
}

}  // namespace

TEST(walks_are_the_kernels) {
  in_jail(walks_are_the_kernels);
}
TEST(declined_is_only_what_leads_out) {
  in_jail(declined_is_only_what_leads_out);
}
TEST(lengths_and_depths) {
  in_jail(lengths_and_depths);
}
TEST(recent_names_can_go) {
  in_jail(recent_names_can_go);
}

CHECK_MAIN()
