// Queue memory: what the processes of one uid share with a filesystem service: a request queue per core
// group, and a doorbell per server thread.
//
// A server that finds nothing to do sets its bell to kAsleep, looks at the queues once more, and sleeps on
// the bell with futex(2). A client that has enqueued looks for a server that will see it: one that spins,
// else it rings the bell of the server that belongs to its CPU (the cheapest to wake), else that of any
// sleeper. Both sides put a full fence between their store and their look (Dekker), so one of them sees the
// other.
//
// Everything here can be scribbled over by any process of the uid; the service keeps its own copy of what it
// must rely on.
//
// Bells, like queues, are the service's to sleep on and anybody's to ring; a ring that nobody needed costs
// the server a look.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "fastpath/copy.hpp"
#include "fastpath/request_queue.hpp"

namespace poly {

inline constexpr uint32_t kMaxServers = 64, kMaxGroups = 16, kMaxCpus = 1024;

// What clients go by: which server and core group belong to a CPU, and which copy method is best. By the
// service, at its start.
struct Placement {
  uint32_t groups = 1;
  uint8_t group_of_cpu[kMaxCpus] = {};
  uint8_t server_of_cpu[kMaxCpus] = {};
  CopyTable copy = kDefaultCopyTable;
};

struct Doorbell {
  enum : uint32_t { kAwake = 0, kAsleep = 1 };
  alignas(64) std::atomic<uint32_t> word;
};

struct QueueMemoryLayout {
  Placement placement;
  // The CPU, plus one, of the group's server that looks at the queues without sleeping (at most one does):
  // then nobody need be woken.
  struct alignas(64) {
    std::atomic<uint32_t> cpu_plus_one;
  } spinning[kMaxGroups];
  // Bit n: server n sleeps on its bell, or is about to. To find one without looking at every bell.
  alignas(64) std::atomic<uint64_t> asleep;
  Doorbell bells[kMaxServers];
};
static_assert(kMaxServers == 64);

// A view; who maps the memory unmaps it.
class QueueMemory {
 public:
  [[nodiscard]] static size_t bytes(uint32_t groups, uint32_t capacity);
  // The service's, in zeroed memory.
  static void format(void* memory, const Placement&, uint32_t capacity);

  QueueMemory() = default;
  QueueMemory(void* memory, uint32_t groups, uint32_t capacity, QueueOwner owner);

  explicit operator bool() const { return layout_ != nullptr; }
  QueueMemoryLayout& layout() const { return *layout_; }
  RequestQueue& queue(uint32_t group) { return queues_[group]; }
  uint32_t groups() const { return groups_; }
  size_t size() const { return size_; }

 private:
  QueueMemoryLayout* layout_ = nullptr;
  RequestQueue queues_[kMaxGroups];
  uint32_t groups_ = 0;
  size_t size_ = 0;
};

}  // namespace poly
