// The mount table against a model, under concurrent readers, and with its writer killed anywhere.
#include "fastpath/mount_table.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "fastpath/mount_table_layout.hpp"
#include "test/unit/check.hpp"

using namespace poly;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kScale = 1;
#else
constexpr int kScale = 5;
#endif

using Model = std::map<std::string, MountEntry>;
using Clock = std::chrono::steady_clock;

NormalPath normal(std::string_view text) {
  NormalPath path;
  if (normalise(text, path) != 0)
    check::fail(__FILE__, __LINE__, "no path: " + std::string(text.substr(0, 60)));
  return path;
}

// An entry whose fields all follow from one number, so that a mixture of two entries shows.
MountEntry entry_of(std::uint32_t n, std::uint32_t flags = 0) {
  return {n, n * 3 + 1, flags, std::uint64_t{n} * 0x100000007, ~std::uint64_t{n}, 0};
}

bool is_whole(const MountEntry& e) {
  const MountEntry want = entry_of(e.service);
  return e.instance == want.instance && e.device == want.device && e.mount_id == want.mount_id;
}

struct Table {
  Fd fd;
  MountTable writer;
};

Table new_table(std::uint32_t capacity = 64) {
  Table t;
  REQUIRE(MountTable::create(capacity, t.fd) == 0);
  REQUIRE(MountTable::attach_writer(t.fd.get(), t.writer) == 0);
  return t;
}

MountTable new_reader(const Table& t) {
  Fd fd;
  MountTable reader;
  REQUIRE(MountTable::read_only(t.fd.get(), fd) == 0);
  REQUIRE(MountTable::attach_reader(fd.get(), reader) == 0);
  return reader;
}

int add(Table& t, std::string_view path, std::uint32_t n, std::uint32_t flags = 0) {
  return t.writer.insert(normal(path), entry_of(n, flags));
}

// What the table should answer: the service number, -1 for "not ours".
std::int64_t model_lookup(const Model& model, std::string path, std::size_t& prefix) {
  for (;;) {
    const auto it = model.find(path);
    if (it != model.end()) {
      prefix = path.size();
      return (it->second.flags & kMountKernel) != 0 ? -1 : std::int64_t{it->second.service};
    }
    if (path == "/") return -1;
    const std::size_t slash = path.rfind('/');
    path.resize(slash == 0 ? 1 : slash);
  }
}

std::string found(const MountTable& table, std::string_view path) {
  MountMatch match;
  const int rc = table.lookup(normal(path), match);
  if (rc == -ENOENT) return "none";
  if (rc != 0) return std::to_string(rc);
  return std::to_string(match.entry.service) + ":" + std::to_string(match.prefix_length) +
         (match.exact ? ":exact" : "");
}

Model contents(const MountTable& table) {
  Model model;
  CHECK_EQ(table.for_each([&](std::string_view path, const MountEntry& e) { model[std::string(path)] = e; }),
           0);
  return model;
}

// Paths, services and flags; generations differ after a repair.
std::string text_of(const Model& model) {
  std::string text;
  for (const auto& [path, e] : model) {
    text +=
        path + "=" + std::to_string(e.service) + "/" + std::to_string(e.flags) + (is_whole(e) ? " " : "! ");
  }
  return text;
}

std::string random_path(std::mt19937_64& rng, int max_depth = 5) {
  static const char* const names[] = {"a", "b", "ab", "abcdefg", "abcdefgh", "abcdefghi", "x.y"};
  std::string path;
  for (auto depth = static_cast<int>(rng() % static_cast<unsigned>(max_depth + 1)); depth > 0; --depth) {
    path += std::string("/") + names[rng() % std::size(names)];
  }
  return path.empty() ? "/" : path;
}

int exit_status(pid_t pid) {
  int status = 0;
  if (::waitpid(pid, &status, 0) != pid) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// A child never outlives the test program.
pid_t fork_child() {
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) _exit(1);
  }
  return pid;
}

}  // namespace

TEST(paths_are_normalised) {
  const std::pair<const char*, const char*> cases[] = {
      {"/", "/"},          {"//", "/"},          {"/a", "/a"},
      {"/a/", "/a"},       {"//a//b//", "/a/b"}, {"/./a/./b/.", "/a/b"},
      {"/a/../b", "/b"},   {"/..", "/"},         {"/../../a", "/a"},
      {"/a/b/../..", "/"}, {"/a/...", "/a/..."}, {"/.a/..b", "/.a/..b"},
      {"/a/b/..", "/a"},   {"/a b\n", "/a b\n"}, {"/\xff\xfe", "/\xff\xfe"},
  };
  for (const auto& [given, want] : cases) CHECK_EQ(normal(given).view(), want);
  CHECK(normal("/a/").wants_directory());
  CHECK(normal("/a/.").wants_directory());
  CHECK(normal("/a/b/..").wants_directory());
  CHECK(!normal("/a/./b").wants_directory());
  CHECK(normal("/a/../b").had_dotdot());
  CHECK(!normal("/a/..b").had_dotdot());

  NormalPath path;
  for (const std::string& bad :
       {std::string(), std::string("a"), std::string("./a"), std::string("/a\0b", 4)}) {
    CHECK_EQ(normalise(bad, path), -EINVAL);
    CHECK_EQ(path.view(), "/");
  }
  const std::string longest = "/" + std::string(kMaxPathLength - 1, 'x');
  CHECK_EQ(normalise(longest, path), 0);
  CHECK_EQ(path.view(), longest);
  CHECK_EQ(std::strlen(path.c_str()), kMaxPathLength);
  CHECK_EQ(normalise(longest + "x", path), -ENAMETOOLONG);
  CHECK_EQ(normalise(std::string(kMaxPathLength + 1, '/'), path), -ENAMETOOLONG);
}

TEST(longest_prefix_on_component_boundaries) {
  Table t = new_table();
  const MountTable reader = new_reader(t);
  CHECK_EQ(found(reader, "/"), "none");
  CHECK_EQ(add(t, "/a", 1), 0);
  CHECK_EQ(add(t, "/a/b/c", 2, kMountNested), 0);
  CHECK_EQ(add(t, "/a/b/kernel", 3, kMountKernel), 0);
  CHECK_EQ(add(t, "/a/b/kernel/ours", 4, kMountReadOnly), 0);
  CHECK_EQ(found(reader, "/a"), "1:2:exact");
  CHECK_EQ(found(reader, "/a/"), "1:2:exact");
  CHECK_EQ(found(reader, "//a/./x"), "1:2");
  CHECK_EQ(found(reader, "/ab"), "none");
  CHECK_EQ(found(reader, "/ab/a"), "none");
  CHECK_EQ(found(reader, "/"), "none");
  CHECK_EQ(found(reader, "/a/b"), "1:2");
  CHECK_EQ(found(reader, "/a/b/cc"), "1:2");
  CHECK_EQ(found(reader, "/a/b/c/d/e/f/g/h"), "2:6");
  CHECK_EQ(found(reader, "/a/b/c/../x"), "1:2");
  CHECK_EQ(found(reader, "/a/b/kernel"), "none");
  CHECK_EQ(found(reader, "/a/b/kernel/x"), "none");
  CHECK_EQ(found(reader, "/a/b/kernels"), "1:2");
  CHECK_EQ(found(reader, "/a/b/kernel/ours/x"), "4:16");
  CHECK_EQ(add(t, "/", 9), 0);
  CHECK_EQ(found(reader, "/"), "9:1:exact");
  CHECK_EQ(found(reader, "/ab"), "9:1");
  CHECK_EQ(found(reader, "/a/x"), "1:2");
  CHECK_EQ(t.writer.remove(normal("/a")), 0);
  CHECK_EQ(found(reader, "/a/x"), "9:1");
  CHECK_EQ(found(reader, "/a/b/c"), "2:6:exact");

  MountEntry entry;
  CHECK_EQ(reader.find(normal("/a/b/kernel"), entry), 0);
  CHECK_EQ(entry.flags, kMountKernel);
  CHECK_EQ(reader.find(normal("/a/b"), entry), -ENOENT);
}

TEST(changes_and_their_errors) {
  Table t = new_table(3);
  MountTable reader = new_reader(t);
  MountMatch match;
  const std::uint64_t first = reader.generation();
  CHECK_EQ(add(t, "/a", 1), 0);
  CHECK_EQ(add(t, "/a", 2), -EEXIST);
  CHECK_EQ(add(t, "/a//", 2), -EEXIST);
  CHECK_EQ(reader.generation(), first + 1);
  CHECK_EQ(t.writer.remove(normal("/b")), -ENOENT);
  CHECK_EQ(t.writer.update(normal("/b"), entry_of(1)), -ENOENT);
  CHECK_EQ(reader.generation(), first + 1);
  CHECK_EQ(add(t, "/b", 2), 0);
  CHECK_EQ(add(t, "/c", 3), 0);
  CHECK_EQ(add(t, "/d", 4), -ENOSPC);
  CHECK_EQ(reader.size(), 3);
  CHECK_EQ(reader.capacity(), 3);
  for (std::uint32_t n = 10; n < 30; ++n) {  // also when full
    CHECK_EQ(t.writer.update(normal("/b"), entry_of(n, kMountReadOnly)), 0);
    CHECK_EQ(reader.lookup(normal("/b/x"), match), 0);
    CHECK(match.entry.service == n && match.entry.flags == kMountReadOnly && is_whole(match.entry));
    CHECK_EQ(match.entry.generation, reader.generation());
  }
  CHECK_EQ(t.writer.remove(normal("/a")), 0);
  CHECK_EQ(add(t, "/d", 4), 0);
  CHECK_EQ(add(t, "/e", 4), -ENOSPC);
  const std::uint64_t before = reader.generation();
  CHECK_EQ(t.writer.touch(), 0);
  CHECK_EQ(reader.generation(), before + 1);

  CHECK_EQ(reader.insert(normal("/z"), entry_of(1)), -EBADF);
  CHECK_EQ(reader.remove(normal("/b")), -EBADF);
  CHECK_EQ(reader.update(normal("/b"), entry_of(1)), -EBADF);
  CHECK_EQ(reader.touch(), -EBADF);
  const MountTable nothing;
  CHECK_EQ(nothing.lookup(normal("/b"), match), -EBADF);
  CHECK_EQ(nothing.size(), 0);
  MountTable moved = std::move(reader);
  CHECK_EQ(moved.lookup(normal("/b"), match), 0);
  CHECK(!reader && moved);  // NOLINT: a moved-from table is detached
}

TEST(longest_and_deepest_paths) {
  Table t = new_table();
  const MountTable reader = new_reader(t);
  std::string deep;
  for (std::size_t i = 0; i < kMaxDepth; ++i) deep += "/d";
  const std::string wide = "/" + std::string(kMaxPathLength - 1, 'w');
  CHECK_EQ(add(t, deep, 1), 0);
  CHECK_EQ(add(t, wide, 2), 0);
  CHECK_EQ(add(t, deep.substr(0, 200), 3), 0);
  CHECK_EQ(found(reader, deep), "1:" + std::to_string(deep.size()) + ":exact");
  CHECK_EQ(found(reader, wide), "2:4095:exact");
  CHECK_EQ(found(reader, deep.substr(0, deep.size() - 2)), "3:200");
  CHECK_EQ(found(reader, wide.substr(0, 4094)), "none");
  CHECK_EQ(contents(reader).size(), 3);
  CHECK_EQ(t.writer.remove(normal(deep)), 0);
  CHECK_EQ(found(reader, deep), "3:200");
}

TEST(only_tables_can_be_attached) {
  Fd fd;
  MountTable table;
  CHECK_EQ(MountTable::create(0, fd), -EINVAL);
  CHECK_EQ(MountTable::create(MountTable::kMaxCapacity + 1, fd), -EINVAL);
  CHECK_EQ(MountTable::attach_reader(-1, table), -EBADF);
  const Fd null_device(::open("/dev/null", O_RDWR | O_CLOEXEC));
  CHECK_EQ(MountTable::attach_reader(null_device.get(), table), -EINVAL);
  const Fd unsealed(::memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  CHECK_EQ(MountTable::attach_reader(unsealed.get(), table), -EINVAL);
  REQUIRE(::fcntl(unsealed.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
  CHECK_EQ(MountTable::attach_reader(unsealed.get(), table), -EINVAL);  // empty

  // Every field of the header that differs is refused.
  for (std::size_t offset = 0; offset < 64; offset += 4) {
    if (offset == 20 || offset == 24 || offset == 28) continue;  // reserved, seed
    REQUIRE(MountTable::create(4, fd) == 0);
    std::uint32_t value = 0;
    REQUIRE(::pread(fd.get(), &value, 4, static_cast<off_t>(offset)) == 4);
    value += 1;
    REQUIRE(::pwrite(fd.get(), &value, 4, static_cast<off_t>(offset)) == 4);
    CHECK_EQ(MountTable::attach_reader(fd.get(), table), offset == 8 ? -EPROTO : -EINVAL);
  }
  CHECK(!table);
}

TEST(readers_cannot_write) {
  Table t = new_table();
  Fd fd;
  MountTable table;
  REQUIRE(MountTable::read_only(t.fd.get(), fd) == 0);
  CHECK_EQ(MountTable::attach_writer(fd.get(), table), -EACCES);
  CHECK_EQ(::write(fd.get(), "x", 1), -1);
  CHECK(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0) == MAP_FAILED);
  CHECK_EQ(::ftruncate(t.fd.get(), 0), -1);
  CHECK_EQ(::fcntl(t.fd.get(), F_ADD_SEALS, F_SEAL_WRITE), -1);
  if (::getuid() != 0) return;
  const pid_t pid = fork_child();
  if (pid == 0) {
    const std::string name = "/proc/self/fd/" + std::to_string(fd.get());
    if (::setresuid(65534, 65534, 65534) != 0) _exit(2);
    const Fd again(::open(name.c_str(), O_RDWR | O_CLOEXEC));
    _exit(!again && errno == EACCES && MountTable::attach_reader(fd.get(), table) == 0 ? 0 : 1);
  }
  CHECK_EQ(exit_status(pid), 0);
}

TEST(random_changes_follow_the_model) {
  std::mt19937_64& rng = check::random();
  for (int round = 0; round < 3 * kScale; ++round) {
    const auto capacity = static_cast<std::uint32_t>(1 + rng() % 60);
    Table t = new_table(capacity);
    const MountTable reader = new_reader(t);
    Model model;
    for (int step = 0; step < 2000; ++step) {
      const std::string path = random_path(rng, 4);
      const MountEntry entry = entry_of(static_cast<std::uint32_t>(rng() % 1000), rng() % 8);
      const bool known = model.contains(path);
      switch (rng() % 4) {
        case 0:
          CHECK_EQ(t.writer.insert(normal(path), entry),
                   known ? -EEXIST : (model.size() == capacity ? -ENOSPC : 0));
          if (!known && model.size() < capacity) model[path] = entry;
          break;
        case 1:
          CHECK_EQ(t.writer.remove(normal(path)), known ? 0 : -ENOENT);
          model.erase(path);
          break;
        case 2:
          CHECK_EQ(t.writer.update(normal(path), entry), known ? 0 : -ENOENT);
          if (known) model[path] = entry;
          break;
        default: {
          MountMatch match;
          std::size_t prefix = 0;
          const std::int64_t want = model_lookup(model, path, prefix);
          const int rc = reader.lookup(normal(path), match);
          CHECK_EQ(rc == 0 ? std::int64_t{match.entry.service} : rc, want < 0 ? -ENOENT : want);
          if (rc == 0) CHECK(match.prefix_length == prefix && match.exact == (prefix == path.size()));
        }
      }
      CHECK_EQ(reader.size(), model.size());
      if (step % 100 == 0) CHECK_EQ(text_of(contents(reader)), text_of(model));
      if (step % 500 == 0) REQUIRE(MountTable::attach_writer(t.fd.get(), t.writer) == 0);  // a restart
    }
    CHECK_EQ(text_of(contents(reader)), text_of(model));
  }
}

// What concurrent readers may rely on: /stay is there always, and whatever matches is whole.
namespace {

struct Tally {
  std::uint64_t found = 0;
  std::uint64_t busy = 0;
  std::uint64_t wrong = 0;
};

void read_once(const MountTable& table, std::mt19937_64& rng, Tally& tally) {
  MountMatch match;
  const auto what = rng() % 8;
  const std::string path = what < 4 ? "/stay/hot" : "/stay" + (what == 4 ? "" : random_path(rng));
  const int rc = table.lookup(normal(path), match);
  if (rc == -EAGAIN) {
    ++tally.busy;
  } else if (rc != 0 || !is_whole(match.entry) || match.prefix_length < 5 ||
             match.prefix_length > path.size() || (match.prefix_length == 5) != (match.entry.service == 77)) {
    ++tally.wrong;
  } else {
    ++tally.found;
  }
}

void list_once(const MountTable& table, Tally& tally) {
  const int rc = table.for_each([&](std::string_view path, const MountEntry& e) {
    if (!is_whole(e) || !path.starts_with("/stay")) ++tally.wrong;
  });
  if (rc != 0) ++tally.busy;
}

// Two updates in a row write the slot that a reader of the first may still be in: /stay/hot is where tearing
// shows.
void churn_once(MountTable& writer, std::mt19937_64& rng) {
  static const NormalPath hot = normal("/stay/hot");
  for (int i = 0; i < 8; ++i) {
    const MountEntry entry = entry_of(static_cast<std::uint32_t>(100 + rng() % 1000));
    if (writer.update(hot, entry) == -ENOENT && writer.insert(hot, entry) == 0) continue;
  }
  const std::string path = "/stay" + random_path(rng);
  if (path == "/stay/") return;
  const MountEntry entry = entry_of(static_cast<std::uint32_t>(100 + rng() % 1000));
  const auto what = rng() % 3;
  const int rc = what == 0   ? writer.insert(normal(path), entry)
                 : what == 1 ? writer.remove(normal(path))
                             : writer.update(normal(path), entry);
  if (rc != 0 && rc != -EEXIST && rc != -ENOENT && rc != -ENOSPC)
    check::fail(__FILE__, __LINE__, "churn failed");
}

}  // namespace

TEST(threads_read_while_the_writer_churns) {
  Table t = new_table(200);
  const MountTable mapped = new_reader(t);
  CHECK_EQ(add(t, "/stay", 77), 0);
  std::atomic<bool> stop{false};
  Tally tallies[3];
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      std::mt19937_64 rng(check::seed() + i);
      // One reads through the writer's own mapping: there ThreadSanitizer sees both sides.
      const MountTable& table = i == 0 ? t.writer : mapped;
      while (!stop.load()) {
        read_once(table, rng, tallies[i]);
        if (rng() % 64 == 0) list_once(table, tallies[i]);
      }
    });
  }
  const auto end = Clock::now() + std::chrono::milliseconds(300 * kScale);
  while (Clock::now() < end) churn_once(t.writer, check::random());
  stop.store(true);
  for (std::thread& thread : threads) thread.join();
  for (const Tally& tally : tallies) {
    CHECK_EQ(tally.wrong, 0);
    CHECK(tally.found > 0);
    std::printf("thread: %llu found, %llu busy\n", static_cast<unsigned long long>(tally.found),
                static_cast<unsigned long long>(tally.busy));
  }
}

TEST(processes_read_while_the_writer_churns) {
  Table t = new_table(200);
  CHECK_EQ(add(t, "/stay", 77), 0);
  std::vector<pid_t> children;
  for (unsigned i = 0; i < 3; ++i) {
    const pid_t pid = fork_child();
    if (pid == 0) {
      const MountTable reader = new_reader(t);
      std::mt19937_64 rng(check::seed() + 10 + i);
      Tally tally;
      const auto end = Clock::now() + std::chrono::milliseconds(200 * kScale);
      while (Clock::now() < end) {
        read_once(reader, rng, tally);
        if (rng() % 64 == 0) list_once(reader, tally);
      }
      _exit(tally.wrong == 0 && tally.found > 0 ? 0 : 1);
    }
    children.push_back(pid);
  }
  const auto end = Clock::now() + std::chrono::milliseconds(250 * kScale);
  while (Clock::now() < end) churn_once(t.writer, check::random());
  for (const pid_t pid : children) CHECK_EQ(exit_status(pid), 0);
}

TEST(a_killed_writer_stops_nobody) {
  Table t = new_table(200);
  const MountTable reader = new_reader(t);
  CHECK_EQ(add(t, "/stay", 77), 0);
  Tally tally;
  int odd = 0;
  for (int round = 0; round < 30 * kScale; ++round) {
    const pid_t pid = fork_child();
    if (pid == 0) {
      std::mt19937_64 rng(check::seed() + 100 + static_cast<unsigned>(round));
      MountTable writer;
      if (MountTable::attach_writer(t.fd.get(), writer) != 0) _exit(1);
      for (;;) churn_once(writer, rng);
    }
    ::usleep(static_cast<useconds_t>(check::random()() % 5000));
    ::kill(pid, SIGKILL);
    CHECK_EQ(exit_status(pid), 128 + SIGKILL);
    std::uint64_t sequence = 0;
    CHECK_EQ(::pread(t.fd.get(), &sequence, 8, offsetof(MountTableHeader, sequence)), 8);
    if (sequence % 2 != 0) ++odd;
    const std::uint64_t generation = reader.generation();
    for (int i = 0; i < 50; ++i) read_once(reader, check::random(), tally);
    REQUIRE(MountTable::attach_writer(t.fd.get(), t.writer) == 0);
    CHECK(reader.generation() > generation);
    const std::uint64_t busy = tally.busy;
    for (int i = 0; i < 50; ++i) read_once(reader, check::random(), tally);
    list_once(reader, tally);
    CHECK_EQ(tally.busy, busy);
    CHECK_EQ(contents(reader).size(), reader.size());
  }
  CHECK_EQ(tally.wrong, 0);
  std::printf("writer killed %d times, %d inside a change\n", 30 * kScale, odd);
}

TEST(a_stuck_writer_is_waited_for_briefly) {
  Table t = new_table();
  const MountTable reader = new_reader(t);
  CHECK_EQ(add(t, "/a", 1), 0);
  std::uint64_t sequence = 0;
  constexpr off_t kWhere = offsetof(MountTableHeader, sequence);
  REQUIRE(::pread(t.fd.get(), &sequence, 8, kWhere) == 8);
  sequence += 1;
  REQUIRE(::pwrite(t.fd.get(), &sequence, 8, kWhere) == 8);
  const auto begin = Clock::now();
  for (int i = 0; i < 100; ++i) CHECK_EQ(found(reader, "/a"), std::to_string(-EAGAIN));
  CHECK_EQ(reader.for_each([](std::string_view, const MountEntry&) {}), -EAGAIN);
  const auto each = std::chrono::duration<double, std::micro>(Clock::now() - begin).count() / 100;
  CHECK(each < 5000);
  std::printf("lookup beside a stuck writer: %.1f us until EAGAIN\n", each);
  REQUIRE(MountTable::attach_writer(t.fd.get(), t.writer) == 0);
  CHECK_EQ(found(reader, "/a"), "1:2:exact");
}

TEST(garbage_in_the_table_harms_no_reader) {
  std::mt19937_64& rng = check::random();
  for (int round = 0; round < 20 * kScale; ++round) {
    Table t = new_table(16);
    const MountTable reader = new_reader(t);
    for (std::uint32_t n = 0; n < 12; ++n) CHECK_EQ(add(t, "/m" + std::to_string(n), n), 0);
    const MountTableLayout layout(16);
    for (int hits = 0; hits < 200; ++hits) {
      // Header words from the sequence on, and everything after it; never the constants before.
      const std::uint64_t words = (layout.total - 64) / 8;
      std::uint64_t where = 64 + rng() % words * 8;
      if (rng() % 4 != 0) where = 64 + rng() % ((layout.paths - 64) / 8) * 8;
      if (where == 64) continue;  // an odd sequence would hide the rest
      const std::uint64_t value = rng() % 3 == 0 ? rng() : rng() % 20;
      REQUIRE(::pwrite(t.fd.get(), &value, 8, static_cast<off_t>(where)) == 8);
      MountMatch match;
      for (int n = 0; n < 14; ++n) {
        const int rc = reader.lookup(normal("/m" + std::to_string(n) + "/x"), match);
        CHECK(rc == 0 || rc == -ENOENT);
      }
      const int rc = reader.for_each([](std::string_view path, const MountEntry&) { CHECK(path[0] == '/'); });
      CHECK(rc == 0 || rc == -EAGAIN);
    }
    REQUIRE(MountTable::attach_writer(t.fd.get(), t.writer) == 0);
    CHECK_EQ(contents(reader).size(), reader.size());
    while (add(t, "/again" + std::to_string(rng()), 1) == 0) {
    }
    CHECK_EQ(reader.size(), 16);
  }
}

#if !defined(__SANITIZE_THREAD__)  // its runtime is most of the instructions, and there is no race to find

// The writer is stepped through a few changes one machine instruction at a time. After each instruction that
// changed the table, a copy of it is what a writer killed there would have left behind.
namespace {

struct Step {
  char op;  // + insert, - remove, = update
  const char* path;
  std::uint32_t n;
};
constexpr Step kSteps[] = {{'+', "/a", 1},
                           {'+', "/a/b", 2},
                           {'=', "/a", 3},
                           {'+', "/c/abcdefghijkl", 4},
                           {'=', "/a/b", 5},
                           {'-', "/a", 0},
                           {'+', "/a/b/c/d", 6},
                           {'-', "/a/b", 0},
                           {'-', "/a/b/c/d", 0},
                           {'+', "/", 7},
                           {'=', "/", 8},
                           {'-', "/", 0},
                           {'-', "/c/abcdefghijkl", 0}};
constexpr std::uint32_t kStepCapacity = 3;

int apply(MountTable& writer, const Step& step) {
  const NormalPath path = normal(step.path);
  if (step.op == '+') return writer.insert(path, entry_of(step.n));
  if (step.op == '-') return writer.remove(path);
  return writer.update(path, entry_of(step.n));
}

// The contents before the first step, after it, after the second...
std::vector<std::string> states_of_model() {
  Model model;
  std::vector<std::string> states{text_of(model)};
  for (const Step& step : kSteps) {
    model.erase(step.path);
    if (step.op != '-') model[step.path] = entry_of(step.n);
    states.push_back(text_of(model));
  }
  return states;
}

void* map_table(int fd, std::size_t size) {
  void* base = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  REQUIRE(base != MAP_FAILED);
  return base;
}

// The table as a killed writer left it: readers get the old state or EAGAIN, and a new writer one of the two
// states.
void check_abandoned(const std::vector<char>& image, const std::string& before, const std::string& after) {
  Table copy;
  REQUIRE(MountTable::create(kStepCapacity, copy.fd) == 0);
  REQUIRE(::pwrite(copy.fd.get(), image.data(), image.size(), 0) == static_cast<ssize_t>(image.size()));
  const MountTable reader = new_reader(copy);
  Model seen;
  const int rc =
      reader.for_each([&](std::string_view path, const MountEntry& e) { seen[std::string(path)] = e; });
  if (rc == 0) {
    CHECK(text_of(seen) == before || text_of(seen) == after);
  } else {
    CHECK_EQ(rc, -EAGAIN);
  }
  REQUIRE(MountTable::attach_writer(copy.fd.get(), copy.writer) == 0);
  const Model repaired = contents(reader);
  const std::string text = text_of(repaired);
  if (!CHECK(text == before || text == after)) {
    std::fprintf(stderr, "  found %s, wanted %s or %s\n", text.c_str(), before.c_str(), after.c_str());
  }
  for (const auto& [path, e] : repaired)
    CHECK_EQ(found(reader, path).substr(0, 1), std::to_string(e.service));
  for (std::size_t n = repaired.size(); n < kStepCapacity; ++n)
    CHECK_EQ(add(copy, "/new" + std::to_string(n), 9), 0);
  CHECK_EQ(add(copy, "/full", 9), -ENOSPC);
}

pid_t start_stepped_writer(const Table& t, std::atomic<std::uint32_t>* progress) {
  const pid_t pid = fork_child();
  if (pid != 0) return pid;
  MountTable writer;
  if (MountTable::attach_writer(t.fd.get(), writer) != 0) _exit(1);
  if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(77);
  ::raise(SIGSTOP);
  for (const Step& step : kSteps) {
    if (apply(writer, step) != 0) _exit(1);
    progress->fetch_add(1);
  }
  ::raise(SIGUSR1);  // seen by the tracer, which ends the stepping
  _exit(0);
}

}  // namespace

TEST(a_writer_may_die_at_any_instruction) {
  Table t = new_table(kStepCapacity);
  t.writer = MountTable();
  const std::size_t size = MountTableLayout(kStepCapacity).total;
  const char* const bytes = static_cast<const char*>(map_table(t.fd.get(), size));
  void* shared = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto* progress = new (shared) std::atomic<std::uint32_t>(0);
  const std::vector<std::string> states = states_of_model();
  const pid_t pid = start_stepped_writer(t, progress);
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  if (WIFEXITED(status)) {
    CHECK_EQ(WEXITSTATUS(status), 77);
    std::printf("skipped: no ptrace here\n");
    return;
  }
  std::vector<char> last(bytes, bytes + size);
  std::uint64_t instructions = 0;
  int images = 0;
  while (::ptrace(PTRACE_SINGLESTEP, pid, nullptr, nullptr) == 0 && ::waitpid(pid, &status, 0) == pid) {
    if (!WIFSTOPPED(status) || WSTOPSIG(status) == SIGUSR1) break;
    ++instructions;
    if (std::memcmp(last.data(), bytes, size) == 0) continue;
    last.assign(bytes, bytes + size);
    ++images;
    const std::uint32_t done = progress->load();
    check_abandoned(last, states[done], states[std::min<std::size_t>(done + 1, std::size(kSteps))]);
  }
  CHECK_EQ(progress->load(), std::size(kSteps));
  ::kill(pid, SIGKILL);
  CHECK_EQ(exit_status(pid), 128 + SIGKILL);
  CHECK(images > 100);
  std::printf("%llu instructions, %d different deaths\n", static_cast<unsigned long long>(instructions),
              images);
  ::munmap(shared, 4096);
  ::munmap(const_cast<char*>(bytes), size);
}

#endif

TEST(benchmark) {
  Table t = new_table(MountTable::kDefaultCapacity);
  const MountTable reader = new_reader(t);
  std::mt19937_64& rng = check::random();
  std::vector<std::string> mounts;
  while (mounts.size() < 1000) {
    std::string path;
    for (auto depth = 1 + rng() % 5; depth > 0; --depth) path += "/dir" + std::to_string(rng() % 100);
    if (add(t, path, 1) == 0) mounts.push_back(path);
  }
  std::vector<std::string> texts;
  std::vector<NormalPath> paths;
  for (int i = 0; i < 256; ++i) {
    std::string path = mounts[rng() % mounts.size()];
    for (auto depth = std::count(path.begin(), path.end(), '/'); depth < 8; ++depth)
      path += "/sub" + std::to_string(i);
    texts.push_back(path);
    paths.push_back(normal(path));
  }
  constexpr int kRounds = 400 * kScale;
  const auto time = [&](auto&& body) {
    const auto begin = Clock::now();
    for (int round = 0; round < kRounds; ++round) {
      for (std::size_t i = 0; i < paths.size(); ++i) body(i);
    }
    const std::chrono::duration<double, std::nano> taken = Clock::now() - begin;
    return taken.count() / (kRounds * static_cast<double>(paths.size()));
  };
  std::size_t hits = 0;
  MountMatch match;
  NormalPath scratch;
  const double lookup = time([&](std::size_t i) { hits += reader.lookup(paths[i], match) == 0; });
  const double normalising = time([&](std::size_t i) { hits += normalise(texts[i], scratch) == 0; });
  CHECK_EQ(hits, 2 * std::size_t{kRounds} * paths.size());
  std::printf("lookup %.0f ns, normalise %.0f ns (depth 8, 1000 entries)\n", lookup, normalising);
}

CHECK_MAIN()
