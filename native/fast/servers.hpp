// The back driver (paper): server threads that take hints from the request queues, run the calls they point
// at, and notify the front drivers; steps 5-7 of the paper's communication.
//
// Primaries, one per CPU (at most kMaxPrimaries), pinned, SCHED_BATCH. A server without work looks for a
// little while longer if the last caller was on another CPU (at most one at a time does), and then sleeps on
// its bell. A caller on its own CPU needs the CPU: then it sleeps at once. Helpers exist only while all are
// held up in a backend (stall_monitor.hpp), and go after kHelperIdle. A service may be given a CPU to poll
// on: the server there looks on without end while there are clients, and theirs are the other CPUs.
//
// A server trusts nothing in a client's memory: it copies call and paths out once and has the copy checked.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "native/core/backend_watch.hpp"
#include "native/core/replay.hpp"
#include "native/core/stall_monitor.hpp"
#include "native/fast/clients.hpp"

namespace poly {

// One server thread, as handlers see it.
struct ServerContext {
  size_t shard = 0;                // of statistics
  ReplayRecord* record = nullptr;  // the thread's own (core/replay.hpp)
  CopyTeller teller;               // of the call: its client is on another CPU and may copy out meanwhile
};

// Runs one call. Everything but `data` is a private copy; `data` is the client's and may change meanwhile.
class CallHandler {
 public:
  virtual ~CallHandler() = default;
  // What goes into answer.result.
  [[nodiscard]] virtual int32_t run(AttachedClient& client, uint32_t buffer, uint32_t sequence,
                                    const WireCall& call, std::string_view path, std::string_view path2,
                                    std::span<std::byte> data, WireAnswer& answer, ServerContext&) = 0;
  virtual void begin(ServerContext&) {}
  virtual void end(ServerContext&) {}
};

class Servers {
 public:
  static constexpr uint32_t kMaxPrimaries = 4;

  // `max_threads` includes the helpers; at most kMaxServers. `poll_cpu`: the CPU to poll on, if this process
  // may run there; -1 for none.
  Servers(CallHandler& handler, uint32_t max_threads, int poll_cpu);
  ~Servers() { stop(); }

  const Placement& placement() const { return placement_; }
  void start(Clients& clients);
  // A uid has come or gone.
  void uids_changed();
  // Ends all threads after the calls they run. False: one is held up in a backend.
  bool stop();

  // Shows the calls under way (`instance_of`: by whose client and which call); those for which `judge` says
  // true are answered with EIO.
  void watch(const std::function<uint32_t(FastClient&, const WireCall&)>& instance_of,
             const BackendWatch::Judge& judge);

  size_t threads() const { return threads_.load(std::memory_order_relaxed); }
  const StallMonitor& monitor() const { return monitor_; }

 private:
  struct Server;
  static constexpr uint64_t kHelperIdleNs = 10'000'000'000;
  // A bell that rings for nothing this often in a row is not slept on any more, but looked after by the
  // clock.
  static constexpr uint32_t kMostFalseAlarms = 1000;
  static constexpr uint32_t kMostFruitless = 4096;
  static constexpr uint64_t kTickNs = 10'000'000;
  // Who was woken to spin has cost as much already, and its caller is slow while it hands over.
  static constexpr uint64_t kInvitedSpinNs = 100'000;  // and as long as such a call itself takes, twice
  // A client that called from a CPU so lately is taken to be there still. Some ticks of the coarse clock.
  static constexpr uint64_t kNeighboursNs = 10'000'000;
  static constexpr uint32_t kLeastPatience = 2, kMostPatience = 1024;

  void start_thread(uint32_t number);
  void grow();
  void run(Server&);
  void prepare(Server&);
  void renew_uids(Server&);
  // Takes at most one hint from each queue. True: something was run.
  bool round(Server&);
  bool serve(Server&, UidQueues&, Hint);
  bool serve(Server&, AttachedClient&, RequestBuffer&);
  void finish(RequestBuffer&, uint32_t taken, uint32_t cpu);
  // False: the call has been answered meanwhile.
  bool come_back(Server&);
  bool fruitless(Server&);
  bool anything(const Server&) const;
  bool spin(Server&);
  // Has the server a CPU to itself, and clients?
  bool polls(const Server&) const;
  // False: a helper that was not needed for a long time.
  bool sleep(Server&);
  int wait_on_bells(Server&, uint32_t own_bell, uint64_t timeout_ns);
  void recruit(Server&);
  static uint64_t bytes_moved(const Server&);
  // Are there clients on the server's own CPU, other than this one?
  bool has_neighbours(uint32_t number, const RequestBuffer* caller) const;

  CallHandler& handler_;
  std::atomic<Clients*> clients_{nullptr};  // set once, while clients may attach already
  const uint32_t max_threads_;
  const std::vector<uint32_t> cpus_;  // of the primaries, by number
  const bool polling_;                // the first primary does
  uint32_t primaries_;
  Placement placement_;
  std::atomic<bool> stopping_{false};
  std::array<std::atomic<uint32_t>, kMaxGroups> spinner_{};  // CPU plus one of the group's spinning server
  // Servers that are woken to spin for a buffer, not to serve, and for how long.
  struct Invitation {
    std::atomic<const RequestBuffer*> buffer{nullptr};
    std::atomic<uint64_t> spin_ns{0};
  };
  std::array<Invitation, kMaxServers> invited_{};
  std::atomic<uint32_t> patience_{kLeastPatience};  // see recruit()
  // Of each server, the client that last called from its own CPU, by its buffer (only compared), and when
  // (coarse_ns).
  struct alignas(64) Neighbour {
    std::atomic<const RequestBuffer*> buffer{nullptr};
    std::atomic<uint64_t> called_at{0};
  };
  std::array<Neighbour, kMaxServers> neighbours_{};
  std::atomic<size_t> threads_{0};
  std::atomic<uint32_t> no_uid_bell_{0};  // rung when uids change; all they sleep on while nobody is attached
  std::mutex lock_;
  std::condition_variable gone_;
  std::array<Server*, kMaxServers> running_{};  // guarded by lock_, by number
  uint64_t used_ = 0;                           // numbers of running servers, guarded by lock_
  StallMonitor monitor_;
};

}  // namespace poly
