#include "native/fuse/connection.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "native/fuse/notifier.hpp"
#include "native/fuse/protocol.hpp"

namespace poly {

Connection::Connection(Instance& instance, std::vector<Fd> queues, ConnectionOptions options,
                       Notifier& notifier)
    : instance(instance), queues(std::move(queues)), options(options), notifier_(notifier) {}

int Connection::send(size_t queue, const void* message, size_t size) {
  for (;;) {
    if (write(queues[queue].get(), message, size) >= 0) return 0;
    if (errno == EINTR) continue;
    if (errno == ENODEV) ended.store(true);
    return -errno;
  }
}

void Connection::reply_error(size_t queue, uint64_t unique, int error) {
  fuse_out_header out{sizeof out, error, unique};
  (void)send(queue, &out, sizeof out);  // ENOENT: interrupted and given up by the kernel; ENODEV: unmounted
}

bool Connection::park(uint64_t request, size_t queue, uint64_t unique) {
  std::lock_guard guard(parked_lock_);
  if (std::ranges::find(interrupts_, request) != interrupts_.end()) return false;
  parked_[request] = {queue, unique};
  return true;
}

void Connection::interrupt(uint64_t request) {
  std::lock_guard guard(parked_lock_);
  auto it = parked_.find(request);
  if (it != parked_.end()) {
    it->second.interrupted = true;
    return;
  }
  interrupts_.push_back(request);
  if (interrupts_.size() > kRememberedInterrupts) interrupts_.pop_front();
}

bool Connection::interrupted(uint64_t request) {
  std::lock_guard guard(parked_lock_);
  auto it = parked_.find(request);
  return it != parked_.end() && it->second.interrupted;
}

void Connection::unpark(uint64_t request) {
  std::lock_guard guard(parked_lock_);
  parked_.erase(request);
}

void Connection::lock_completed(uint32_t, uint64_t request, int result) {
  Parked parked;
  {
    std::lock_guard guard(parked_lock_);
    auto it = parked_.find(request);
    if (it == parked_.end()) return;
    parked = it->second;
    parked_.erase(it);
  }
  fuse_out_header out{sizeof out, result, parked.unique};
  (void)send_in_order(parked.queue, &out, sizeof out);
}

int Connection::send_in_order(size_t queue, const void* message, size_t size) {
  return notifier_.post_reply(*this, queue, message, size) ? 0 : send(queue, message, size);
}

namespace {

struct InvalidateNode {
  fuse_out_header header;
  fuse_notify_inval_inode_out body;
};

InvalidateNode invalidate_message(uint64_t nodeid, int64_t offset, int64_t length) {
  return {{sizeof(InvalidateNode), FUSE_NOTIFY_INVAL_INODE, 0}, {nodeid, offset, length}};
}

}  // namespace

void Connection::invalidate_node(uint64_t node, int64_t offset, int64_t length, const TicketRef& ticket) {
  auto message = invalidate_message(node_out(node), offset, length);
  notifier_.post(*this, &message, sizeof message, Notifier::Waits::kForPages, ticket);
}

void Connection::invalidate_written(uint64_t node, int64_t offset, int64_t length) {
  auto message = invalidate_message(node_out(node), offset, length);
  notifier_.send_apart(*this, &message, sizeof message);
}

int Connection::send_after_pages(uint64_t node, uint64_t offset, size_t queue, const void* message,
                                 size_t size) {
  const auto drop = invalidate_message(node_out(node), static_cast<int64_t>(offset), 0);
  const std::span reply(static_cast<const std::byte*>(message), size);
  if (notifier_.post_before_reply(*this, std::as_bytes(std::span(&drop, 1)), queue, reply)) return 0;
  return send(queue, message, size);
}

bool Connection::late() {
  const uint64_t since = notifying_since.load();
  return since != 0 && coarse_ns() > since + kLate;
}

// A negative offset takes no page locks (fuse_reverse_inval_inode, fs/fuse/inode.c).
void Connection::drop_attributes(uint64_t node) {
  auto message = invalidate_message(node_out(node), -1, 0);
  (void)send(0, &message, sizeof message);  // ENOENT: nothing to drop
}

// A notification that ends with a name and its NUL.
template <typename Body>
void Connection::notify_name(int code, const Body& body, std::string_view name, const TicketRef& ticket) {
  struct {
    fuse_out_header header;
    Body body;
    char name[256];
  } message{};
  size_t size = sizeof message.header + sizeof body + name.size() + 1;
  message.header = {static_cast<uint32_t>(size), code, 0};
  message.body = body;
  std::memcpy(message.name, name.data(), name.size());
  notifier_.post(*this, &message, size, Notifier::Waits::kForDirectory, ticket);
}

void Connection::invalidate_entry(uint64_t parent, std::string_view name, const TicketRef& ticket) {
  fuse_notify_inval_entry_out body{node_out(parent), static_cast<uint32_t>(name.size()), 0};
  notify_name(FUSE_NOTIFY_INVAL_ENTRY, body, name, ticket);
}

void Connection::delete_entry(uint64_t parent, uint64_t child, std::string_view name,
                              const TicketRef& ticket) {
  if (child == 0) return invalidate_entry(parent, name, ticket);
  fuse_notify_delete_out body{node_out(parent), node_out(child), static_cast<uint32_t>(name.size()), 0};
  notify_name(FUSE_NOTIFY_DELETE, body, name, ticket);
}

// Any name will do: the kernel takes the directory's lock to look for it, and lookups and readdirplus hold
// that lock until their entries are made (fuse_reverse_inval_entry; lookup_slow, fs/namei.c; up to
// Linux 6.18).
void Connection::wait_for_lookups(uint64_t directory, const TicketRef& ticket) {
  invalidate_entry(directory, ".poly-none", ticket);
}

}  // namespace poly
