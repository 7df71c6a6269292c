// A filesystem service without a kernel: FUSE messages are made here, and given to a Call. Its pool memory
// and files outlive it, so that it can die and come back.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "native/fuse/notifier.hpp"
#include "native/fuse/session.hpp"
#include "test/unit/forwarding_libservice.hpp"
#include "test/unit/local_rig.hpp"

namespace rig {

class Message {
 public:
  explicit Message(uint32_t opcode, uint64_t node = FUSE_ROOT_ID, uint64_t unique = 0) {
    header.opcode = opcode;
    header.nodeid = node;
    header.unique = unique;
  }
  template <typename T>
  Message& with(const T& value) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&value);
    body.insert(body.end(), bytes, bytes + sizeof value);
    return *this;
  }
  Message& text(std::string_view name) {
    data(name);
    body.push_back(std::byte{0});
    return *this;
  }
  Message& data(std::string_view bytes) {
    const auto span = std::as_bytes(std::span(bytes));
    body.insert(body.end(), span.begin(), span.end());
    return *this;
  }
  // As many bytes as the kernel would write, on the heap, so that a sanitizer sees the end.
  std::vector<std::byte> bytes() const {
    fuse_in_header in = header;
    in.len = static_cast<uint32_t>(sizeof in + body.size());
    std::vector<std::byte> all;
    all.reserve(in.len);
    std::ranges::copy(std::as_bytes(std::span(&in, 1)), std::back_inserter(all));
    std::ranges::copy(body, std::back_inserter(all));
    return all;
  }

  fuse_in_header header{};
  std::vector<std::byte> body;
};

struct Answer {
  bool sent = false;
  int error = 0;
  uint64_t unique = 0;
  std::vector<std::byte> payload;

  template <typename T>
  T as(size_t offset = 0) const {
    T value{};
    if (CHECK(offset + sizeof value <= payload.size()))
      std::memcpy(&value, payload.data() + offset, sizeof value);
    return value;
  }
  std::string text() const { return {reinterpret_cast<const char*>(payload.data()), payload.size()}; }
};

// What the kernel would read from a queue: the header and the payload, checked for sense.
inline Answer parse(std::span<const std::byte> reply) {
  Answer answer;
  answer.sent = true;
  fuse_out_header out{};
  REQUIRE(reply.size() >= sizeof out);
  std::memcpy(&out, reply.data(), sizeof out);
  CHECK_EQ(out.len, reply.size());
  CHECK(out.error <= 0 && out.error > -512);
  CHECK(out.error == 0 || reply.size() == sizeof out);
  answer.error = out.error;
  answer.unique = out.unique;
  answer.payload.assign(reply.begin() + sizeof out, reply.end());
  return answer;
}

struct FuseRig {
  struct Life {
    explicit Life(Libservice& libservice, int memfd, uint32_t id, bool restored, ConnectionOptions options) {
      REQUIRE(pool.map(memfd) == 0);
      dispatcher = std::make_unique<Dispatcher>(pool);
      host = std::make_shared<LibserviceHost>();
      host->libservice = std::make_unique<ForwardingLibservice>(libservice);
      instance = std::make_unique<Instance>(id, host);
      instance->attr_timeout = static_cast<uint64_t>(options.attr_timeout * 1e9);
      instance->entry_timeout = static_cast<uint64_t>(options.entry_timeout * 1e9);
      REQUIRE(dispatcher->add_instance(*instance, "", restored) == 0);
      host->libservice->all_restored();
      int ends[2];
      REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
      kernel = Fd(ends[1]);
      std::vector<Fd> queues;
      queues.emplace_back(ends[0]);
      connection = std::make_unique<Connection>(*instance, std::move(queues), options, notifier);
      instance->invalidator = connection.get();
      dispatcher->set_lock_completion(id, connection.get());
      record = dispatcher->replays().reserve();
    }
    ~Life() {
      dispatcher->detach_instance(*instance);
      notifier.forget(*connection);
    }
    PoolMemory pool;
    std::shared_ptr<LibserviceHost> host;
    std::unique_ptr<Instance> instance;
    std::unique_ptr<Dispatcher> dispatcher;
    Notifier notifier;
    std::unique_ptr<Connection> connection;
    Fd kernel;
    ReplayRecord* record = nullptr;
  };

  // The present life's dispatcher.
  class Handles final : public HandleStore {
   public:
    explicit Handles(const FuseRig& rig) : rig_(rig) {}
    int handle_changed(Libservice& fs, Node& node) override {
      return rig_.life ? rig_.life->dispatcher->handle_changed(fs, node) : 0;
    }

   private:
    const FuseRig& rig_;
  };

  explicit FuseRig(Where where = kEverywhere[2], uint64_t size = 0) : local(where, 1024, size) {
    REQUIRE(PoolMemory::create(memfd) == 0);
    local.stop();
    local.handles = &handles;
    start();
  }
  ~FuseRig() { die(); }
  void start() {
    if (!local.fs) local.start();
    Libservice& libservice = wrapper ? *wrapper : static_cast<Libservice&>(*local.fs);
    life = std::make_unique<Life>(libservice, memfd.get(), 1, started, options);
    started = true;
  }
  void die() {
    local.parking.deaf = true;
    life = nullptr;
    local.stop();
  }
  void restart() {
    die();
    start();
  }

  // Handles raw bytes as a worker does. Without `finish` the service dies before the answer is on its way.
  Answer handle(std::span<const std::byte> message, bool finish = true, size_t room = kReplyRoom) {
    if (out.size() != room) out = std::vector<std::byte>(room);
    Call call(*life->connection, *life->dispatcher, 0, 0, message, out);
    const bool sent = call.run(life->record);
    Answer answer;
    if (sent) {
      answer = parse(call.reply());
      uint64_t unique;
      std::memcpy(&unique, message.data() + offsetof(fuse_in_header, unique), sizeof unique);
      CHECK_EQ(answer.unique, unique);
    }
    if (answered) answered(answer);
    if (finish) call.finish();
    return answer;
  }
  Answer call(Message message, bool finish = true) {
    if (message.header.unique == 0) message.header.unique = next_unique += 2;
    return handle(message.bytes(), finish);
  }
  // Where a worker writes the answer: from then on the kernel does not ask again.
  std::function<void(const Answer&)> answered;
  // The same again, as FUSE_NOTIFY_RESEND makes the kernel ask.
  Answer resend(Message message) {
    message.header.unique |= kFuseUniqueResend;
    return handle(message.bytes());
  }
  // What came by the queue and not as the answer of a call: ends of lock waits, invalidations.
  Answer received() {
    std::byte buffer[1024];
    const ssize_t n = ::recv(life->kernel.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    Answer answer;
    if (n >= static_cast<ssize_t>(sizeof(fuse_out_header))) {
      fuse_out_header header{};
      std::memcpy(&header, buffer, sizeof header);
      answer.sent = true;
      answer.error = header.error;
      answer.unique = header.unique;
      answer.payload.assign(buffer + sizeof header, buffer + n);
    }
    return answer;
  }

  uint64_t lookup(const std::string& name, uint64_t dir = FUSE_ROOT_ID) {
    const Answer answer = call(Message(FUSE_LOOKUP, dir).text(name));
    return answer.error == 0 ? answer.as<fuse_entry_out>().nodeid : 0;
  }
  void forget(uint64_t node, uint64_t lookups = 1) {
    CHECK(!call(Message(FUSE_FORGET, node).with(fuse_forget_in{lookups})).sent);
  }
  Message create_message(const std::string& name, uint32_t flags, uint64_t dir = FUSE_ROOT_ID) {
    return Message(FUSE_CREATE, dir).with(fuse_create_in{flags | O_CREAT, S_IFREG | 0644, 0, 0}).text(name);
  }
  uint64_t open(uint64_t node, uint32_t flags = O_RDWR) {
    const Answer answer = call(Message(FUSE_OPEN, node).with(fuse_open_in{flags, 0}));
    return answer.error == 0 ? answer.as<fuse_open_out>().fh : 0;
  }
  void release(uint64_t node, uint64_t fh) {
    fuse_release_in in{};
    in.fh = fh;
    CHECK_EQ(call(Message(FUSE_RELEASE, node).with(in)).error, 0);
  }
  Message write_message(uint64_t node, uint64_t fh, uint64_t offset, std::string_view text,
                        uint32_t flags = 0) {
    fuse_write_in in{};
    in.fh = fh;
    in.offset = offset;
    in.size = static_cast<uint32_t>(text.size());
    in.flags = flags;
    return Message(FUSE_WRITE, node).with(in).data(text);
  }
  Message read_message(uint32_t opcode, uint64_t node, uint64_t fh, uint64_t offset, uint32_t size) {
    fuse_read_in in{};
    in.fh = fh;
    in.offset = offset;
    in.size = size;
    return Message(opcode, node).with(in);
  }
  uint64_t open_files() { return life->dispatcher->open_files(1); }
  uint64_t nodes() { return life->dispatcher->nodes().count(1); }  // the root included

  Handles handles{*this};
  LocalRig local;
  Libservice* wrapper = nullptr;  // stands before `local`, if set
  ConnectionOptions options;
  Fd memfd;
  bool started = false;
  std::unique_ptr<Life> life;
  std::vector<std::byte> out;
  uint64_t next_unique = 100;
};

}  // namespace rig
