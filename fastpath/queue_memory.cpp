#include "fastpath/queue_memory.hpp"

namespace poly {
namespace {

constexpr size_t kPage = 4096;

constexpr size_t layout_bytes() {
  return (sizeof(QueueMemoryLayout) + kPage - 1) & ~(kPage - 1);
}

}  // namespace

size_t QueueMemory::bytes(uint32_t groups, uint32_t capacity) {
  return layout_bytes() + groups * RequestQueue::bytes(capacity);
}

void QueueMemory::format(void* memory, const Placement& placement, uint32_t capacity) {
  auto* layout = static_cast<QueueMemoryLayout*>(memory);
  layout->placement = placement;
  for (uint32_t i = 0; i < placement.groups; i++)
    RequestQueue::format(static_cast<char*>(memory) + layout_bytes() + i * RequestQueue::bytes(capacity),
                         capacity);
}

QueueMemory::QueueMemory(void* memory, uint32_t groups, uint32_t capacity, QueueOwner owner)
    : layout_(static_cast<QueueMemoryLayout*>(memory)), groups_(groups), size_(bytes(groups, capacity)) {
  for (uint32_t i = 0; i < groups; i++) {
    char* at = static_cast<char*>(memory) + layout_bytes() + i * RequestQueue::bytes(capacity);
    queues_[i] = RequestQueue(at, capacity, owner);
  }
}

}  // namespace poly
