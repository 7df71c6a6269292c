// Kernel caches and the fast path: one side changes files by calls of the dispatcher as the fast path makes
// them, the other reads them through a real mount whose kernel believes everything for ten minutes. What is
// read after a change has returned is never older than the change.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <thread>

#include "test/unit/forwarding_libservice.hpp"
#include "test/unit/mount_rig.hpp"

using namespace rig;

namespace {

// Something that has the values 1, 2, 3... one after the other.
struct Cell {
  std::atomic<uint64_t> begun{0}, done{0};
};

// What is watched, one cell each.
enum Kind { kData, kAppended, kSize, kOwner, kName, kMoved, kLinks, kSubdirectories, kKinds };
constexpr const char* kKindNames[]{"data", "appended", "size", "owner", "name", "moved", "links", "subdirs"};
constexpr size_t kSets = 3;

struct Board {
  Cell cells[kSets][kKinds];
  std::atomic<uint64_t> looks[kKinds];
  std::atomic<bool> stop{false};
};

std::string file_of(size_t set, Kind kind) {
  return std::string(kKindNames[kind]) + std::to_string(set);
}

constexpr uint64_t kDataAt = 4990;  // the value lies across two pages

// The changing side. Nodes are looked up once.
class Changer {
 public:
  Changer(MountRig& rig, Board& board, size_t set, size_t mount)
      : rig_(rig), board_(board), set_(set), mount_(mount), random_(check::seed() + set) {
    for (Kind kind : {kData, kAppended, kSize, kOwner, kMoved, kLinks, kSubdirectories})
      nodes_[kind] = rig.node(file_of(set, kind).c_str(), mount);
    for (Kind kind : {kData, kAppended}) {
      Request open = about(Op::open, nodes_[kind]);
      open.flags = O_RDWR;
      Reply reply;
      CHECK_EQ(rig.fast(open, reply, mount), 0);
      files_[kind] = reply.file;
    }
  }
  void run(unsigned milliseconds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
    while (std::chrono::steady_clock::now() < end) {
      const auto kind = static_cast<Kind>(random_() % kKinds);
      Cell& cell = board_.cells[set_][kind];
      const uint64_t value = cell.begun.load() + 1;
      cell.begun.store(value);
      change(kind, value);
      cell.done.store(value);
      if (random_() % 4 == 0) ::usleep(static_cast<unsigned>(random_() % 300));
    }
  }

 private:
  static Request about(Op op, uint64_t node) {
    Request request;
    request.op = op;
    request.node = node;
    return request;
  }
  void go(Request& request) {
    Reply reply;
    if (!CHECK_EQ(rig_.fast(request, reply, mount_), 0)) std::exit(1);
    // On a busy machine it may take longer than a call waits. Nobody is answered before, nor is it done
    // before.
    if (reply.told) CHECK(reply.told->wait(std::chrono::seconds(20)));
  }
  void change(Kind kind, uint64_t value) {
    switch (kind) {
      case kData:
      case kAppended: {
        Request write = about(Op::write, nodes_[kind]);
        write.file = files_[kind];
        write.offset = kind == kData ? kDataAt : 0;
        write.flags = kind == kData ? 0 : O_APPEND;
        write.data = std::as_bytes(std::span(&value, 1));
        return go(write);
      }
      case kSize:
      case kOwner: {
        Request set = about(Op::setattr, nodes_[kind]);
        set.set.mask = kind == kSize ? kSetSize : kSetUid | kSetGid;
        set.set.size = size_of(value);
        set.set.uid = set.set.gid = static_cast<uid_t>(value);
        return go(set);
      }
      case kName:
        return toggle(rig_.instance(mount_).root, file_of(set_, kName), value % 2 != 0, Op::mknod,
                      Op::unlink);
      case kSubdirectories:
        return toggle(nodes_[kind], "sub", value % 2 != 0, Op::mkdir, Op::rmdir);
      case kLinks:
        return link(value % 2 != 0);
      default:
        return rename(value % 2 != 0);
    }
  }
  void toggle(uint64_t dir, const std::string& name, bool present, Op make, Op remove) {
    Request request = about(present ? make : remove, dir);
    request.name = name.c_str();
    request.mode = make == Op::mkdir ? 0755 : S_IFREG | 0644;
    go(request);
  }
  void link(bool second) {
    const std::string name = file_of(set_, kLinks) + ".link";
    if (!second) return toggle(rig_.instance(mount_).root, name, false, Op::mknod, Op::unlink);
    Request request = about(Op::link, nodes_[kLinks]);
    request.node2 = rig_.instance(mount_).root;
    request.name = name.c_str();
    go(request);
  }
  void rename(bool away) {
    const std::string here = file_of(set_, kMoved), there = here + ".away";
    Request request = about(Op::rename, rig_.instance(mount_).root);
    request.node2 = request.node;
    request.name = (away ? here : there).c_str();
    request.name2 = (away ? there : here).c_str();
    go(request);
  }

 public:
  // Grows and shrinks.
  static uint64_t size_of(uint64_t value) { return value % 2 ? value * 16 + 9000 : value * 16 + 100; }

 private:
  MountRig& rig_;
  Board& board_;
  const size_t set_, mount_;
  std::mt19937_64 random_;
  uint64_t nodes_[kKinds]{}, files_[kKinds]{};
};

// The looking side: a process of its own.
class Looker {
 public:
  Looker(Board& board, std::string root, uint64_t seed)
      : board_(board), root_(std::move(root)), random_(seed) {}
  void run() {
    for (size_t set = 0; set < kSets; set++) {
      data_[set] = ::open((root_ + "/" + file_of(set, kData)).c_str(), O_RDONLY | O_CLOEXEC);
      appended_[set] = ::open((root_ + "/" + file_of(set, kAppended)).c_str(), O_RDONLY | O_CLOEXEC);
      CHECK(data_[set] >= 0 && appended_[set] >= 0);
    }
    while (!board_.stop.load()) {
      const size_t set = random_() % kSets;
      const auto kind = static_cast<Kind>(random_() % kKinds);
      Cell& cell = board_.cells[set][kind];
      const uint64_t before = cell.done.load();
      bool parity_only = false;
      const uint64_t seen = look(set, kind, before, parity_only);
      const uint64_t after = cell.begun.load();
      board_.looks[kind].fetch_add(1);
      // Of what only alternates, one value can be told from the next and no more.
      const bool right =
          parity_only ? before != after || seen % 2 == before % 2 : before <= seen && seen <= after;
      if (!CHECK(right)) {
        std::fprintf(stderr, "  %s: %llu, expected %llu to %llu\n", file_of(set, kind).c_str(),
                     static_cast<unsigned long long>(seen), static_cast<unsigned long long>(before),
                     static_cast<unsigned long long>(after));
        return;
      }
    }
  }

 private:
  std::string path(size_t set, Kind kind) { return root_ + "/" + file_of(set, kind); }
  uint64_t look(size_t set, Kind kind, uint64_t before, bool& parity_only) {
    struct stat st {};
    uint64_t value = 0;
    parity_only = kind >= kName;
    switch (kind) {
      case kData:
        CHECK_EQ(::pread(data_[set], &value, sizeof value, kDataAt), sizeof value);
        return value;
      case kAppended:
        return records(appended_[set], before, board_.cells[set][kind]);
      case kSize:
        CHECK_EQ(::stat(path(set, kind).c_str(), &st), 0);
        return value_of_size(static_cast<uint64_t>(st.st_size));
      case kOwner:
        CHECK_EQ(::stat(path(set, kind).c_str(), &st), 0);
        return st.st_uid;
      case kName:
        return ::access(path(set, kind).c_str(), F_OK) == 0;
      case kMoved:
        return random_() % 2 ? ::access(path(set, kind).c_str(), F_OK) != 0
                             : ::access((path(set, kind) + ".away").c_str(), F_OK) == 0;
      default:
        CHECK_EQ(::stat(path(set, kind).c_str(), &st), 0);
        return st.st_nlink - (kind == kLinks ? 1 : 2);
    }
  }
  // Every record is its own number. read(2) may find the end of file where it was if another record is being
  // appended: the kernel does not take the size it has asked for when it is told of a change meanwhile. But
  // it never finds anything else in a record's place.
  static uint64_t records(int fd, uint64_t before, Cell& cell) {
    struct stat st {};
    CHECK_EQ(::fstat(fd, &st), 0);
    const uint64_t count = static_cast<uint64_t>(st.st_size) / 8;
    for (uint64_t record : {before, count}) {
      uint64_t value = 0;
      if (record == 0) continue;
      const ssize_t n = ::pread(fd, &value, sizeof value, static_cast<off_t>(record - 1) * 8);
      if (n == 0)
        CHECK(cell.begun.load() != before);
      else
        CHECK_EQ(value, record);
    }
    return count;
  }
  static uint64_t value_of_size(uint64_t size) {
    if (size == 0) return 0;
    const uint64_t even = (size - 100) / 16, odd = (size - 9000) / 16;
    return (size - 100) % 16 == 0 && even % 2 == 0 ? even : odd;
  }

  Board& board_;
  const std::string root_;
  std::mt19937_64 random_;
  int data_[kSets], appended_[kSets];
};

void prepare(MountRig& rig) {
  for (size_t set = 0; set < kSets; set++) {
    for (Kind kind : {kData, kAppended, kSize, kOwner, kMoved, kLinks}) rig.local.create(file_of(set, kind));
    CHECK_EQ(rig.local.mkdir(file_of(set, kSubdirectories)), 0);
    Ref<Node> data = rig.local.node(file_of(set, kData));
    rig.local.write(*rig.local.open(*data), 0, std::string(20000, '\0'));
  }
}

// Changes through all mounts, and looks at each of them. By one process each: when two ask for attributes at
// once, one may see them marked as valid while the answer to the other is still being copied into the inode
// (fuse_change_attributes_common, fs/fuse/inode.c; stat(2) takes no lock).
void race(size_t mounts, unsigned milliseconds) {
  Shared<Board> board;
  MountRig rig(mounts);
  prepare(rig);
  for (size_t i = 0; i < mounts; i++) {
    rig.client([&, i] { Looker(*board, rig.mounts[i].path, check::seed() + 100 + i).run(); });
  }
  rig.start();
  std::vector<std::thread> threads;
  for (size_t set = 0; set < kSets; set++)
    threads.emplace_back([&, set] { Changer(rig, *board, set, set % mounts).run(milliseconds); });
  for (auto& thread : threads) thread.join();
  board->stop.store(true);
  CHECK(rig.wait());
  for (int kind = 0; kind < kKinds; kind++) {
    uint64_t changes = 0;
    for (auto& set : board->cells) changes += set[kind].done.load();
    std::printf("%zu mounts, %s: %llu changes, %llu looks\n", mounts, kKindNames[kind],
                static_cast<unsigned long long>(changes),
                static_cast<unsigned long long>(board->looks[kind].load()));
    CHECK(changes > 20 && board->looks[kind].load() > 20);
  }
}

// Rounds in which a kernel meets a file for the first time while the fast path changes it. The answer may be
// on its way to the process that asked, and the file not yet known to the kernel, when the kernel is told.
constexpr int kRounds = 4000;
enum Meeting { kLookup, kMissing, kCreate, kList, kMeetings };

struct Meetings {
  std::atomic<int> begun[2]{-1, -1}, done[2]{-1, -1};
};

std::string meeting_name(int round) {
  return "round" + std::to_string(round);
}

void meet(std::atomic<int>* mine, std::atomic<int>* others, int round) {
  mine->store(round);
  for (int i = 0; others->load() < round; i++) {
    if (i > 10'000) ::sched_yield();
  }
}

void spin(std::mt19937_64& random, unsigned most) {
  for (volatile unsigned i = static_cast<unsigned>(random() % most); i > 0;) i = i - 1;
}

void client_meets(Meetings& meetings, const std::string& root) {
  std::mt19937_64 random(check::seed() + 1);
  for (int round = 0; round < kRounds; round++) {
    const std::string path = root + "/" + meeting_name(round);
    struct stat st {};
    meet(&meetings.begun[0], &meetings.begun[1], round);
    spin(random, 20'000);
    const auto meeting = static_cast<Meeting>(round % kMeetings);
    if (meeting == kCreate)
      CHECK(::close(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600)) == 0);
    else if (meeting == kList)
      for ([[maybe_unused]] auto& entry : std::filesystem::directory_iterator(path)) continue;
    else
      (void)::stat(path.c_str(), &st);
    meet(&meetings.done[0], &meetings.done[1], round);
    CHECK_EQ(::stat((path + (meeting == kList ? "/f" : "")).c_str(), &st), 0);
    if (meeting != kMissing && !CHECK_EQ(st.st_uid, 1000 + round))
      std::fprintf(stderr, "  round %d, meeting %d\n", round, meeting);
  }
}

void server_meets(MountRig& rig, Meetings& meetings) {
  std::mt19937_64 random(check::seed() + 2);
  for (int round = 0; round < kRounds; round++) {
    const auto meeting = static_cast<Meeting>(round % kMeetings);
    const std::string name = meeting_name(round);
    Request request;
    Reply reply;
    request.op = Op::mknod;
    request.node = rig.instance().root;
    request.name = name.c_str();
    request.mode = S_IFREG | 0644;
    if (meeting != kMissing && meeting != kCreate) {
      request.op = Op::setattr;
      request.node = meeting == kList ? rig.node_in(rig.node(name.c_str()), "f") : rig.node(name.c_str());
    }
    request.set.mask = kSetUid;
    request.set.uid = static_cast<uid_t>(1000 + round);
    meet(&meetings.begun[1], &meetings.begun[0], round);
    spin(random, 20'000);
    if (meeting == kCreate) {
      request.op = Op::setattr;
      while ((request.node = rig.node(name.c_str())) == 0) continue;
    }
    CHECK_EQ(rig.fast(request, reply), 0);
    meet(&meetings.done[1], &meetings.done[0], round);
  }
}

// A number in a file, counted up under a lock through two mounts.
constexpr int kCounts = 3000;

void count_up(const std::string& root, bool posix) {
  const int fd = ::open((root + "/counter").c_str(), O_RDWR | O_CLOEXEC);
  struct flock lock {};
  for (int i = 0; i < kCounts; i++) {
    lock.l_type = F_WRLCK;
    CHECK_EQ(posix ? ::fcntl(fd, F_SETLKW, &lock) : ::flock(fd, LOCK_EX), 0);
    uint64_t value = 0;
    CHECK_EQ(::pread(fd, &value, sizeof value, 0), sizeof value);
    value++;
    CHECK_EQ(::pwrite(fd, &value, sizeof value, 0), sizeof value);
    lock.l_type = F_UNLCK;
    CHECK_EQ(posix ? ::fcntl(fd, F_SETLKW, &lock) : ::flock(fd, LOCK_UN), 0);
  }
  ::close(fd);
}

void check_counter(MountRig& rig, uint64_t expected) {
  uint64_t value = 0;
  Ref<Node> counter = rig.local.node("counter");
  CHECK_EQ(rig.local.fs->read(*rig.local.open(*counter), 0, std::as_writable_bytes(std::span(&value, 1))),
           sizeof value);
  CHECK_EQ(value, expected);
}

// Records that are longer than a page and not aligned to any.
constexpr size_t kRecord = 9001;
constexpr int kRecords = 400;

void append_records(const std::string& root, char letter) {
  const int fd = ::open((root + "/log").c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  const std::string record(kRecord, letter);
  for (int i = 0; i < kRecords; i++) CHECK_EQ(::write(fd, record.data(), record.size()), record.size());
  ::close(fd);
}

}  // namespace

TEST(what_a_mount_shows_is_never_older_than_a_change_that_returned) {
  race(1, 6000);
}

TEST(nor_is_what_another_mount_of_the_libservice_shows) {
  race(2, 6000);
}

TEST(nor_when_a_kernel_meets_a_file_for_the_first_time) {
  Shared<Meetings> meetings;
  MountRig rig;
  for (int round = 0; round < kRounds; round++) {
    const std::string name = meeting_name(round);
    if (round % kMeetings == kLookup) rig.local.create(name);
    if (round % kMeetings == kList) {
      CHECK_EQ(rig.local.mkdir(name), 0);
      rig.local.create(name + "/f");
    }
  }
  rig.client([&] { client_meets(*meetings, rig.mounts[0].path); });
  rig.start();
  server_meets(rig, *meetings);
  CHECK(rig.wait());
}

TEST(a_lock_is_granted_behind_the_changes_made_before) {
  for (bool posix : {true, false}) {
    MountRig rig(2);
    rig.local.write(*rig.local.create("counter"), 0, std::string(8, '\0'));
    for (auto& mount : rig.mounts) rig.client([&] { count_up(mount.path, posix); });
    rig.start();
    CHECK(rig.wait());
    check_counter(rig, 2 * kCounts);
  }
}

TEST(appends_of_two_mounts_are_whole) {
  MountRig rig(2);
  rig.local.create("log");
  for (size_t i = 0; i < 2; i++)
    rig.client([&, i] { append_records(rig.mounts[i].path, i == 0 ? 'a' : 'b'); });
  rig.start();
  CHECK(rig.wait());
  Ref<Node> log = rig.local.node("log");
  const std::string all = rig.local.read(*rig.local.open(*log), 0, 3 * kRecords * kRecord);
  CHECK_EQ(all.size(), 2 * kRecords * kRecord);
  size_t torn = 0;
  for (size_t at = 0; at < all.size(); at += kRecord)
    torn += all.substr(at, kRecord) != std::string(kRecord, all[at]);
  CHECK_EQ(torn, 0);
}

CHECK_MAIN()
