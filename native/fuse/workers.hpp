// The service's threads, for all its mounts.
//
// Readers, one per CPU (at most kMaxReaders), pinned, SCHED_BATCH, each with its own clone of every /dev/fuse
// fd and one epoll set of them. A request wakes them all, and the one on the client's CPU, the cheapest to
// wake, usually takes it; that is why there are no more of them (ARCHITECTURE.md, "Threads", has the
// measurement). A reader handles what it has read.
//
// Helpers exist only while readers are held up: when every reader is busy and nothing gets finished
// (stall_monitor.hpp), a helper is started in a reader's place, up to max_threads. Near that bound (kReserve
// left), and when one mount holds more than its share, requests that may block wait in their connection's
// backlog, while FORGET, RELEASE and INTERRUPT are still served: a slow backend never stops the others.
// Helpers go after kHelperIdle without work.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <thread>
#include <vector>

#include "native/core/backend_watch.hpp"
#include "native/core/stall_monitor.hpp"
#include "native/fuse/connection.hpp"
#include "native/fuse/session.hpp"

namespace poly {

class Workers {
 public:
  static constexpr size_t kMaxReaders = 4;
  static constexpr size_t kReserve = 2;

  // `ended` is called from a worker when a connection is gone (unmounted or aborted); once per connection.
  Workers(Dispatcher& dispatcher, size_t max_threads, std::function<void(uint32_t instance)> ended);
  ~Workers();

  // How many fds (queues) each connection needs.
  size_t queues() const { return readers_; }
  [[nodiscard]] int add(std::shared_ptr<Connection> connection);
  // No thread takes up a request of the connection any more. True when none handles one either, that is when
  // the caller's is the only reference; false when a thread is held up in a backend for longer than
  // kDrainTime.
  [[nodiscard]] bool remove(const std::shared_ptr<Connection>& connection);
  // Ends all threads after the requests they handle. A thread stuck in a backend is left behind (false).
  bool stop();

  // Shows the requests under way; those for which it says true are answered with EIO.
  void watch(const BackendWatch::Judge& judge);

  size_t threads() const { return threads_.load(std::memory_order_relaxed); }
  size_t busy() const { return monitor_.busy(); }
  uint64_t handled() const { return monitor_.handled(); }

 private:
  struct Buffers;
  // What a thread is at. `turn` is odd meanwhile, and another each time.
  struct UnderWay {
    std::atomic<uint64_t> turn{0}, since{0}, unique{0};
    std::atomic<uint32_t> instance{0}, queue{0};
    std::atomic<uint64_t> answered{0};  // the turn that has got its EIO
  };
  static constexpr auto kDrainTime = std::chrono::milliseconds(500);
  static constexpr int kHelperIdleMs = 10'000;

  void start_thread(size_t queue, bool helper);
  void run(size_t queue, bool helper);
  // Reads and handles until the connection has nothing more. False: nothing was there.
  bool drain(Connection& connection, size_t queue, Buffers& buffers);
  void handle(Connection& connection, size_t queue, Buffers& buffers, std::span<const std::byte> message);
  // Ordinary requests are counted in before they are handled and out after, all and each connection's. What
  // is not admitted is delayed; whoever has finished anything takes up what may be admitted now, of whichever
  // connection.
  bool admit(Connection& connection);
  void leave(Connection& connection);
  void delay(Connection& connection, size_t queue, std::span<const std::byte> message);
  std::shared_ptr<Connection> take_delayed(Connection::Delayed& out);
  void handle_backlog(Buffers& buffers);
  void end(Connection& connection);
  std::shared_ptr<Connection> find(uint32_t instance);
  void grow();

  Dispatcher& dispatcher_;
  const size_t max_threads_;
  const size_t readers_;
  const std::function<void(uint32_t)> ended_;
  const Fd stop_event_;
  const std::vector<Fd> epolls_;  // one per reader, with the stop event in it

  std::shared_mutex connections_lock_;
  std::map<uint32_t, std::shared_ptr<Connection>> connections_;  // guarded by connections_lock_
  std::atomic<uint32_t> connection_count_{0};

  std::atomic<bool> stopping_{false};
  std::atomic<size_t> threads_{0};
  std::atomic<size_t> ordinary_{0};        // requests admitted and not finished
  std::atomic<size_t> backlog_size_{0};    // of all connections
  std::atomic<uint32_t> backlog_turn_{0};  // the connection that had the last turn
  std::atomic<size_t> next_shard_{0};

  std::mutex threads_lock_;
  std::vector<UnderWay*> under_way_;  // guarded by threads_lock_
  std::condition_variable threads_gone_;
  StallMonitor monitor_;  // last: it starts threads
};

}  // namespace poly
