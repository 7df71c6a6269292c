// The queue memory of one uid: made by the service, shared with that uid's clients.
#pragma once

#include <sys/types.h>

#include <atomic>

#include "fastpath/fd.hpp"
#include "fastpath/queue_memory.hpp"

namespace poly {

class UidQueues {
 public:
  static constexpr uint32_t kCapacity = 1024;
  // Who the service itself is at a queue.
  static constexpr QueueOwner kServiceOwner = ~QueueOwner{0};

  explicit UidQueues(uid_t uid) : uid(uid) {}
  ~UidQueues();
  UidQueues(const UidQueues&) = delete;
  UidQueues& operator=(const UidQueues&) = delete;

  [[nodiscard]] int make(const Placement& placement);

  // Puts a server's bell to sleep, or up again; a ring while it slept has done the latter already.
  void lie_down(uint32_t server);
  void get_up(uint32_t server);
  Doorbell& bell(uint32_t server) { return memory.layout().bells[server]; }
  void wake(uint32_t server);
  void wake_all();

  const uid_t uid;
  QueueMemory memory;
  Fd memfd;
  // Wakes in a row that nothing was found for: whoever rings for fun is looked after by the clock.
  std::atomic<uint32_t> false_alarms{0};

 private:
  void* mapped_ = nullptr;
};

}  // namespace poly
