// Kernel entries of the mount table, from mountinfo texts and from this machine's own.
#include "native/core/foreign_mounts.hpp"

#include <sys/sysmacros.h>

#include <algorithm>
#include <set>

#include "test/unit/check.hpp"

using namespace poly;

namespace {

NormalPath normal(std::string_view text) {
  NormalPath path;
  REQUIRE(normalise(text, path) == 0);
  return path;
}

struct Table {
  explicit Table(uint32_t capacity = 64) {
    Fd fd;
    REQUIRE(MountTable::create(capacity, fd) == 0 && MountTable::attach_writer(fd.get(), table) == 0);
  }
  void serve(std::string_view path, uint64_t id, unsigned minor) {
    const MountEntry entry{.service = 1, .instance = 1, .device = makedev(0, minor), .mount_id = id};
    CHECK_EQ(table.insert(normal(path), entry), 0);
  }
  // Kernel entries, then mounts of ours that are out of lookups, by path.
  std::string follow(std::string_view text) {
    ForeignMounts counts;
    const uint64_t before = table.generation();
    CHECK_EQ(follow_mounts(table, text, counts), 0);
    CHECK(table.generation() > before);
    std::set<std::string> kernel, hidden;
    CHECK_EQ(table.for_each([&](std::string_view path, const MountEntry& entry) {
      if ((entry.flags & kMountKernel) != 0) (entry.service == 0 ? kernel : hidden).emplace(path);
    }),
             0);
    CHECK_EQ(counts.entries, kernel.size());
    CHECK_EQ(counts.hidden, hidden.size());
    std::string out;
    for (const std::string& path : kernel) out += path + " ";
    for (const std::string& path : hidden) out += "!" + path + " ";
    return out;
  }
  // What a lookup of the preload library says.
  int lookup(std::string_view path) {
    MountMatch match;
    return table.lookup(normal(path), match);
  }
  MountTable table;
};

constexpr std::string_view kRoot = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n";
constexpr std::string_view kOurs = "40 22 0:44 / /m rw,nosuid - fuse.poly memory rw,user_id=0\n";

std::string text(std::initializer_list<std::string_view> lines) {
  std::string all;
  for (const std::string_view line : lines) all += line;
  return all;
}

}  // namespace

TEST(lines_of_mountinfo) {
  const auto lines = parse_mountinfo(
      "40 22 0:44 / /mnt/a\\040b\\134c\\011d\\012e rw shared:1 master:2 - fuse.poly x rw\n"
      "41 40 259:1048575 /x /mnt/\xff\xfe\\0400\\08 ro - tmpfs t rw");
  REQUIRE(lines.size() == 2);
  CHECK_EQ(lines[0].path, "/mnt/a b\\c\td\ne");
  CHECK_EQ(lines[0].id, 40);
  CHECK_EQ(lines[0].parent, 22);
  CHECK_EQ(lines[0].device, makedev(0, 44));
  CHECK_EQ(lines[1].path, "/mnt/\xff\xfe 0\\08");  // bytes stay bytes, and no octal is no escape
  CHECK_EQ(lines[1].device, makedev(259, 1048575));
}

TEST(what_is_no_line_is_left_out) {
  for (const std::string_view bad :
       {"", "\n", "x", "1", "1 2", "1 2 3", "1 2 3:4", "1 2 3:4 /", "1 2 3:4 / ", "1 2 3:4 / relative rw",
        "1x 2 3:4 / /a rw", "1 2 3x:4 / /a rw", "-1 2 3:4 / /a rw", "99999999999999999999 2 3:4 / /a rw"}) {
    CHECK_EQ(parse_mountinfo(bad).size(), 0);
  }
  CHECK_EQ(parse_mountinfo("\n\n1 2 3:4 / /a\n\n").size(), 1);
}

TEST(a_foreign_mount_comes_and_goes) {
  Table t;
  t.serve("/m", 40, 44);
  CHECK_EQ(t.follow(text({kRoot, kOurs})), "");
  CHECK_EQ(t.lookup("/m/d/t/f"), 0);
  const std::string_view bind = "50 40 8:1 /srv /m/d/t rw - ext4 /dev/sda1 rw\n";
  CHECK_EQ(t.follow(text({kRoot, kOurs, bind})), "/m/d/t ");
  CHECK_EQ(t.lookup("/m/d/t"), -ENOENT);
  CHECK_EQ(t.lookup("/m/d/t/f"), -ENOENT);
  CHECK_EQ(t.lookup("/m/d/tt"), 0);
  CHECK_EQ(t.follow(text({kRoot, kOurs, bind})), "/m/d/t ");
  CHECK_EQ(t.follow(text({kRoot, kOurs})), "");
  CHECK_EQ(t.lookup("/m/d/t/f"), 0);
}

TEST(what_lies_elsewhere_is_not_our_business) {
  Table t;
  t.serve("/m", 40, 44);
  CHECK_EQ(t.follow(text(
               {kRoot, kOurs, "50 22 0:50 / /mm rw - tmpfs t rw\n", "51 50 0:51 / /mm/x rw - tmpfs t rw\n"})),
           "");
  // Mounted over: what was at /m/x before is out of everybody's reach.
  CHECK_EQ(t.follow(text({kRoot, "30 22 0:50 / /m/x rw - tmpfs t rw\n", kOurs})), "");
}

TEST(mounts_of_ours_below_ours_are_no_foreign_ones) {
  Table t;
  t.serve("/m", 40, 44);
  t.serve("/m/n", 41, 45);
  const std::string_view nested = "41 40 0:45 / /m/n rw - fuse.poly memory rw\n";
  CHECK_EQ(t.follow(text({kRoot, kOurs, nested, "50 41 0:50 / /m/n/t rw - tmpfs t rw\n"})), "/m/n/t ");
  // Another daemon's, and ours before it is in the table: foreign as long as the table does not know it.
  CHECK_EQ(t.follow(text({kRoot, kOurs, nested, "60 40 0:60 / /m/other rw - fuse.poly memory rw\n"})),
           "/m/other ");
  // A bind mount of ours onto itself is not what the table has there.
  CHECK_EQ(t.follow(text({kRoot, kOurs, nested, "61 40 0:44 /d /m/e rw - fuse.poly memory rw\n"})), "/m/e ");
}

TEST(below_a_foreign_mount_are_more_and_one_of_ours) {
  Table t;
  t.serve("/m", 40, 44);
  t.serve("/m/t/q", 70, 70);
  CHECK_EQ(t.follow(text(
               {kRoot, "71 70 0:71 / /m/t/q/z rw - proc p rw\n", "70 50 0:70 / /m/t/q rw - fuse.poly m rw\n",
                "51 50 0:51 / /m/t/u rw - tmpfs t rw\n", "50 40 0:50 / /m/t rw - tmpfs t rw\n", kOurs})),
           "/m/t /m/t/q/z /m/t/u ");
  CHECK_EQ(t.lookup("/m/t/x"), -ENOENT);
  CHECK_EQ(t.lookup("/m/t/q/x"), 0);
}

TEST(on_the_very_path_of_ours_the_mount_id_tells) {
  Table t;
  t.serve("/m", 40, 44);
  const std::string_view over = "50 40 0:50 / /m rw - tmpfs t rw\n";
  CHECK_EQ(t.follow(text({kRoot, kOurs, over, "51 50 0:51 / /m/x rw - tmpfs t rw\n"})), "/m/x ");
  MountEntry entry;
  CHECK_EQ(t.table.find(normal("/m"), entry), 0);
  CHECK_EQ(entry.mount_id, 40);
}

TEST(paths_are_bytes) {
  Table t;
  t.serve("/m", 40, 44);
  CHECK_EQ(t.follow(text({kRoot, kOurs, "50 40 0:50 / /m/\xff\\040\\134x rw - tmpfs t rw\n"})),
           "/m/\xff \\x ");
  CHECK_EQ(t.lookup("/m/\xff \\x/f"), -ENOENT);
}

TEST(loops_and_lies_end) {
  Table t;
  t.serve("/m", 40, 44);
  CHECK_EQ(t.follow("1 2 0:1 / /a rw\n2 1 0:2 / /b rw\n3 3 0:3 / /c rw\n"), "");
  CHECK_EQ(t.follow(text({"40 22 0:99 / /m rw - tmpfs t rw\n", "50 40 0:50 / /m/x rw - tmpfs t rw\n"})), "");
}

// As long as the table has no room for a kernel entry, the mount around it is not served by the fast path.
TEST(without_room_the_mount_around_is_hidden) {
  Table t(3);
  t.serve("/m", 40, 44);
  t.serve("/n", 41, 45);
  const std::string_view other = "41 22 0:45 / /n rw - fuse.poly memory rw\n";
  const std::string_view one = "50 40 0:50 / /m/a rw - tmpfs t rw\n",
                         two = "51 40 0:51 / /m/b rw - tmpfs t rw\n";
  CHECK_EQ(t.follow(text({kRoot, kOurs, other, one})), "/m/a ");
  CHECK_EQ(t.follow(text({kRoot, kOurs, other, one, two})), "/m/a !/m ");
  CHECK_EQ(t.lookup("/m/b/f"), -ENOENT);
  CHECK_EQ(t.lookup("/m/f"), -ENOENT);
  CHECK_EQ(t.lookup("/n/f"), 0);
  CHECK_EQ(t.follow(text({kRoot, kOurs, other, one, two})), "/m/a !/m ");
  CHECK_EQ(t.follow(text({kRoot, kOurs, other, two})), "/m/b ");
  CHECK_EQ(t.lookup("/m/f"), 0);
  CHECK_EQ(t.follow(text({kRoot, kOurs, other})), "");
}

TEST(a_deep_tree_in_any_order) {
  Table t(1024);
  t.serve("/m", 1000, 44);
  std::vector<std::string> lines{"1000 1 0:44 / /m rw - fuse.poly m rw\n"};
  std::string path = "/m";
  for (int i = 1; i <= 500; i++) {
    path += "/d";
    lines.push_back(std::to_string(1000 + i) + " " + std::to_string(999 + i) + " 0:50 / " + path +
                    " rw - tmpfs t rw\n");
  }
  std::shuffle(lines.begin(), lines.end(), check::random());
  std::string all;
  for (const std::string& line : lines) all += line;
  ForeignMounts counts;
  CHECK_EQ(follow_mounts(t.table, all, counts), 0);
  CHECK_EQ(counts.entries, 500);
  CHECK_EQ(t.table.size(), 501);
}

TEST(a_read_only_table_is_refused) {
  Fd fd, reading;
  MountTable table;
  REQUIRE(MountTable::create(8, fd) == 0 && MountTable::read_only(fd.get(), reading) == 0);
  REQUIRE(MountTable::attach_reader(reading.get(), table) == 0);
  ForeignMounts counts;
  CHECK_EQ(follow_mounts(table, kRoot, counts), -EBADF);
}

TEST(this_machines_own_mountinfo) {
  std::string all;
  REQUIRE(read_mountinfo(all) == 0);
  const auto lines = parse_mountinfo(all);
  CHECK_EQ(lines.size(), static_cast<size_t>(std::count(all.begin(), all.end(), '\n')));
  bool root = false;
  for (const MountLine& line : lines) root = root || line.path == "/";
  CHECK(root);
}

CHECK_MAIN()
