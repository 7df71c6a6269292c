#include "native/fast/uid_queues.hpp"

#include <fcntl.h>
#include <sys/mman.h>

#include "fastpath/waiting.hpp"

namespace poly {

UidQueues::~UidQueues() {
  if (mapped_) munmap(mapped_, memory.size());
}

// Sealed, so that no client can take the pages away under a server's feet.
int UidQueues::make(const Placement& placement) {
  const size_t size = QueueMemory::bytes(placement.groups, kCapacity);
  memfd.reset(memfd_create("poly-queues", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memfd) return -errno;
  if (ftruncate(memfd.get(), static_cast<off_t>(size)) != 0) return -errno;
  if (fcntl(memfd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) return -errno;
  void* shared = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, memfd.get(), 0);
  if (shared == MAP_FAILED) return -errno;
  mapped_ = shared;
  QueueMemory::format(shared, placement, kCapacity);
  memory = QueueMemory(shared, placement.groups, kCapacity, kServiceOwner);
  return 0;
}

void UidQueues::lie_down(uint32_t server) {
  bell(server).word.store(Doorbell::kAsleep, std::memory_order_relaxed);
  memory.layout().asleep.fetch_or(uint64_t{1} << server, std::memory_order_relaxed);
}

void UidQueues::get_up(uint32_t server) {
  bell(server).word.store(Doorbell::kAwake, std::memory_order_relaxed);
  memory.layout().asleep.fetch_and(~(uint64_t{1} << server), std::memory_order_relaxed);
}

void UidQueues::wake(uint32_t server) {
  bell(server).word.store(Doorbell::kAwake);
  futex_wake(bell(server).word, 1);
}

void UidQueues::wake_all() {
  for (uint32_t server = 0; server < kMaxServers; server++) wake(server);
}

}  // namespace poly
