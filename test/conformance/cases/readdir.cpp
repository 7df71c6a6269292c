// opendir(3), readdir(3), telldir(3) and friends.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include "test/conformance/suite/suite.hpp"

namespace {

struct CloseDir {
  void operator()(DIR* dir) const { closedir(dir); }
};
using Dir = std::unique_ptr<DIR, CloseDir>;

Dir open_dir(const char* path) {
  return Dir(opendir(path));
}

std::string next_name(const Dir& dir) {
  const dirent* entry = readdir(dir.get());
  return entry ? entry->d_name : "";
}

// Names still to come, in their order.
std::vector<std::string> rest(const Dir& dir) {
  std::vector<std::string> found;
  for (std::string name; !(name = next_name(dir)).empty();) found.push_back(name);
  return found;
}

// Mostly links, which are cheap to make everywhere: it is the names that count here.
bool make_files(const std::string& prefix, int count) {
  std::string source;
  for (int i = 0; i < count; ++i) {
    const std::string name = prefix + std::to_string(i);
    if (i % 50 == 0) source = name;
    if ((source == name ? make_file(name) : link(source.c_str(), name.c_str())) != 0) return false;
  }
  return true;
}

// Files "stay*" must each be seen once; others may be seen once or not at all.
std::string wrongly_seen(const std::vector<std::string>& seen, const std::string& prefix, int count) {
  std::map<std::string, int> times;
  for (const std::string& name : seen) ++times[name];
  std::string wrong;
  for (int i = 0; i < count; ++i) {
    const std::string name = prefix + std::to_string(i);
    if (times[name] != 1) wrong += name + " x" + std::to_string(times[name]) + " ";
  }
  for (const auto& [name, n] : times) {
    if (n > 1 && name.compare(0, prefix.size(), prefix) != 0) wrong += name + " twice ";
  }
  return wrong.substr(0, 300);
}

}  // namespace

CASE(readdir, dot_and_dot_dot) {
  OK(mkdir("d", 0755));
  const Dir dir = open_dir("d");
  std::vector<std::string> found = rest(dir);
  std::sort(found.begin(), found.end());
  EQ(found.size(), 2u);
  EQ(found[0] + found.back(), "...");
}

CASE(readdir, inode_numbers_are_those_of_stat) {
  OK(mkdir("d", 0755));
  for (const Kind kind : all_kinds()) OK(make(kind, std::string("d/") + kind_name(kind)));
  const Dir dir = open_dir("d");
  std::string wrong;
  while (const dirent* entry = readdir(dir.get())) {
    if (entry->d_ino != inode(std::string("d/") + entry->d_name)) wrong += std::string(entry->d_name) + " ";
  }
  EQ(wrong, "");
}

// DT_UNKNOWN is always allowed (readdir(3)), but ext4 and tmpfs know.
CASE(readdir, types) {
  OK(mkdir("d", 0755));
  for (const Kind kind : all_kinds()) OK(make(kind, std::string("d/") + kind_name(kind)));
  const std::map<std::string, int> types = {{"regular", DT_REG},   {"directory", DT_DIR}, {"fifo", DT_FIFO},
                                            {"symlink", DT_LNK},   {"socket", DT_SOCK},   {"block", DT_BLK},
                                            {"character", DT_CHR}, {".", DT_DIR},         {"..", DT_DIR}};
  const Dir dir = open_dir("d");
  std::string wrong;
  while (const dirent* entry = readdir(dir.get())) {
    if (entry->d_type != types.at(entry->d_name)) wrong += std::string(entry->d_name) + " ";
  }
  EQ(wrong, "");
}

CASE(readdir, three_thousand_entries) {
  CHECK(make_files("stay", 3000));
  EQ(wrongly_seen(list("."), "stay", 3000), "");
  EQ(list(".").size(), 3000u);
}

CASE(readdir, long_names_fill_buffers) {
  std::set<std::string> wanted;
  for (int i = 0; i < 400; ++i) {
    const std::string number = std::to_string(i);
    const std::string name = number + std::string(static_cast<std::size_t>(255 - number.size() - i % 7), 'n');
    if (make_file(name) != 0) break;
    wanted.insert(name);
  }
  const std::vector<std::string> found = list(".");
  EQ(found.size(), 400u);
  CHECK(std::set<std::string>(found.begin(), found.end()) == wanted);
}

CASE(readdir, rewinddir) {
  CHECK(make_files("stay", 50));
  const Dir dir = open_dir(".");
  const std::vector<std::string> first = rest(dir);
  EQ(next_name(dir), "");
  rewinddir(dir.get());
  CHECK(rest(dir) == first);
}

CASE(readdir, rewinddir_shows_what_is_new) {
  CHECK(make_files("stay", 10));
  const Dir dir = open_dir(".");
  (void)rest(dir);
  OK(make_file("new"));
  OK(unlink("stay3"));
  rewinddir(dir.get());
  const std::vector<std::string> again = rest(dir);
  EQ(std::count(again.begin(), again.end(), "new"), 1);
  EQ(std::count(again.begin(), again.end(), "stay3"), 0);
  EQ(again.size(), 12u);
}

CASE(readdir, telldir_and_seekdir) {
  CHECK(make_files("stay", 300));
  const Dir dir = open_dir(".");
  std::vector<long> places;
  std::vector<std::string> order;
  for (;;) {
    places.push_back(telldir(dir.get()));
    const std::string name = next_name(dir);
    if (name.empty()) break;
    order.push_back(name);
  }
  EQ(order.size(), 302u);
  std::string wrong;
  for (const std::size_t i : {301u, 0u, 150u, 37u, 299u, 1u, 200u}) {
    seekdir(dir.get(), places[i]);
    if (next_name(dir) != order[i]) wrong += std::to_string(i) + " ";
  }
  EQ(wrong, "");
  seekdir(dir.get(), places[100]);
  CHECK(rest(dir) == std::vector<std::string>(order.begin() + 100, order.end()));
}

CASE(readdir, cookies_hold_across_open_directories_of_one_descriptor) {
  CHECK(make_files("stay", 100));
  const Dir dir = open_dir(".");
  for (int i = 0; i < 40; ++i) (void)next_name(dir);
  const long place = telldir(dir.get());
  const std::string expected = next_name(dir);
  OK(make_file("unrelated"));
  OK(unlink("unrelated"));
  seekdir(dir.get(), place);
  EQ(next_name(dir) == expected, true);
}

CASE(readdir, entries_removed_while_reading) {
  CHECK(make_files("stay", 600));
  CHECK(make_files("go", 600));
  const Dir dir = open_dir(".");
  std::vector<std::string> seen;
  for (int i = 0;; ++i) {
    const std::string name = next_name(dir);
    if (name.empty()) break;
    seen.push_back(name);
    if (i % 2 == 0 && i / 2 < 600) unlink(("go" + std::to_string(i / 2)).c_str());
  }
  EQ(wrongly_seen(seen, "stay", 600), "");
}

CASE(readdir, every_entry_removed_as_it_is_read) {
  CHECK(make_files("go", 1200));
  const Dir dir = open_dir(".");
  int removed = 0;
  for (std::string name; !(name = next_name(dir)).empty();) removed += unlink(name.c_str()) == 0;
  EQ(removed, 1200);
  EQ(names("."), "");
}

CASE(readdir, entries_added_while_reading) {
  CHECK(make_files("stay", 600));
  const Dir dir = open_dir(".");
  std::vector<std::string> seen;
  for (int i = 0;; ++i) {
    const std::string name = next_name(dir);
    if (name.empty()) break;
    seen.push_back(name);
    if (i < 300) OK(make_file("new" + std::to_string(i)));
  }
  EQ(wrongly_seen(seen, "stay", 600), "");
}

CASE(readdir, entries_renamed_while_reading) {
  CHECK(make_files("stay", 500));
  CHECK(make_files("old", 300));
  const Dir dir = open_dir(".");
  std::vector<std::string> seen;
  for (int i = 0;; ++i) {
    const std::string name = next_name(dir);
    if (name.empty()) break;
    seen.push_back(name);
    if (i < 300) rename(("old" + std::to_string(i)).c_str(), ("new" + std::to_string(i)).c_str());
  }
  EQ(wrongly_seen(seen, "stay", 500), "");
}

CASE(readdir, two_readers_do_not_disturb_each_other) {
  CHECK(make_files("stay", 500));
  const Dir a = open_dir("."), b = open_dir(".");
  std::vector<std::string> from_a, from_b;
  for (int i = 0; i < 600; ++i) {
    if (const std::string name = next_name(a); !name.empty()) from_a.push_back(name);
    if (i % 3 == 0) {
      if (const std::string name = next_name(b); !name.empty()) from_b.push_back(name);
    }
  }
  for (const std::string& name : rest(b)) from_b.push_back(name);
  EQ(wrongly_seen(from_a, "stay", 500), "");
  EQ(wrongly_seen(from_b, "stay", 500), "");
}

CASE(readdir, fdopendir_and_scandir) {
  CHECK(make_files("f", 20));
  const int fd = OK(open(".", O_RDONLY | O_DIRECTORY));
  DIR* dir = OK(fdopendir(fd));
  EQ(dirfd(dir), fd);
  OK(closedir(dir));
  FAILS(EBADF, fcntl(fd, F_GETFD));
  dirent** entries = nullptr;
  const int count = OK(scandir(".", &entries, nullptr, alphasort));
  EQ(count, 22);
  EQ(std::string(entries[2]->d_name), "f0");
  for (int i = 0; i < count; ++i) free(entries[i]);
  free(entries);
}

CASE(readdir, descriptor_offset_restarts_listing) {
  CHECK(make_files("f", 30));
  const Dir dir = open_dir(".");
  (void)rest(dir);
  EQ(OK(lseek(dirfd(dir.get()), 0, SEEK_SET)), 0);
  rewinddir(dir.get());
  EQ(rest(dir).size(), 32u);
}

CASE(readdir, descriptor_of_a_stream) {
  CHECK(make_files("f", 3));
  Dir dir = open_dir(".");
  (void)next_name(dir);
  const int fd = OK(dirfd(dir.get()));
  EQ(OK(fcntl(fd, F_GETFD)), FD_CLOEXEC);
  EQ(OK(fcntl(fd, F_GETFL)) & (O_ACCMODE | O_DIRECTORY), O_RDONLY | O_DIRECTORY);
  struct stat by_fd {
  }, by_name{};
  OK(fstat(fd, &by_fd));
  OK(stat(".", &by_name));
  CHECK(by_fd.st_ino == by_name.st_ino && by_fd.st_dev == by_name.st_dev);
  OK(openat(fd, "f0", O_RDONLY));
  EQ(rest(dir).size(), 4u);
  EQ(OK(dirfd(dir.get())) == fd, true);
  dir.reset();
  FAILS(EBADF, fcntl(fd, F_GETFD));
}

// Who has a duplicate of the descriptor finds it where the stream left it.
CASE(readdir, descriptor_at_the_end) {
  CHECK(make_files("f", 20));
  const Fd fd = OK(open(".", O_RDONLY | O_DIRECTORY));
  const auto listed = [&fd] { return rest(Dir(fdopendir(dup(fd)))).size(); };
  EQ(listed(), 22u);
  EQ(listed(), 0u);
  OK(lseek(fd, 0, SEEK_SET));
  EQ(listed(), 22u);
  Dir again(fdopendir(dup(fd)));
  rewinddir(again.get());
  again.reset();
  EQ(listed(), 22u);
}

CASE(readdir, streams_go_on_in_a_forked_child) {
  CHECK(make_files("stay_" + std::string(100, 'x'), 1000));
  const Dir dir = open_dir(".");
  std::vector<std::string> seen;
  for (int i = 0; i < 100; ++i) seen.push_back(next_name(dir));
  OK(make_dir("elsewhere"));
  in_child([&] {
    OK(chdir("elsewhere"));
    std::vector<std::string> all = seen;
    for (const std::string& name : rest(dir)) all.push_back(name);
    EQ(wrongly_seen(all, "stay_" + std::string(100, 'x'), 1000), "");
    EQ(OK(closedir(const_cast<DIR*>(dir.get()))), 0);
  });
}

CASE(readdir, directory_moves_while_reading) {
  OK(make_dir("d"));
  CHECK(make_files("d/stay_" + std::string(100, 'x'), 1000));
  const Dir dir = open_dir("d");
  std::vector<std::string> seen{next_name(dir)};
  OK(rename("d", "e"));
  OK(make_dir("d"));
  for (const std::string& name : rest(dir)) seen.push_back(name);
  EQ(wrongly_seen(seen, "stay_" + std::string(100, 'x'), 1000), "");
  rewinddir(dir.get());
  EQ(rest(dir).size(), 1002u);
}

// More than a process would have open, to any depth.
CASE(readdir, four_hundred_streams) {
  CHECK(make_files("f", 5));
  std::vector<Dir> open;
  for (int i = 0; i < 400; ++i) open.push_back(open_dir("."));
  size_t wrong = 0;
  for (const Dir& dir : open) wrong += !dir || rest(dir).size() != 7;
  EQ(wrong, 0u);
}

CASE(readdir, errors) {
  OK(make_file("f"));
  FAILS(ENOTDIR, opendir("f"));
  FAILS(ENOENT, opendir("none"));
  const Fd fd = OK(open("f", O_RDONLY));
  FAILS(ENOTDIR, fdopendir(fd));
}

CASE(readdir, needs_read_permission, .root = true) {
  OK(make_dir("d", 0711));
  OK(make_file("d/f", "text"));
  as(kAlice, [] {
    FAILS(EACCES, opendir("d"));
    EQ(content("d/f"), "text");
  });
  OK(chmod("d", 0744));
  as(kAlice, [] {
    EQ(names("d"), "f");
    EQ(content("d/f"), "<EACCES>");
  });
}

CASE(readdir, link_count_follows_subdirectories) {
  for (int i = 0; i < 30; ++i) {
    if (mkdir(("d" + std::to_string(i)).c_str(), 0755) != 0) break;
  }
  EQ(nlink("."), 32);
  OK(rmdir("d7"));
  EQ(nlink("."), 31);
  EQ(list(".").size(), 29u);
}
