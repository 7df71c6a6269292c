// The client's side of the fast path (paper: front driver): attaches a process to a filesystem service, and
// runs calls through request buffers and request queues, steps 1-4 and 8 of the paper's communication.
//
// One object per (process, service), in static storage or zeroed memory. No exceptions, no allocation, libc
// only: the preload library links it. Thread safety: acquire, release, run from any thread, also from signal
// handlers; attach and prove from one thread at a time. A forked child must forget() before anything else.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "fastpath/queue_memory.hpp"
#include "fastpath/wire.hpp"

namespace poly {

class FrontDriver {
 public:
  // How long a call waits for a service that has died to come back.
  static constexpr uint64_t kPatienceNs = 10'000'000'000;
  static constexpr uint32_t kPathSize = 108;  // sun_path

  FrontDriver() = default;
  FrontDriver(const FrontDriver&) = delete;
  FrontDriver& operator=(const FrontDriver&) = delete;
  ~FrontDriver() { forget(); }

  // Connects and maps what the service lends. 0 or -errno (ENOENT, ECONNREFUSED: no service there; EPROTO;
  // EPERM: credentials it cannot act for). Again after credentials have changed: same client, new
  // credentials, its open files stay.
  [[nodiscard]] int attach(const char* socket_path, uint32_t buffers = 64);
  [[nodiscard]] bool attached() const { return queues() != nullptr; }
  // Called, with signals blocked, when a service that had died has been found again; it proves again what was
  // proven.
  void on_return(void (*tell)(void*), void* context);
  // Shows the service that this process reaches the instance through its mount. `root_fd`: O_PATH of the
  // mount's root, stays the caller's. 0 or AttachProven::result.
  [[nodiscard]] int prove(uint32_t instance, int root_fd, AttachProven& out);
  // Unmaps and closes without a word to the service: in a forked child all of it is the parent's.
  void forget();
  // The service's number of this client.
  uint32_t client() const {
    const Attachment* attachment = attachment_.load(std::memory_order_acquire);
    return attachment ? attachment->client : 0;
  }
  // Descriptors of the driver's own, which the program must not close: -1 where there is none.
  int socket_fd() const { return socket_; }
  int memory_fd() const { return memory_fd_; }
  // Moves them off the number `fd`, where the program is about to put something of its own; `elsewhere`
  // duplicates a descriptor.
  void make_way(int fd, int (*elsewhere)(int));
  QueueMemory* queues() const {
    Attachment* attachment = attachment_.load(std::memory_order_acquire);
    return attachment ? &attachment->queues : nullptr;
  }

  // A buffer that is the caller's until release(); null when all are in use. `state` and what stands beside
  // it are the driver's, the rest is the caller's to fill: all of `call`, paths, data.
  [[nodiscard]] RequestBuffer* acquire();
  void release(RequestBuffer*);

  // Posts the call in the buffer and waits for its end. The answer's result, or kDeclined when the service is
  // gone and does not come back within kPatienceNs: then nobody knows whether the call was run. Signal
  // handlers run while it waits; the wait goes on. `chunks`, made with next_sequence(), copies out meanwhile
  // what is there already, and perhaps not all of it.
  [[nodiscard]] int32_t run(RequestBuffer&, ChunkReader* chunks = nullptr);
  // Of the next call in the buffer.
  [[nodiscard]] static uint32_t next_sequence(const RequestBuffer&);
  // The best of the allowed methods on this machine, as the service says; null: not attached.
  [[nodiscard]] const CopyTable* copy_table() const;

 private:
  // Who will see a call: a server that spins on another CPU, or one that has to be scheduled first.
  enum class Woken { kSpinner, kSleeper };

  // What one hello came to: seen whole, so that what is hinted to a service is for that service.
  struct Attachment {
    QueueMemory queues;
    uint32_t client;       // the service's number of this client
    uint32_t incarnation;  // which process the service is
  };

  [[nodiscard]] int make_memory(uint32_t buffers);
  [[nodiscard]] int hello();
  [[nodiscard]] int map_queues(int fd, const AttachWelcome&, Attachment*& out);
  Woken post(Attachment&, RequestBuffer&, uint32_t sequence);
  bool is_seen(QueueMemory&, uint32_t group, const RequestBuffer&, uint32_t sequence);
  static Woken ring(QueueMemory&, uint32_t group, uint32_t cpu);
  static bool wake(Doorbell&);
  static void ring_any(QueueMemory&);
  [[nodiscard]] bool spin(RequestBuffer&, uint32_t sequence, ChunkReader*);
  [[nodiscard]] bool await(RequestBuffer&, uint32_t sequence, uint32_t incarnation, ChunkReader*);
  [[nodiscard]] bool service_is_there() const;
  [[nodiscard]] const Attachment* recover(uint32_t known_incarnation);

  RequestBuffer* memory_ = nullptr;
  int memory_fd_ = -1;
  std::atomic<int> socket_{-1};  // replaced with recovery_ held; other threads look whether the service lives
  std::atomic<Attachment*> attachment_{nullptr};
  uint32_t buffers_ = 0;
  uint64_t key_ = 0;
  pthread_mutex_t recovery_ = PTHREAD_MUTEX_INITIALIZER;
  void (*returned_)(void*) = nullptr;
  void* returned_context_ = nullptr;
  char path_[kPathSize] = {};
  std::atomic<uint64_t> free_[kMaxBuffers / 64] = {};  // a set bit: that buffer is free
  // By buffer: spins that failed in a row, how many calls are to go before the next one, and whether the last
  // call was answered while we spun.
  struct Spins {
    std::atomic<uint8_t> failures, skip;
    std::atomic<bool> answered;
  };
  Spins spins_[kMaxBuffers] = {};
};

}  // namespace poly
