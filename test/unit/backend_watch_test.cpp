// Calls that a backend does not answer: reported, answered with EIO when they are overdue or let go of, and
// the end of both.
#include "native/core/backend_watch.hpp"

#include <algorithm>

#include "test/unit/fuse_rig.hpp"

using namespace rig;

namespace {

constexpr uint64_t kSecond = 1'000'000'000;

// Calls under way that a test says are there; a call that is answered is marked so, as front ends do.
struct Rig {
  explicit Rig(double op_timeout = 0) {
    host().watched = true;
    host().op_timeout = static_cast<uint64_t>(op_timeout * 1e9);
  }
  LibserviceHost& host() { return *fuse.life->host; }
  void begin(uint64_t seconds_ago) {
    std::lock_guard guard(lock);
    calls.push_back({1, coarse_ns() - seconds_ago * kSecond, false});
  }
  void end_all() {
    std::lock_guard guard(lock);
    calls.clear();
  }
  size_t answered() {
    std::lock_guard guard(lock);
    return static_cast<size_t>(
        std::ranges::count_if(calls, [](const CallUnderWay& call) { return call.answered; }));
  }
  template <typename Condition>
  bool within_two_seconds(Condition condition) {
    for (int i = 0; i < 200; i++) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return condition();
  }

  FuseRig fuse;
  std::mutex lock;
  std::vector<CallUnderWay> calls;  // guarded by lock
  BackendWatch watch{*fuse.life->dispatcher, [this](const BackendWatch::Judge& judge) {
                       std::lock_guard guard(lock);
                       for (auto& call : calls) call.answered |= judge(call);
                     }};
};

}  // namespace

TEST(what_waits_for_long_is_reported_until_it_ends) {
  Rig rig;
  rig.begin(0);
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  CHECK_EQ(rig.host().silent_since.load(), 0u);  // not for long yet
  rig.begin(10);
  CHECK(rig.within_two_seconds([&] { return rig.host().silent_since.load() != 0; }));
  CHECK(rig.host().silent_since.load() + 9 * kSecond < coarse_ns());
  CHECK(!rig.host().released.load());
  CHECK_EQ(rig.answered(), 0u);  // without op_timeout calls wait
  rig.end_all();
  CHECK(rig.within_two_seconds([&] { return rig.host().silent_since.load() == 0; }));
}

TEST(overdue_calls_are_answered_and_later_ones_fail_until_it_is_over) {
  Rig rig(5);
  rig.begin(10);
  rig.begin(1);
  CHECK(rig.within_two_seconds([&] { return rig.answered() == 1; }));
  CHECK(rig.host().released.load());
  Request request;
  request.op = Op::getattr;
  request.node = rig.fuse.life->instance->root;
  Reply reply;
  CHECK_EQ(rig.fuse.life->dispatcher->dispatch(*rig.fuse.life->instance, request, reply, 0), -EIO);
  rig.end_all();
  CHECK(rig.within_two_seconds([&] { return !rig.host().released.load(); }));
  CHECK_EQ(rig.fuse.life->dispatcher->dispatch(*rig.fuse.life->instance, request, reply, 0), 0);
}

TEST(calls_are_let_go_of_by_command) {
  Rig rig;
  CHECK_EQ(rig.watch.release(rig.host()), 0u);
  CHECK(!rig.host().released.load());  // nothing was held up
  rig.begin(1);
  rig.begin(2);
  CHECK_EQ(rig.watch.release(rig.host()), 2u);
  CHECK_EQ(rig.answered(), 2u);
  CHECK(rig.host().released.load());
  CHECK_EQ(rig.watch.release(rig.host()), 0u);  // each once
  rig.end_all();
  CHECK(rig.within_two_seconds([&] { return !rig.host().released.load(); }));
}

TEST(others_are_left_alone) {
  Rig rig(1);
  rig.host().watched = false;
  rig.begin(10);
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  CHECK_EQ(rig.answered(), 0u);
  CHECK_EQ(rig.host().silent_since.load(), 0u);
}

CHECK_MAIN()
