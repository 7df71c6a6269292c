// The lock table against a model, its waits, deadlocks, restarts, and threads that hammer it.
#include "native/core/lock_table.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "test/unit/check.hpp"
#include "test/unit/stub_libservice.hpp"

using namespace rig;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kScale = 1;
#else
constexpr int kScale = 5;
#endif

constexpr uint64_t kEnd = INT64_MAX;

// Keeps the ends of parked waits in the order in which they come.
class Log final : public LockCompletion {
 public:
  void lock_completed(uint32_t instance, uint64_t request, int result) override {
    std::lock_guard guard(lock_);
    ends_.push_back(std::to_string(instance) + ":" + std::to_string(request) + "=" + std::to_string(result));
  }
  // What came since the last take(), like "1:7=0 1:8=-4".
  std::string take() {
    std::lock_guard guard(lock_);
    std::string all;
    for (auto& end : ends_) all += (all.empty() ? "" : " ") + end;
    ends_.clear();
    return all;
  }

 private:
  std::mutex lock_;
  std::vector<std::string> ends_;
};

// One service's life: the tables over a memfd that lives longer.
struct Life {
  explicit Life(NumberedLibservice& libservice, int memfd) : libservice(libservice) {
    REQUIRE(pool.map(memfd) == 0);
    nodes = std::make_unique<NodeTable>(pool);
    locks = std::make_unique<LockTable>(pool, log);
  }
  void restore(uint32_t instance) {
    nodes->restore(libservice, instance);
    locks->restore(*nodes, instance);
  }
  // The number's node, remembered once per life by the instance.
  Ref<Node> node(uint64_t number, uint32_t instance = 1) {
    Ref<Node> node = libservice.at(number);
    if (nodes->id_in(*node, instance) == 0) {
      uint64_t id;
      REQUIRE(nodes->remember(libservice, instance, *node, id) == 0);
    }
    return node;
  }

  NumberedLibservice& libservice;
  PoolMemory pool;
  Log log;
  std::unique_ptr<NodeTable> nodes;
  std::unique_ptr<LockTable> locks;
};

struct Rig {
  Rig() {
    REQUIRE(PoolMemory::create(memfd) == 0);
    life = std::make_unique<Life>(libservice, memfd.get());
  }
  void restart() {
    life.reset();
    life = std::make_unique<Life>(libservice, memfd.get());
  }
  LockOwner posix(uint64_t id, uint32_t instance = 1) { return {instance, id, LockKind::kPosix}; }
  LockOwner whole(uint64_t id, uint32_t instance = 1) { return {instance, id, LockKind::kFlock}; }

  int set(uint64_t number, LockOwner owner, int type, uint64_t start, uint64_t end, bool wait = false,
          uint64_t request = 0, uint64_t file = 99) {
    Ref<Node> node = life->node(number, owner.instance);
    return life->locks->set(*node, life->nodes->id_in(*node, owner.instance), file, owner,
                            {start, end, type, static_cast<pid_t>(owner.id)}, wait, request);
  }
  void release(uint64_t number, LockOwner owner) {
    life->locks->release_owner(*life->node(number, owner.instance), owner);
  }
  // "U", or what stands in the way: "R 0-9 pid".
  std::string test(uint64_t number, LockOwner owner, int type, uint64_t start, uint64_t end) {
    LockRange range{start, end, type, 0};
    life->locks->test(*life->node(number, owner.instance), owner, range);
    if (range.type == F_UNLCK) return "U";
    return std::string(range.type == F_RDLCK ? "R " : "W ") + std::to_string(range.start) + "-" +
           std::to_string(range.end) + " " + std::to_string(range.pid);
  }
  std::string counts(uint32_t instance = 1) {
    uint64_t held, parked;
    life->locks->count(instance, held, parked);
    return std::to_string(held) + "/" + std::to_string(parked);
  }
  std::string ends() { return life->log.take(); }

  NumberedLibservice libservice;
  Fd memfd;
  std::unique_ptr<Life> life;
};

// Bytes of one file, and what each owner holds on each.
constexpr uint64_t kBytes = 24;
constexpr uint64_t kOwners = 4;
struct Model {
  int held[kOwners + 1][kBytes];
  Model() {
    for (auto& row : held) std::fill(std::begin(row), std::end(row), F_UNLCK);
  }
  bool conflict(uint64_t owner, int type, uint64_t start, uint64_t end) const {
    if (type == F_UNLCK) return false;
    for (uint64_t other = 1; other <= kOwners; other++) {
      if (other == owner) continue;
      for (uint64_t at = start; at <= std::min(end, kBytes - 1); at++) {
        if (held[other][at] == F_WRLCK || (type == F_WRLCK && held[other][at] == F_RDLCK)) return true;
      }
    }
    return false;
  }
  void set(uint64_t owner, int type, uint64_t start, uint64_t end) {
    for (uint64_t at = start; at <= std::min(end, kBytes - 1); at++) held[owner][at] = type;
  }
  uint64_t runs() const {  // stretches of one type by one owner: what the table should hold, no more
    uint64_t n = 0;
    for (uint64_t owner = 1; owner <= kOwners; owner++) {
      for (uint64_t at = 0; at < kBytes; at++)
        n += held[owner][at] != F_UNLCK && (at == 0 || held[owner][at] != held[owner][at - 1]);
    }
    return n;
  }
};

// Every byte of the file as the table sees it, through an owner that holds nothing and through each that
// does.
void compare(Rig& rig, const Model& model) {
  for (uint64_t at = 0; at < kBytes; at++) {
    for (uint64_t owner = 0; owner <= kOwners; owner++) {
      for (int type : {F_RDLCK, F_WRLCK}) {
        const uint64_t end = at + 1 == kBytes ? kEnd : at;
        CHECK_EQ(rig.test(1, rig.posix(owner), type, at, end) != "U", model.conflict(owner, type, at, end));
      }
    }
  }
  CHECK_EQ(rig.counts(), std::to_string(model.runs()) + "/0");
}

}  // namespace

TEST(posix_ranges_against_a_model) {
  auto& rng = check::random();
  for (int round = 0; round < 8 * kScale; round++) {
    Rig rig;
    Model model;
    for (int step = 0; step < 120; step++) {
      const uint64_t owner = 1 + rng() % kOwners, start = rng() % kBytes;
      uint64_t end = start + rng() % (kBytes - start);
      if (end + 1 == kBytes) end = kEnd;             // to the end of any file
      const int type = static_cast<int>(rng() % 3);  // F_RDLCK 0, F_WRLCK 1, F_UNLCK 2
      const bool refused = model.conflict(owner, type, start, end);
      REQUIRE(rig.set(1, rig.posix(owner), type, start, end) == (refused ? -EAGAIN : 0));
      if (!refused) model.set(owner, type, start, end);
      if (rng() % 40 == 0) {
        rig.release(1, rig.posix(owner));
        model.set(owner, F_UNLCK, 0, kEnd);
      }
      if (rng() % 30 == 0) {
        rig.restart();
        rig.life->restore(1);
      }
      if (step % 10 == 0) compare(rig, model);
    }
    compare(rig, model);
    for (uint64_t owner = 1; owner <= kOwners; owner++) rig.release(1, rig.posix(owner));
    CHECK_EQ(rig.counts(), "0/0");
  }
}

TEST(split_merge_upgrade) {
  Rig rig;
  CHECK_EQ(rig.set(1, rig.posix(1), F_WRLCK, 0, 99), 0);
  CHECK_EQ(rig.set(1, rig.posix(1), F_UNLCK, 40, 59), 0);
  CHECK_EQ(rig.counts(), "2/0");
  CHECK_EQ(rig.test(1, rig.posix(2), F_RDLCK, 40, 59), "U");
  CHECK_EQ(rig.test(1, rig.posix(2), F_RDLCK, 0, kEnd), "W 0-39 1");
  CHECK_EQ(rig.test(1, rig.posix(2), F_RDLCK, 41, kEnd), "W 60-99 1");
  CHECK_EQ(rig.set(1, rig.posix(1), F_RDLCK, 20, 79), 0);
  CHECK_EQ(rig.counts(), "3/0");
  CHECK_EQ(rig.set(1, rig.posix(1), F_WRLCK, 20, 79), 0);  // neighbours of one type join
  CHECK_EQ(rig.counts(), "1/0");
  CHECK_EQ(rig.test(1, rig.posix(2), F_RDLCK, 50, 50), "W 0-99 1");
  CHECK_EQ(rig.set(1, rig.posix(1), F_WRLCK, 100, kEnd), 0);
  CHECK_EQ(rig.test(1, rig.posix(2), F_RDLCK, 7, 7), "W 0-" + std::to_string(kEnd) + " 1");
  CHECK_EQ(rig.set(1, rig.posix(1), F_UNLCK, 0, 0), 0);
  CHECK_EQ(rig.set(1, rig.posix(1), F_UNLCK, kEnd, kEnd), 0);
  CHECK_EQ(rig.test(1, rig.posix(2), F_RDLCK, 0, kEnd), "W 1-" + std::to_string(kEnd - 1) + " 1");
  CHECK_EQ(rig.set(1, rig.posix(1), F_UNLCK, 0, kEnd), 0);
  CHECK_EQ(rig.counts(), "0/0");
  CHECK_EQ(rig.set(1, rig.posix(1), F_UNLCK, 5, 6), 0);  // of nothing
}

TEST(kinds_and_files_do_not_meet) {
  Rig rig;
  CHECK_EQ(rig.set(1, rig.posix(1), F_WRLCK, 0, kEnd), 0);
  CHECK_EQ(rig.set(1, rig.whole(2), F_WRLCK, 0, kEnd), 0);
  CHECK_EQ(rig.set(2, rig.posix(3), F_WRLCK, 0, kEnd), 0);
  CHECK_EQ(rig.set(1, rig.posix(3), F_RDLCK, 0, 0), -EAGAIN);
  CHECK_EQ(rig.set(1, rig.whole(3), F_RDLCK, 0, kEnd), -EAGAIN);
  CHECK_EQ(rig.set(1, rig.posix(1, 2), F_RDLCK, 0, 0),
           -EAGAIN);  // the same number in another instance is another owner
  CHECK_EQ(rig.counts(), "3/0");
  CHECK_EQ(rig.counts(2), "0/0");
}

TEST(the_last_close_ends_what_was_locked_through_a_file) {
  Rig rig;
  CHECK_EQ(rig.set(1, rig.posix(1), F_WRLCK, 0, 9, false, 0, 70), 0);
  CHECK_EQ(rig.set(1, rig.posix(2), F_WRLCK, 10, 19, false, 0, 71), 0);
  CHECK_EQ(rig.set(1, rig.posix(3), F_WRLCK, 0, 5, true, 500), LockTable::kParked);
  rig.life->locks->release_file(*rig.life->node(1), 70);
  CHECK_EQ(rig.ends(), "1:500=0");
  CHECK_EQ(rig.test(1, rig.posix(9), F_RDLCK, 10, 10), "W 10-19 2");
}

TEST(waits_are_granted_in_order) {
  Rig rig;
  CHECK_EQ(rig.set(1, rig.posix(1), F_WRLCK, 0, 9), 0);
  CHECK_EQ(rig.set(1, rig.posix(2), F_WRLCK, 5, 9, true, 20), LockTable::kParked);
  CHECK_EQ(rig.set(1, rig.posix(3), F_RDLCK, 0, 4, true, 30), LockTable::kParked);
  CHECK_EQ(rig.set(1, rig.posix(4), F_RDLCK, 4, 4, true, 40), LockTable::kParked);
  CHECK_EQ(rig.set(1, rig.posix(5), F_WRLCK, 4, 4, true, 50), LockTable::kParked);
  CHECK_EQ(rig.counts(), "1/4");
  CHECK_EQ(rig.ends(), "");
  CHECK_EQ(rig.set(1, rig.posix(1), F_UNLCK, 0, 3), 0);  // not enough for anybody
  CHECK_EQ(rig.ends(), "");
  CHECK_EQ(rig.set(1, rig.posix(1), F_RDLCK, 4, 9), 0);  // enough for the readers
  CHECK_EQ(rig.ends(), "1:30=0 1:40=0");
  rig.release(1, rig.posix(1));
  CHECK_EQ(rig.ends(), "1:20=0");
  CHECK_EQ(rig.set(1, rig.posix(3), F_UNLCK, 0, kEnd), 0);
  CHECK_EQ(rig.ends(), "");
  rig.release(1, rig.posix(4));
  CHECK_EQ(rig.ends(), "1:50=0");
  CHECK_EQ(rig.test(1, rig.posix(9), F_RDLCK, 4, 4), "W 4-4 5");
  CHECK_EQ(rig.counts(), "2/0");
}

TEST(first_come_first_served_among_writers) {
  Rig rig;
  CHECK_EQ(rig.set(1, rig.posix(1), F_WRLCK, 0, kEnd), 0);
  for (uint64_t owner = 2; owner < 12; owner++)
    CHECK_EQ(rig.set(1, rig.posix(owner), F_WRLCK, 0, kEnd, true, owner), LockTable::kParked);
  for (uint64_t owner = 1; owner < 11; owner++) {
    rig.release(1, rig.posix(owner));
    CHECK_EQ(rig.ends(), "1:" + std::to_string(owner + 1) + "=0");
  }
}

TEST(cancel_ends_a_wait_once) {
  Rig rig;
  CHECK_EQ(rig.set(1, rig.posix(1), F_WRLCK, 0, kEnd), 0);
  CHECK_EQ(rig.set(1, rig.posix(2), F_WRLCK, 0, kEnd, true, 20), LockTable::kParked);
  CHECK_EQ(rig.set(1, rig.posix(3), F_WRLCK, 0, kEnd, true, 30), LockTable::kParked);
  CHECK(!rig.life->locks->cancel(1, 99));
  CHECK(!rig.life->locks->cancel(2, 20));
  CHECK(rig.life->locks->cancel(1, 20));
  CHECK(!rig.life->locks->cancel(1, 20));
  CHECK_EQ(rig.ends(), "1:20=-4");
  rig.release(1, rig.posix(1));
  CHECK_EQ(rig.ends(), "1:30=0");
  CHECK(!rig.life->locks->cancel(1, 30));
  CHECK_EQ(rig.counts(), "1/0");
}

TEST(deadlocks_over_several_files) {
  Rig rig;
  for (uint64_t owner = 1; owner <= 5; owner++) CHECK_EQ(rig.set(owner, rig.posix(owner), F_WRLCK, 0, 9), 0);
  for (uint64_t owner = 1; owner <= 4; owner++)
    CHECK_EQ(rig.set(owner + 1, rig.posix(owner), F_RDLCK, 3, 3, true, owner), LockTable::kParked);
  CHECK_EQ(rig.set(1, rig.posix(5), F_WRLCK, 9, 9, true, 5), -EDEADLK);
  CHECK_EQ(rig.set(1, rig.posix(5), F_WRLCK, 10, 10, true, 5), 0);  // beside the lock
  CHECK_EQ(rig.set(1, rig.posix(5), F_WRLCK, 9, 9, false), -EAGAIN);
  CHECK(rig.life->locks->cancel(1, 2));  // the chain is broken
  CHECK_EQ(rig.ends(), "1:2=-4");
  CHECK_EQ(rig.set(1, rig.posix(5), F_WRLCK, 9, 9, true, 5), LockTable::kParked);
  rig.release(1, rig.posix(1));
  CHECK_EQ(rig.ends(), "1:5=0");
}

// The other holders of a shared lock are waited for too, and the circle may close through any of them.
TEST(a_deadlock_through_the_second_holder) {
  for (uint64_t partner : {1, 2, 3}) {
    Rig rig;
    for (uint64_t owner : {1, 2, 3}) CHECK_EQ(rig.set(1, rig.posix(owner), F_RDLCK, owner, 20), 0);
    CHECK_EQ(rig.set(2, rig.posix(4), F_WRLCK, 0, 0), 0);
    CHECK_EQ(rig.set(2, rig.posix(partner), F_RDLCK, 0, 0, true, 10), LockTable::kParked);
    CHECK_EQ(rig.set(1, rig.posix(4), F_WRLCK, 0, kEnd, true, 40), -EDEADLK);
  }
}

TEST(two_upgraders_deadlock) {
  Rig rig;
  CHECK_EQ(rig.set(1, rig.posix(1), F_RDLCK, 0, 0), 0);
  CHECK_EQ(rig.set(1, rig.posix(2), F_RDLCK, 0, 0), 0);
  CHECK_EQ(rig.set(1, rig.posix(1), F_WRLCK, 0, 0, true, 1), LockTable::kParked);
  CHECK_EQ(rig.set(1, rig.posix(2), F_WRLCK, 0, 0, true, 2), -EDEADLK);
  rig.release(1, rig.posix(2));
  CHECK_EQ(rig.ends(), "1:1=0");
}

// A long chain is no excuse, and many ways through a short one must not cost their number.
TEST(deadlock_search_is_thorough_and_quick) {
  Rig rig;
  constexpr uint64_t kLong = 40;
  for (uint64_t owner = 1; owner <= kLong; owner++)
    CHECK_EQ(rig.set(owner, rig.posix(owner), F_WRLCK, 0, 0), 0);
  for (uint64_t owner = 1; owner < kLong; owner++)
    CHECK_EQ(rig.set(owner + 1, rig.posix(owner), F_WRLCK, 0, 0, true, owner), LockTable::kParked);
  CHECK_EQ(rig.set(1, rig.posix(kLong), F_WRLCK, 0, 0, true, 1), -EDEADLK);

  Rig layered;  // eight layers of eight owners who all wait for all of the next layer
  for (uint64_t layer = 0; layer < 9; layer++) {
    for (uint64_t i = 0; i < 8; i++)
      CHECK_EQ(layered.set(layer + 1, layered.posix(100 * (layer + 1) + i), F_RDLCK, 0, 0), 0);
  }
  for (uint64_t layer = 8; layer-- > 0;) {
    for (uint64_t i = 0; i < 8; i++)
      CHECK_EQ(
          layered.set(layer + 2, layered.posix(100 * (layer + 1) + i), F_WRLCK, 0, 0, true, 100 * layer + i),
          LockTable::kParked);
  }
  CHECK_EQ(layered.set(1, layered.posix(7), F_WRLCK, 0, 0, true, 7), LockTable::kParked);
}

// flock(2): a conversion first gives up the lock that is held. Compared with the host, step by step.
TEST(flock_conversions_as_on_the_host) {
  char path[] = "/tmp/poly-flock-XXXXXX";
  const Fd first(::mkstemp(path));
  const Fd second(::open(path, O_RDWR | O_CLOEXEC)), third(::open(path, O_RDWR | O_CLOEXEC));
  ::unlink(path);
  const int fds[]{first.get(), second.get(), third.get()};
  auto& rng = check::random();
  Rig rig;
  for (int step = 0; step < 300 * kScale; step++) {
    const uint64_t owner = rng() % 3;
    const int type = static_cast<int>(rng() % 3);
    const int host = ::flock(fds[owner], (type == F_RDLCK   ? LOCK_SH
                                          : type == F_WRLCK ? LOCK_EX
                                                            : LOCK_UN) |
                                             LOCK_NB);
    const int expected = host == 0 ? 0 : -errno;
    REQUIRE(rig.set(1, rig.whole(owner + 1), type, 0, kEnd) == expected);
  }
}

TEST(two_flock_converters_do_not_hang) {
  Rig rig;
  CHECK_EQ(rig.set(1, rig.whole(1), F_RDLCK, 0, kEnd), 0);
  CHECK_EQ(rig.set(1, rig.whole(2), F_RDLCK, 0, kEnd), 0);
  CHECK_EQ(rig.set(1, rig.whole(1), F_WRLCK, 0, kEnd, true, 1), LockTable::kParked);
  CHECK_EQ(rig.set(1, rig.whole(2), F_WRLCK, 0, kEnd, true, 2), LockTable::kParked);
  CHECK_EQ(rig.ends(), "1:1=0");  // for the second gave up its shared lock
  rig.release(1, rig.whole(1));
  CHECK_EQ(rig.ends(), "1:2=0");
  CHECK_EQ(rig.counts(), "1/0");
}

TEST(an_instance_goes_with_its_locks_and_waits) {
  Rig rig;
  CHECK_EQ(rig.set(1, rig.posix(1, 1), F_WRLCK, 0, 9), 0);
  CHECK_EQ(rig.set(2, rig.posix(1, 1), F_WRLCK, 0, 9), 0);
  CHECK_EQ(rig.set(1, rig.posix(1, 2), F_WRLCK, 5, 9, true, 21), LockTable::kParked);
  CHECK_EQ(rig.set(2, rig.posix(2, 1), F_WRLCK, 5, 9, true, 22), LockTable::kParked);
  CHECK_EQ(rig.counts(1), "2/1");
  CHECK_EQ(rig.counts(2), "0/1");
  rig.life->locks->drop_instance(1);
  CHECK_EQ(rig.ends(), "2:21=0");
  CHECK_EQ(rig.counts(1), "0/0");
  CHECK_EQ(rig.counts(2), "1/0");
  CHECK_EQ(rig.test(2, rig.posix(1, 2), F_WRLCK, 0, kEnd), "U");
}

TEST(locks_outlive_the_service) {
  Rig rig;
  CHECK_EQ(rig.set(1, rig.posix(1), F_WRLCK, 0, 9, false, 0, 70), 0);
  CHECK_EQ(rig.set(2, rig.whole(2), F_RDLCK, 0, kEnd), 0);
  CHECK_EQ(rig.set(1, rig.posix(5, 2), F_RDLCK, 50, 59), 0);
  CHECK_EQ(rig.set(1, rig.posix(3), F_WRLCK, 0, 0, true, 30), LockTable::kParked);
  for (int restarts = 0; restarts < 3; restarts++) {
    rig.restart();
    CHECK_EQ(rig.counts(1), "0/0");
    rig.life->restore(1);
    rig.life->restore(2);
    CHECK_EQ(rig.counts(1), "2/0");  // the waiter asks again
    CHECK_EQ(rig.counts(2), "1/0");
    CHECK_EQ(rig.test(1, rig.posix(9), F_RDLCK, 0, 5), "W 0-9 1");
    CHECK_EQ(rig.test(2, rig.whole(9), F_WRLCK, 0, 5), "R 0-" + std::to_string(kEnd) + " 2");
    CHECK_EQ(rig.test(1, rig.posix(1), F_WRLCK, 50, 50), "R 50-59 5");
  }
  CHECK_EQ(rig.set(1, rig.posix(3), F_WRLCK, 0, 0, true, 30), LockTable::kParked);
  rig.life->locks->release_file(*rig.life->node(1), 70);
  CHECK_EQ(rig.ends(), "1:30=0");
}

// The pieces of a split are recorded before the lock they come from goes: after a death in between both are
// there, and the request that is asked again clears it up.
TEST(a_death_amid_a_split_locks_too_much_not_too_little) {
  Rig rig;
  CHECK_EQ(rig.set(1, rig.posix(1), F_WRLCK, 0, 99), 0);
  CHECK_EQ(rig.set(1, rig.posix(1), F_UNLCK, 40, 59), 0);
  for (uint32_t i = 0; i < rig.life->pool.header->locks_used.load(); i++) {
    LockRecord& record = rig.life->pool.locks[i];
    if (record.start == 0 && record.end == 99) record.state.fetch_or(1);  // as if it had not gone yet
  }
  rig.restart();
  rig.life->restore(1);
  CHECK_EQ(rig.counts(), "3/0");
  CHECK_EQ(rig.test(1, rig.posix(2), F_RDLCK, 50, 50), "W 0-99 1");
  CHECK_EQ(rig.set(1, rig.posix(1), F_UNLCK, 40, 59), 0);
  CHECK_EQ(rig.test(1, rig.posix(2), F_RDLCK, 40, 59), "U");
  CHECK_EQ(rig.test(1, rig.posix(2), F_RDLCK, 39, 39).substr(0, 1), "W");
  CHECK_EQ(rig.test(1, rig.posix(2), F_RDLCK, 60, 60).substr(0, 1), "W");
  rig.release(1, rig.posix(1));
  CHECK_EQ(rig.counts(), "0/0");
  CHECK_EQ(rig.test(1, rig.posix(2), F_WRLCK, 0, kEnd), "U");
}

TEST(locks_of_lost_nodes_go) {
  Rig rig;
  CHECK_EQ(rig.set(1, rig.posix(1), F_WRLCK, 0, 9), 0);
  rig.restart();
  rig.libservice.forgetful = true;
  rig.life->restore(1);
  rig.libservice.forgetful = false;
  CHECK_EQ(rig.counts(), "0/0");
  CHECK_EQ(rig.life->pool.locks[0].state.load() & 1, 0);
}

TEST(records_are_used_again) {
  Rig rig;
  for (int i = 0; i < 1000; i++) {
    CHECK_EQ(rig.set(1, rig.posix(1), F_WRLCK, 0, 99), 0);
    CHECK_EQ(rig.set(1, rig.posix(1), F_UNLCK, 50, 59), 0);
    rig.release(1, rig.posix(1));
  }
  CHECK(rig.life->pool.header->locks_used.load() <= 4);
  // A node nobody locks is not held.
  Ref<Node> node = rig.life->node(1);
  const uint64_t id = rig.life->nodes->id_in(*node, 1);
  node = nullptr;
  rig.life->nodes->forget(1, id, 1);
  CHECK_EQ(rig.libservice.alive(), 0);
}

// Many files with a few locks each fill the table: ENOLCK, and nothing is half done.
TEST(a_full_table_changes_nothing) {
  Rig rig;
  constexpr uint64_t kPerFile = 64;
  uint64_t locks = 0;
  for (uint64_t file = 1; locks < PoolMemory::kLocks - 1; file++) {
    const Ref<Node> node = rig.life->node(file);
    const uint64_t id = rig.life->nodes->id_in(*node, 1);
    for (uint64_t i = 0; i < kPerFile && locks < PoolMemory::kLocks - 1; i++, locks++)
      REQUIRE(rig.life->locks->set(*node, id, 0, rig.posix(1), {i * 10, i * 10 + 4, F_WRLCK, 1}, false, 0) ==
              0);
  }
  const std::string full = std::to_string(PoolMemory::kLocks - 1) + "/0";
  CHECK_EQ(rig.counts(), full);
  // Two new pieces where one record is left.
  CHECK_EQ(rig.set(1, rig.posix(1), F_UNLCK, 2, 2), -ENOLCK);
  CHECK_EQ(rig.counts(), full);
  CHECK_EQ(rig.test(1, rig.posix(2), F_RDLCK, 2, 2), "W 0-4 1");
  CHECK_EQ(rig.set(1, rig.posix(1), F_WRLCK, 5000, 5000), 0);
  CHECK_EQ(rig.set(1, rig.posix(1), F_WRLCK, 6000, 6000), -ENOLCK);
  CHECK_EQ(rig.set(1, rig.posix(1), F_UNLCK, 0, 4), 0);
  CHECK_EQ(rig.set(1, rig.posix(1), F_WRLCK, 6000, 6000), 0);
}

namespace {

// A completion that wakes the thread which waits.
class Gate final : public LockCompletion {
 public:
  void lock_completed(uint32_t, uint64_t request, int result) override {
    std::lock_guard guard(lock_);
    ended_[request] = result;
    changed_.notify_all();
  }
  int wait(uint64_t request) {
    std::unique_lock guard(lock_);
    changed_.wait(guard, [&] { return ended_.contains(request); });
    const int result = ended_[request];
    ended_.erase(request);
    return result;
  }
  size_t unclaimed() {
    std::lock_guard guard(lock_);
    return ended_.size();
  }

 private:
  std::mutex lock_;
  std::condition_variable changed_;
  std::map<uint64_t, int> ended_;
};

// What the locks protect: a writer must be alone, readers never meet a writer.
struct Protected {
  std::atomic<int> readers{0}, writers{0};
};

}  // namespace

TEST(threads_exclude_each_other) {
  constexpr int kThreads = 6, kFiles = 3;
  Fd memfd;
  REQUIRE(PoolMemory::create(memfd) == 0);
  PoolMemory pool;
  REQUIRE(pool.map(memfd.get()) == 0);
  NumberedLibservice libservice;
  NodeTable nodes(pool);
  Gate gate;
  LockTable locks(pool, gate);
  Ref<Node> files[kFiles];
  uint64_t ids[kFiles];
  for (int i = 0; i < kFiles; i++) {
    files[i] = libservice.at(static_cast<uint64_t>(i));
    REQUIRE(nodes.remember(libservice, 1, *files[i], ids[i]) == 0);
  }
  Protected protected_[kFiles];
  std::atomic<uint64_t> next_request{1}, wrong{0}, granted{0}, ended{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; t++) {
    threads.emplace_back([&, t] {
      std::mt19937_64 rng(check::seed() + static_cast<uint64_t>(t));
      const LockOwner owner{1, static_cast<uint64_t>(t + 1), LockKind::kPosix};
      for (int i = 0; i < 1500 * kScale; i++) {
        const auto f = rng() % kFiles;
        const int type = rng() % 3 == 0 ? F_WRLCK : F_RDLCK;
        const uint64_t request = next_request.fetch_add(1);
        int result = locks.set(*files[f], ids[f], 0, owner, {0, kEnd, type, t}, rng() % 2 == 0, request);
        if (result == LockTable::kParked) {
          if (rng() % 4 == 0) (void)locks.cancel(1, request);
          result = gate.wait(request);
        }
        if (result != 0) {
          if (result != -EAGAIN && result != -EINTR) wrong++;
          ended++;
          continue;
        }
        granted++;
        Protected& p = protected_[f];
        if (type == F_WRLCK) {
          if (p.writers.fetch_add(1) != 0 || p.readers.load() != 0) wrong++;
          p.writers.fetch_sub(1);
        } else {
          p.readers.fetch_add(1);
          if (p.writers.load() != 0) wrong++;
          p.readers.fetch_sub(1);
        }
        if (rng() % 2 == 0)
          locks.release_owner(*files[f], owner);
        else
          (void)!locks.set(*files[f], ids[f], 0, owner, {0, kEnd, F_UNLCK, t}, false, 0);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0);
  CHECK(granted.load() > 0);
  CHECK_EQ(gate.unclaimed(), 0);
  uint64_t held, parked;
  locks.count(1, held, parked);
  CHECK_EQ(held, 0);
  CHECK_EQ(parked, 0);
  std::printf("%llu granted, %llu refused or cancelled\n", static_cast<unsigned long long>(granted.load()),
              static_cast<unsigned long long>(ended.load()));
}

CHECK_MAIN()
