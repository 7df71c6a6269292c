// Waits for locks that the backend keeps: how each can end.
#include "native/core/lower_locks.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>

#include "test/unit/check.hpp"

using namespace poly;

namespace {

// A backend that is asked again and again, and who hears what became of it.
struct Rig {
  std::atomic<int> answer{-EAGAIN};
  std::atomic<int> attempts{0};
  std::mutex lock;
  std::condition_variable told;
  std::vector<std::pair<uint64_t, int>> ends;  // guarded by lock: request, result
  LowerLocks locks{[this](LowerLocks::Wanted&) {
                     attempts++;
                     return answer.load();
                   },
                   [this](const LowerLocks::Wanted& wanted, int result) {
                     std::lock_guard guard(lock);
                     ends.emplace_back(wanted.request, result);
                     told.notify_all();
                   }};

  static LowerLocks::Wanted wanted(uint32_t instance, uint64_t request) {
    LowerLocks::Wanted wanted;
    wanted.instance = instance;
    wanted.request = request;
    return wanted;
  }
  // The result of the request, once it has one.
  int end_of(uint64_t request) {
    std::unique_lock guard(lock);
    const auto mine = [&](const auto& end) { return end.first == request; };
    const auto there = [&] { return std::ranges::any_of(ends, mine); };
    if (!told.wait_for(guard, std::chrono::seconds(10), there)) return 1;
    return std::ranges::find_if(ends, mine)->second;
  }
  size_t ended() {
    std::lock_guard guard(lock);
    return ends.size();
  }
  void wait_for_attempts(int more) {
    const int begin = attempts.load();
    for (int i = 0; i < 1000 && attempts.load() < begin + more; i++)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    CHECK(attempts.load() >= begin + more);
  }
};

}  // namespace

TEST(what_is_parked_is_taken_once) {
  Rig rig;
  rig.locks.park(Rig::wanted(1, 5));
  LowerLocks::Wanted out;
  CHECK(!rig.locks.take_parked(2, 5, out));
  CHECK(!rig.locks.take_parked(1, 6, out));
  CHECK(rig.locks.take_parked(1, 5, out));
  CHECK_EQ(out.request, 5u);
  CHECK(!rig.locks.take_parked(1, 5, out));
  CHECK_EQ(rig.ended(), 0u);
}

TEST(a_wait_ends_when_the_backend_grants) {
  Rig rig;
  rig.locks.retry(Rig::wanted(1, 7));
  rig.wait_for_attempts(3);
  CHECK_EQ(rig.ended(), 0u);
  rig.answer = 0;
  CHECK_EQ(rig.end_of(7), 0);
}

TEST(a_wait_ends_with_the_backends_error) {
  Rig rig;
  rig.answer = -EIO;
  rig.locks.retry(Rig::wanted(1, 7));
  CHECK_EQ(rig.end_of(7), -EIO);
}

TEST(a_wait_ends_by_cancel_and_only_that_one) {
  Rig rig;
  rig.locks.retry(Rig::wanted(1, 7));
  rig.locks.retry(Rig::wanted(1, 8));
  CHECK(!rig.locks.cancel(1, 9));
  CHECK(!rig.locks.cancel(2, 7));
  CHECK(rig.locks.cancel(1, 7));
  CHECK_EQ(rig.end_of(7), -EINTR);
  rig.wait_for_attempts(2);
  CHECK_EQ(rig.ended(), 1u);
  CHECK(!rig.locks.cancel(1, 7));
  rig.answer = 0;
  CHECK_EQ(rig.end_of(8), 0);
}

TEST(an_instance_takes_its_waits_with_it) {
  Rig rig;
  rig.locks.park(Rig::wanted(1, 5));
  rig.locks.park(Rig::wanted(2, 5));
  rig.locks.retry(Rig::wanted(1, 7));
  rig.locks.retry(Rig::wanted(2, 8));
  rig.locks.drop_instance(1);
  CHECK_EQ(rig.end_of(7), -EINTR);
  LowerLocks::Wanted out;
  CHECK(!rig.locks.take_parked(1, 5, out));
  CHECK(rig.locks.take_parked(2, 5, out));
  rig.answer = 0;
  CHECK_EQ(rig.end_of(8), 0);
}

TEST(ends_with_waits_left) {
  Rig rig;
  for (uint64_t i = 0; i < 20; i++) rig.locks.retry(Rig::wanted(1, i));
  rig.wait_for_attempts(1);
}

TEST(holders_of_different_instances_are_different_below) {
  CHECK(LowerLocks::owner_below({1, 42, LockKind::kPosix}) !=
        LowerLocks::owner_below({2, 42, LockKind::kPosix}));
  CHECK(LowerLocks::owner_below({1, 42, LockKind::kPosix}) !=
        LowerLocks::owner_below({1, 43, LockKind::kPosix}));
}

CHECK_MAIN()
