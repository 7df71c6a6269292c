// The service's threads under a libservice that blocks: they grow, keep a reserve, and serve the others.
// Queues are sockets, the kernel's ends of which are here.
#include "native/fuse/workers.hpp"

#include <poll.h>

#include <condition_variable>
#include <set>

#include "test/unit/fuse_rig.hpp"

using namespace rig;

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kPatience = std::chrono::seconds(10);  // for what must happen
constexpr size_t kMost = 12;

// GETATTR waits at a gate while it is closed.
class GatedLibservice final : public ForwardingLibservice {
 public:
  using ForwardingLibservice::ForwardingLibservice;
  int getattr(Node& node, File* file, Attr& out) override {
    {
      std::unique_lock guard(lock_);
      waiting_++;
      changed_.notify_all();
      changed_.wait(guard, [&] { return open_; });
      waiting_--;
    }
    return ForwardingLibservice::getattr(node, file, out);
  }
  void open(bool open) {
    std::lock_guard guard(lock_);
    open_ = open;
    changed_.notify_all();
  }
  size_t waiting() {
    std::lock_guard guard(lock_);
    return waiting_;
  }
  bool wait_for(size_t n) {
    std::unique_lock guard(lock_);
    return changed_.wait_for(guard, kPatience, [&] { return waiting_ == n; });
  }

 private:
  std::mutex lock_;
  std::condition_variable changed_;
  size_t waiting_ = 0;  // guarded by lock_
  bool open_ = false;   // guarded by lock_
};

// One mount: an instance, its connection, and the kernel's end of its queues.
struct Mount {
  std::unique_ptr<Instance> instance;
  std::shared_ptr<Connection> connection;
  Fd kernel;
  uint64_t sent = 0;
  std::set<uint64_t> answered;

  uint64_t send(Message message) {
    message.header.unique = ++sent * 2;
    const auto bytes = message.bytes();
    CHECK_EQ(::send(kernel.get(), bytes.data(), bytes.size(), 0), bytes.size());
    return message.header.unique;
  }
  // Takes answers until the one to `unique` has come; false when it does not come in time.
  bool wait_for(uint64_t unique, std::chrono::milliseconds patience = kPatience) {
    const auto end = Clock::now() + patience;
    while (!answered.contains(unique)) {
      pollfd fd{kernel.get(), POLLIN, 0};
      if (::poll(&fd, 1, 20) <= 0 && Clock::now() > end) return false;
      std::byte buffer[65536];
      const ssize_t n = ::recv(kernel.get(), buffer, sizeof buffer, MSG_DONTWAIT);
      if (n > 0) CHECK(answered.insert(parse(std::span(buffer, static_cast<size_t>(n))).unique).second);
    }
    return true;
  }
};

struct ThreadsRig {
  ThreadsRig() : local(kEverywhere[2]) {
    REQUIRE(PoolMemory::create(memfd) == 0 && pool.map(memfd.get()) == 0);
    dispatcher = std::make_unique<Dispatcher>(pool);
    host = std::make_shared<LibserviceHost>();
    auto gated = std::make_unique<GatedLibservice>(*local.fs);
    gate = gated.get();
    host->libservice = std::move(gated);
    workers = std::make_unique<Workers>(*dispatcher, kMost, [this](uint32_t) { ended++; });
  }
  ~ThreadsRig() {
    gate->open(true);
    for (auto& mount : mounts) {
      if (mount->connection) CHECK(remove(*mount));
    }
    CHECK(workers->stop());
    dispatcher = nullptr;
    mounts.clear();
    host = nullptr;
    local.stop();
  }
  Mount& add() {
    const auto id = static_cast<uint32_t>(mounts.size() + 1);
    auto mount = std::make_unique<Mount>();
    mount->instance = std::make_unique<Instance>(id, host);
    REQUIRE(dispatcher->add_instance(*mount->instance, "", false) == 0);
    // As with /dev/fuse, a request may be read by any queue.
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    std::vector<Fd> queues;
    queues.emplace_back(ends[0]);
    while (queues.size() < workers->queues()) queues.push_back(duplicate(ends[0]));
    mount->kernel = Fd(ends[1]);
    mount->connection =
        std::make_shared<Connection>(*mount->instance, std::move(queues), ConnectionOptions{}, notifier);
    REQUIRE(workers->add(mount->connection) == 0);
    mounts.push_back(std::move(mount));
    return *mounts.back();
  }
  bool remove(Mount& mount) {
    dispatcher->detach_instance(*mount.instance);
    const bool drained = workers->remove(mount.connection);
    notifier.forget(*mount.connection);
    if (drained) dispatcher->drop_instance(*mount.instance);
    mount.connection = nullptr;
    return drained;
  }
  static Message slow() { return Message(FUSE_GETATTR).with(fuse_getattr_in{}); }
  static Message quick() { return Message(FUSE_LOOKUP).text("nothing"); }
  static Message urgent() { return Message(FUSE_RELEASE).with(fuse_release_in{}); }

  LocalRig local;
  Fd memfd;
  PoolMemory pool;
  std::shared_ptr<LibserviceHost> host;
  GatedLibservice* gate = nullptr;
  std::unique_ptr<Dispatcher> dispatcher;
  Notifier notifier;
  std::atomic<int> ended{0};
  std::vector<std::unique_ptr<Mount>> mounts;
  std::unique_ptr<Workers> workers;
};

}  // namespace

TEST(quick_requests_need_no_more_threads) {
  ThreadsRig rig;
  Mount& mount = rig.add();
  for (int i = 0; i < 2000; i++) {
    if (!CHECK(mount.wait_for(mount.send(ThreadsRig::quick())))) return;
  }
  CHECK(rig.workers->handled() >= 1999);  // the last is counted after its answer
  CHECK(rig.workers->threads() <= kMost);
}

TEST(threads_grow_while_others_are_held_up) {
  ThreadsRig rig;
  Mount& mount = rig.add();
  std::vector<uint64_t> slow;
  for (int i = 0; i < 7; i++) slow.push_back(mount.send(ThreadsRig::slow()));
  CHECK(rig.gate->wait_for(7));
  CHECK(mount.wait_for(mount.send(ThreadsRig::quick())));
  CHECK(mount.wait_for(mount.send(ThreadsRig::urgent())));
  CHECK(rig.workers->threads() >= 7);
  CHECK(rig.workers->busy() >= 7);
  rig.gate->open(true);
  for (const uint64_t unique : slow) CHECK(mount.wait_for(unique));
}

TEST(a_bound_and_a_reserve) {
  ThreadsRig rig;
  Mount& mount = rig.add();
  std::vector<uint64_t> slow;
  for (int i = 0; i < 40; i++) slow.push_back(mount.send(ThreadsRig::slow()));
  CHECK(rig.gate->wait_for(kMost - Workers::kReserve));
  // Those that end others' waits go on, whatever is waiting.
  for (int i = 0; i < 20; i++) {
    if (!CHECK(mount.wait_for(mount.send(ThreadsRig::urgent())))) break;
    (void)mount.send(Message(FUSE_FORGET, 12345).with(fuse_forget_in{1}));
    (void)mount.send(Message(FUSE_INTERRUPT, 0).with(fuse_interrupt_in{4}));
  }
  CHECK_EQ(rig.gate->waiting(), kMost - Workers::kReserve);
  CHECK(rig.workers->threads() <= kMost);
  rig.gate->open(true);
  for (const uint64_t unique : slow) {
    if (!CHECK(mount.wait_for(unique))) break;  // those that waited for a thread too
  }
  CHECK(mount.wait_for(mount.send(ThreadsRig::quick())));
}

TEST(a_slow_mount_does_not_stop_another) {
  ThreadsRig rig;
  Mount& slow = rig.add();
  Mount& other = rig.add();
  for (int i = 0; i < 40; i++) (void)slow.send(ThreadsRig::slow());
  CHECK(rig.gate->wait_for(kMost / 2));  // its share
  for (int i = 0; i < 50; i++) {
    if (!CHECK(other.wait_for(other.send(ThreadsRig::quick())))) break;
  }
  CHECK_EQ(rig.gate->waiting(), kMost / 2);
}

// A request that had to wait because of others must be taken up when they are done, though nothing else of
// its own mount is under way.
TEST(what_waited_for_others_is_taken_up) {
  for (int round = 0; round < 5; round++) {
    ThreadsRig rig;
    Mount& first = rig.add();
    Mount& second = rig.add();
    Mount& third = rig.add();
    std::vector<uint64_t> slow;
    for (int i = 0; i < 20; i++) {
      slow.push_back(first.send(ThreadsRig::slow()));
      (void)second.send(ThreadsRig::slow());
    }
    CHECK(rig.gate->wait_for(kMost - Workers::kReserve));
    const uint64_t waits = third.send(ThreadsRig::quick());
    CHECK(!third.wait_for(waits, std::chrono::milliseconds(100)));
    rig.gate->open(true);
    if (!CHECK(third.wait_for(waits, std::chrono::seconds(5)))) return;
    for (const uint64_t unique : slow) CHECK(first.wait_for(unique));
  }
}

// Many short waits at the bound: nothing is lost between deciding to wait and the end of the last request.
TEST(nothing_is_stranded_at_the_bound) {
  ThreadsRig rig;
  Mount& first = rig.add();
  Mount& second = rig.add();
  for (int round = 0; round < 60; round++) {
    rig.gate->open(false);
    uint64_t last[2]{};
    for (int i = 0; i < 15; i++) {
      last[0] = first.send(ThreadsRig::slow());
      last[1] = second.send(ThreadsRig::slow());
    }
    std::this_thread::sleep_for(std::chrono::microseconds(check::random()() % 3000));
    rig.gate->open(true);
    for (uint64_t unique = last[0] - 28; unique <= last[0]; unique += 2) {
      if (!CHECK(first.wait_for(unique, std::chrono::seconds(5)))) return;
    }
    for (uint64_t unique = last[1] - 28; unique <= last[1]; unique += 2) {
      if (!CHECK(second.wait_for(unique, std::chrono::seconds(5)))) return;
    }
  }
}

TEST(a_mount_goes_while_its_requests_are_held_up) {
  ThreadsRig rig;
  Mount& mount = rig.add();
  Mount& other = rig.add();
  (void)mount.send(ThreadsRig::slow());
  CHECK(rig.gate->wait_for(1));
  std::thread opener([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    rig.gate->open(true);
  });
  const auto begin = Clock::now();
  CHECK(rig.remove(mount));  // waits for the request
  CHECK(Clock::now() - begin >= std::chrono::milliseconds(100));
  opener.join();
  CHECK(other.wait_for(other.send(ThreadsRig::quick())));
}

TEST(stop_leaves_no_thread) {
  for (int i = 0; i < 20; i++) {
    ThreadsRig rig;
    Mount& mount = rig.add();
    if (i % 2 == 0) CHECK(mount.wait_for(mount.send(ThreadsRig::quick())));
  }
}

CHECK_MAIN()
