// The dispatcher over two instances that share a libservice: what one changes the other is told, ids and
// files are each one's own, and everything goes with its instance. Messages, restarts and deaths are in
// session_test and replay_test.
#include "native/core/dispatcher.hpp"

#include <fstream>
#include <thread>
#include <utility>

#include "test/unit/fuse_rig.hpp"

using namespace rig;

namespace {

class Ear final : public Invalidator {
 public:
  void invalidate_node(uint64_t node, int64_t offset, int64_t length, const TicketRef&) override {
    said("node " + std::to_string(node) + " " + std::to_string(offset) + " " + std::to_string(length));
  }
  void invalidate_written(uint64_t node, int64_t offset, int64_t length) override {
    invalidate_node(node, offset, length, nullptr);
  }
  void invalidate_entry(uint64_t parent, std::string_view name, const TicketRef&) override {
    said("entry " + std::to_string(parent) + " " + std::string(name));
  }
  void delete_entry(uint64_t parent, uint64_t child, std::string_view name, const TicketRef&) override {
    said("removed " + std::to_string(parent) + " " + std::to_string(child) + " " + std::string(name));
  }
  void wait_for_lookups(uint64_t directory, const TicketRef&) override {
    said("wait " + std::to_string(directory));
  }
  bool late() override { return false; }
  void drop_attributes(uint64_t node) override { said("attributes " + std::to_string(node)); }
  bool heard(const std::string& what) {
    std::lock_guard guard(lock_);
    return all_.find(what) != std::string::npos;
  }
  std::string take() {
    std::lock_guard guard(lock_);
    return std::exchange(all_, "");
  }

 private:
  void said(const std::string& what) {
    std::lock_guard guard(lock_);
    all_ += what + "; ";
  }
  std::mutex lock_;
  std::string all_;
};

// Two instances; the second one's root is a directory of the first.
struct TwoMounts {
  TwoMounts() : local(kEverywhere[2]) {
    REQUIRE(PoolMemory::create(memfd) == 0 && pool.map(memfd.get()) == 0);
    REQUIRE(local.mkdir("sub") == 0);
    dispatcher = std::make_unique<Dispatcher>(pool);
    host = std::make_shared<LibserviceHost>();
    host->libservice = std::make_unique<ForwardingLibservice>(static_cast<Libservice&>(*local.fs));
    for (uint32_t id : {1u, 2u}) {
      auto instance = std::make_unique<Instance>(id, host);
      REQUIRE(dispatcher->add_instance(*instance, id == 1 ? "" : "sub", false) == 0);
      instance->invalidator = &ears[id - 1];
      instances.push_back(std::move(instance));
    }
  }
  ~TwoMounts() {
    dispatcher = nullptr;
    instances.clear();
    host = nullptr;
  }
  Instance& first() { return *instances[0]; }
  Instance& second() { return *instances[1]; }
  int run(Instance& instance, Request& request, Reply& reply) {
    return dispatcher->dispatch(instance, request, reply, 0);
  }
  uint64_t lookup(Instance& instance, uint64_t dir, const char* name) {
    Request request;
    request.op = Op::lookup;
    request.node = dir;
    request.name = name;
    Reply reply;
    CHECK_EQ(run(instance, request, reply), 0);
    return reply.entry.node;
  }
  int make(Instance& instance, Op op, uint64_t dir, const char* name, Reply& reply) {
    Request request;
    request.op = op;
    request.node = dir;
    request.name = name;
    request.mode = 0644;
    request.flags = O_RDWR;
    return run(instance, request, reply);
  }

  LocalRig local;
  Fd memfd;
  PoolMemory pool;
  std::shared_ptr<LibserviceHost> host;
  std::unique_ptr<Dispatcher> dispatcher;
  Ear ears[2];
  std::vector<std::unique_ptr<Instance>> instances;
};

}  // namespace

TEST(changes_are_told_to_the_other_mount) {
  TwoMounts rig;
  const uint64_t sub = rig.lookup(rig.first(), rig.first().root, "sub");
  Reply made;
  REQUIRE(rig.make(rig.second(), Op::create, rig.second().root, "f", made) == 0);
  CHECK(rig.ears[0].heard("entry " + std::to_string(sub) + " f"));
  CHECK_EQ(rig.ears[1].take(), "");  // who asked knows
  const uint64_t f = rig.lookup(rig.first(), sub, "f");
  CHECK(f != 0 && f != made.entry.node);
  rig.ears[0].take();

  Request write;
  write.op = Op::write;
  write.node = made.entry.node;
  write.file = made.file;
  write.offset = 3;
  write.data = std::as_bytes(std::span("text", 4));
  Reply reply;
  CHECK_EQ(rig.run(rig.second(), write, reply), 0);
  CHECK(rig.ears[0].heard("node " + std::to_string(f) + " 3 4"));
  rig.ears[0].take();
  Request chmod;
  chmod.op = Op::setattr;
  chmod.node = f;
  chmod.set.mask = kSetMode;
  chmod.set.mode = 0600;
  CHECK_EQ(rig.run(rig.first(), chmod, reply), 0);
  CHECK(rig.ears[1].heard("node " + std::to_string(made.entry.node) + " -1"));
  rig.ears[1].take();
  // A change of the second's root is a change of the kernel's node 1 there.
  REQUIRE(rig.make(rig.first(), Op::mkdir, sub, "d", reply) == 0);
  CHECK(rig.ears[1].heard("entry 1 d") ||
        rig.ears[1].heard("entry " + std::to_string(rig.second().root) + " d"));
}

TEST(ids_and_files_are_each_ones_own) {
  TwoMounts rig;
  Reply made, reply;
  REQUIRE(rig.make(rig.second(), Op::create, rig.second().root, "f", made) == 0);
  Request read;
  read.op = Op::read;
  read.node = made.entry.node;
  read.file = made.file;
  std::byte room[8];
  reply.buffer = room;
  CHECK_EQ(rig.run(rig.second(), read, reply), 0);
  CHECK_EQ(rig.run(rig.first(), read, reply), -EBADF);
  Request getattr;
  getattr.op = Op::getattr;
  getattr.node = made.entry.node;
  CHECK_EQ(rig.run(rig.first(), getattr, reply), -ESTALE);
  Request release;
  release.op = Op::release;
  release.file = made.file;
  CHECK_EQ(rig.run(rig.first(), release, reply), 0);  // not its own: nothing happens
  CHECK_EQ(rig.dispatcher->open_files(2), 1);
  rig.first().read_only = true;
  CHECK_EQ(rig.make(rig.first(), Op::mkdir, rig.first().root, "d", reply), -EROFS);
  CHECK_EQ(rig.make(rig.second(), Op::mkdir, rig.second().root, "d", reply), 0);
}

TEST(an_instance_goes_with_all_it_had) {
  TwoMounts rig;
  Reply made, reply;
  REQUIRE(rig.make(rig.second(), Op::create, rig.second().root, "f", made) == 0);
  const uint64_t f = rig.lookup(rig.first(), rig.lookup(rig.first(), rig.first().root, "sub"), "f");
  Request lock;
  lock.op = Op::setlk;
  lock.node = made.entry.node;
  lock.lock = {0, 9, F_WRLCK, 1};
  lock.lock_owner = {2, 5, LockKind::kPosix};
  CHECK_EQ(rig.run(rig.second(), lock, reply), 0);
  lock.node = f;
  lock.lock_owner = {1, 5, LockKind::kPosix};
  CHECK_EQ(rig.run(rig.first(), lock, reply), -EAGAIN);
  rig.dispatcher->detach_instance(rig.second());
  rig.dispatcher->drop_instance(rig.second());
  CHECK_EQ(rig.dispatcher->open_files(2), 0);
  CHECK_EQ(rig.dispatcher->nodes().count(2), 0);
  CHECK_EQ(rig.run(rig.first(), lock, reply), 0);
  CHECK(rig.dispatcher->nodes().count(1) >= 3);
}

// Appends through two mounts, from several threads: every one is whole, none is lost.
TEST(appends_from_everywhere) {
  TwoMounts rig;
  Reply made;
  REQUIRE(rig.make(rig.second(), Op::create, rig.second().root, "log", made) == 0);
  const uint64_t sub = rig.lookup(rig.first(), rig.first().root, "sub");
  const uint64_t log = rig.lookup(rig.first(), sub, "log");
  Request open;
  open.op = Op::open;
  open.node = log;
  open.flags = O_WRONLY;
  Reply opened;
  REQUIRE(rig.run(rig.first(), open, opened) == 0);
  constexpr int kEach = 500;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; i++) {
        const std::string line = std::to_string(t) + ":" + std::to_string(i) + "\n";
        Request request;
        request.op = Op::write;
        request.node = t % 2 == 0 ? log : made.entry.node;
        request.file = t % 2 == 0 ? opened.file : made.file;
        request.flags = O_APPEND;
        request.data = std::as_bytes(std::span(line));
        Reply reply;
        if (rig.run(t % 2 == 0 ? rig.first() : rig.second(), request, reply) != 0 ||
            reply.value != line.size())
          wrong++;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0);
  std::ifstream file(rig.local.host("sub/log"));
  int next[4]{}, lines = 0;
  for (std::string line; std::getline(file, line); lines++) {
    const int t = line[0] - '0';
    if (t < 0 || t > 3 || line != std::to_string(t) + ":" + std::to_string(next[t]++)) wrong++;
  }
  CHECK_EQ(lines, 4 * kEach);
  CHECK_EQ(wrong.load(), 0);
}

// Threads that make, open, read and remove, each in its own names, through two mounts: nothing is left in the
// tables.
TEST(threads_over_two_mounts) {
  TwoMounts rig;
  std::atomic<int> wrong{0};
  const uint64_t sub = rig.lookup(rig.first(), rig.first().root, "sub");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([&, t] {
      Instance& instance = t % 2 == 0 ? rig.first() : rig.second();
      const uint64_t dir = t % 2 == 0 ? sub : rig.second().root;
      for (int i = 0; i < 300; i++) {
        const std::string name = "f" + std::to_string(t);
        Reply made, reply;
        if (rig.make(instance, Op::create, dir, name.c_str(), made) != 0) wrong++;
        Request request;
        request.op = Op::unlink;
        request.node = dir;
        request.name = name.c_str();
        if (rig.run(instance, request, reply) != 0) wrong++;
        request = {};
        request.op = Op::release;
        request.node = made.entry.node;
        request.file = made.file;
        if (rig.run(instance, request, reply) != 0) wrong++;
        request.op = Op::forget;
        request.size = 1;
        if (rig.run(instance, request, reply) != 0) wrong++;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0);
  CHECK_EQ(rig.dispatcher->open_files(1) + rig.dispatcher->open_files(2), 0);
  CHECK_EQ(rig.dispatcher->nodes().count(1), 2);
  CHECK_EQ(rig.dispatcher->nodes().count(2), 1);
  CHECK_EQ(rig.local.parking.size(), 0);
}

CHECK_MAIN()
