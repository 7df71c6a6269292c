// One FUSE connection: the /dev/fuse fds of one mount (the mounted one and its clones), what INIT negotiated,
// and lock waits that are parked. A request must be answered on the fd it was read from (the kernel looks it
// up there), so everything that answers later remembers the queue, which is the index of that fd.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "fastpath/fd.hpp"
#include "native/core/instance.hpp"
#include "native/core/lock_table.hpp"

namespace poly {

class Notifier;

struct ConnectionOptions {
  double attr_timeout = 1.0;
  double entry_timeout = 1.0;
};

class Connection final : public Invalidator, public LockCompletion {
 public:
  Connection(Instance& instance, std::vector<Fd> queues, ConnectionOptions options, Notifier& notifier);

  // -errno of write(2); -ENOENT means that the request was aborted meanwhile, which is nobody's fault.
  [[nodiscard]] int send(size_t queue, const void* message, size_t size);
  void reply_error(size_t queue, uint64_t unique, int error);

  // A lock wait is parked before it is tried, so that its grant and its interrupt, which other threads may
  // handle first, find it. False: it was interrupted before it came here.
  [[nodiscard]] bool park(uint64_t request, size_t queue, uint64_t unique);
  void unpark(uint64_t request);
  // FUSE_INTERRUPT arrived. Remembered if the request is not parked (yet): most are about to be answered
  // anyway.
  void interrupt(uint64_t request);
  bool interrupted(uint64_t request);
  void lock_completed(uint32_t instance, uint64_t request, int result) override;

  // Behind all that has been posted to the notifier: what this reply lets a process do must not be done with
  // caches that are yet to be told of earlier changes.
  [[nodiscard]] int send_in_order(size_t queue, const void* message, size_t size);
  // A reply that tells of a size grown elsewhere: after the pages from `offset` on have been dropped, if that
  // need not wait for a directory, which the asker may have locked.
  [[nodiscard]] int send_after_pages(uint64_t node, uint64_t offset, size_t queue, const void* message,
                                     size_t size);

  void invalidate_node(uint64_t node, int64_t offset, int64_t length, const TicketRef&) override;
  void invalidate_written(uint64_t node, int64_t offset, int64_t length) override;
  void invalidate_entry(uint64_t parent, std::string_view name, const TicketRef&) override;
  void delete_entry(uint64_t parent, uint64_t child, std::string_view name, const TicketRef&) override;
  void wait_for_lookups(uint64_t directory, const TicketRef&) override;
  bool late() override;
  void drop_attributes(uint64_t node) override;

  // The kernel's node id 1 is the instance's root.
  uint64_t node_in(uint64_t nodeid) const { return nodeid == 1 ? instance.root : nodeid; }
  uint64_t node_out(uint64_t id) const { return id == instance.root ? 1 : id; }

  Instance& instance;
  const std::vector<Fd> queues;
  const ConnectionOptions options;
  std::atomic<bool> ended{false};
  std::atomic<bool> end_told{false};
  std::atomic<bool> initialised{false};
  std::atomic<uint32_t> proto_minor{0};
  std::atomic<size_t> in_flight{0};  // ordinary requests
  static constexpr uint64_t kLate = 1'000'000'000;
  std::atomic<uint64_t> notifying_since{0};  // coarse_ns; 0: the notifier is not sending anything

  // Requests taken from the kernel that must wait for a thread (workers.hpp).
  struct Delayed {
    size_t queue;
    std::vector<std::byte> message;
  };
  std::mutex backlog_lock;
  std::deque<Delayed> backlog;  // guarded by backlog_lock

 private:
  struct Parked {
    size_t queue;
    uint64_t unique;
    bool interrupted = false;
  };
  static constexpr size_t kRememberedInterrupts = 64;
  template <typename Body>
  void notify_name(int code, const Body& body, std::string_view name, const TicketRef&);

  Notifier& notifier_;
  std::mutex parked_lock_;
  std::unordered_map<uint64_t, Parked> parked_;  // guarded by parked_lock_
  std::deque<uint64_t> interrupts_;              // guarded by parked_lock_; the latest of requests not parked
};

}  // namespace poly
