// One FUSE message in, one reply out: decodes the kernel's structures into a Request, dispatches it, encodes
// the Reply.
//
// Knows no file descriptors and no threads, so that a test can feed it any bytes. Lengths are checked before
// anything is read; what does not parse is answered with EINVAL (EIO where FUSE knows no better) and has no
// other effect.
#pragma once

#include <optional>
#include <span>

#include "native/core/dispatcher.hpp"
#include "native/fuse/connection.hpp"
#include "native/fuse/protocol.hpp"

namespace poly {

// A request being handled. `out` is where the payload of the reply goes, after room for its header.
class Call {
 public:
  Call(Connection& connection, Dispatcher& dispatcher, size_t queue, size_t shard,
       std::span<const std::byte> message, std::span<std::byte> out)
      : connection(connection),
        dispatcher(dispatcher),
        queue(queue),
        shard(shard),
        body_(message),
        out_(out) {}

  // Handles the message. False when there is nothing to send (FORGET, INTERRUPT, a parked lock wait).
  [[nodiscard]] bool run(ReplayRecord* own_record);
  // The finished reply, header included; valid after run() returned true.
  std::span<const std::byte> reply() const;
  // Sends it, or leaves it to the notifier where something has to go first. As Connection::send.
  [[nodiscard]] int send() const;
  // After the reply has been sent: gives back a record that a predecessor left.
  void finish();

  Connection& connection;
  Dispatcher& dispatcher;
  const size_t queue;
  const size_t shard;
  fuse_in_header in{};
  Request request;
  Reply answer;

  // Decoding: null or empty-handed when the message is too short, and then the call fails with EINVAL.
  template <typename T>
  const T* take() {
    if (body_.size() < sizeof(T)) return nullptr;
    auto* value = reinterpret_cast<const T*>(body_.data());
    body_ = body_.subspan(sizeof(T));
    return value;
  }
  const char* take_name();
  // A name that is one component: not empty, no "/", neither "." nor "..". The kernel sends no others (but
  // "/" for a file without a name, which take_name() is for); below, they would lead out of the directory.
  const char* take_component();
  std::span<const std::byte> take_bytes(size_t size);

  int dispatch(Op op) {
    request.op = op;
    return dispatcher.dispatch(connection.instance, request, answer, shard);
  }

  // Encoding.
  template <typename T>
  T& put() {
    T& value = *reinterpret_cast<T*>(out_.data() + sizeof(fuse_out_header) + size_);
    value = T{};
    size_ += sizeof(T);
    return value;
  }
  std::span<std::byte> payload(size_t limit);
  void filled(size_t size) { size_ += size; }
  static void put_timeout(double seconds, uint64_t& whole, uint32_t& nanoseconds);
  // What `name` of `directory` is: request.node's, as readdirplus found it, or nameless ("").
  void put_entry(uint64_t directory, std::string_view name);
  void put_attr();
  // The reply tells a regular file's size to a kernel that does not wait for it with a change of its own.
  void tell_size();
  // A direct write has changed what the kernel may have pages of, from `offset` on: they go before the reply,
  // and no page is locked by who waits for it.
  void drop_pages(uint64_t offset);
  // For how long the kernel may believe the attributes of request.node that it is about to get.
  double attr_timeout();
  void put_open(uint32_t flags);
  // An open file; `flags`: open(2)'s.
  void put_open_file(uint32_t flags);
  void no_reply() { silent_ = true; }
  // The reply must not overtake notifications of what happened before (Connection::send_in_order).
  void in_order() { in_order_ = true; }

 private:
  [[nodiscard]] bool take_header();
  void choose_record(ReplayRecord* own_record);

  std::span<const std::byte> body_;
  std::span<std::byte> out_;
  size_t size_ = 0;
  const uint64_t began_ = coarse_ns();
  bool silent_ = false;
  bool in_order_ = false;
  std::optional<uint64_t> drop_from_;  // pages from there on go before the reply does
  bool adopted_record_ = false;
};

// Room that a reply buffer must have: the largest READ and its header.
inline constexpr size_t kReplyRoom = kMaxWrite + 4096;
// Room for the largest message: a WRITE of kMaxWrite.
inline constexpr size_t kMessageRoom = kMaxWrite + 4096;

// Is this one of the operations that must never wait for a free thread?
bool is_urgent(uint32_t opcode);

}  // namespace poly
