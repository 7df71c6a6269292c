// A filesystem service's fast path without its transport: calls are made here and run as a server thread
// would, in a thread that may act as the caller. Pool memory and files outlive it, so that it can die and
// come back.
#pragma once

#include <condition_variable>
#include <functional>
#include <thread>

#include "libservices/identity.hpp"
#include "native/fast/calls.hpp"
#include "test/unit/as_user.hpp"
#include "test/unit/fuse_rig.hpp"

namespace rig {

// Runs pieces of work one by one in a thread like those of the service.
class ServiceThread {
 public:
  ServiceThread() : thread_([this] { run(); }) {}
  ~ServiceThread() {
    give({});
    thread_.join();
  }
  void operator()(std::function<void()> work) { give(std::move(work)); }

 private:
  void give(std::function<void()> work) {
    std::unique_lock guard(lock_);
    const bool last = !work;
    work_ = std::move(work);
    given_ = true;
    changed_.notify_all();
    if (!last) changed_.wait(guard, [&] { return !given_; });
  }
  void run() {
    prepare_thread_identity();
    std::unique_lock guard(lock_);
    for (;;) {
      changed_.wait(guard, [&] { return given_; });
      if (!work_) return;
      work_();
      given_ = false;
      changed_.notify_all();
    }
  }
  std::mutex lock_;
  std::condition_variable changed_;
  std::function<void()> work_;
  bool given_ = false;
  std::thread thread_;
};

// A call to be made; paths and data are the caller's.
struct Ask {
  explicit Ask(Op op) {
    call.op = static_cast<uint16_t>(op);
    call.instance = 1;
    call.walk = kWalkFollow;
  }
  Ask& at(std::string text) {
    path = std::move(text);
    return *this;
  }
  Ask& and_at(std::string text) {
    path2 = std::move(text);
    return *this;
  }
  Ask& of(uint32_t file) {
    call.walk |= kWalkHandle;
    call.file = file;
    return *this;
  }
  Ask& flags(uint32_t flags) {
    call.flags = flags;
    return *this;
  }
  Ask& mode(uint32_t mode) {
    call.mode = mode;
    return *this;
  }
  Ask& no_follow() {
    call.walk &= static_cast<uint16_t>(~kWalkFollow);
    return *this;
  }

  WireCall call{};
  std::string path, path2;
};

struct FastRig : FuseRig {
  explicit FastRig(Where where = kEverywhere[2], uint64_t size = 0) : FuseRig(where, size), data(kDataSize) {
    attach();
  }
  ~FastRig() {
    thread([this] { die(); });
  }

  void attach(uint64_t key = 0x1234'5678'9abc'def0) {
    life->instance->control = {0x0123456789abcdef, 0xfedcba9876543210};
    client = std::make_unique<FastClient>(key);
    client->open_files = life->dispatcher->count_client_files(key);
    become({0, 0, {}, true});
  }
  void become(const Credentials& who) {
    client->set_credentials(who.uid, who.gid, who.groups, ::getpid());
    client->prove(1, {});
  }
  int32_t run(const Ask& ask, uint32_t sequence = 0) {
    int32_t result = 0;
    thread([&] { result = run_here(ask, sequence); });
    return result;
  }
  // In a thread that is like the service's already.
  int32_t run_here(const Ask& ask, uint32_t sequence = 0) {
    answer = {};
    if (sequence == 0) sequence = ++next_sequence;
    const int32_t result = run_call(*life->dispatcher, *client, 0, sequence, ask.call, ask.path, ask.path2,
                                    data, answer, 0, life->record);
    CHECK_EQ(result, answer.result);
    return result;
  }
  using FuseRig::open;
  using FuseRig::release;
  uint32_t open(const std::string& path, uint32_t flags = O_RDWR, uint32_t mode = 0644) {
    CHECK_EQ(run(Ask(Op::open).at(path).flags(flags).mode(mode)), 0);
    return answer.file;
  }
  int32_t write(uint32_t file, std::string_view text, uint64_t offset, uint32_t flags = 0) {
    std::memcpy(data.data(), text.data(), text.size());
    Ask ask(Op::write);
    ask.of(file).flags(flags);
    ask.call.offset = offset;
    ask.call.size = text.size();
    return run(ask);
  }
  std::string read(uint32_t file, uint64_t offset = 0, uint64_t size = 4096) {
    Ask ask(Op::read);
    ask.of(file);
    ask.call.offset = offset;
    ask.call.size = size;
    const int32_t result = run(ask);
    if (result) return "E" + std::to_string(-result);
    return {reinterpret_cast<const char*>(data.data()), answer.value};
  }
  void release(uint32_t file) { CHECK_EQ(run(Ask(Op::release).of(file)), 0); }

  ServiceThread thread;
  std::unique_ptr<FastClient> client;
  std::vector<std::byte> data;
  WireAnswer answer{};
  uint32_t next_sequence = 0;
};

}  // namespace rig
