#include "native/core/pool_memory.hpp"

#include <sys/mman.h>
#include <unistd.h>

namespace poly {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t pages(size_t bytes) {
  return (bytes + kPage - 1) / kPage * kPage;
}

constexpr size_t kInstancesAt = pages(sizeof(PoolHeader));
constexpr size_t kReplaysAt = kInstancesAt + pages(sizeof(InstanceRecord) * PoolMemory::kInstances);
constexpr size_t kLocksAt = kReplaysAt + pages(sizeof(ReplayRecord) * PoolMemory::kReplays);
constexpr size_t kOpensAt = kLocksAt + pages(sizeof(LockRecord) * PoolMemory::kLocks);
constexpr size_t kNodesAt = kOpensAt + pages(sizeof(OpenRecord) * PoolMemory::kOpens);
constexpr size_t kBlocksAt = kNodesAt + pages(sizeof(NodeRecord) * PoolMemory::kNodes);
constexpr size_t kPoolSize = kBlocksAt + pages(sizeof(HandleBlock) * PoolMemory::kBlocks);

}  // namespace

int PoolMemory::create(Fd& memfd) {
  Fd fd(memfd_create("poly-pool", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return -errno;
  if (ftruncate(fd.get(), kPoolSize) != 0) return -errno;
  PoolHeader header{};
  header.magic = kPoolMagic;
  header.abi = kPoolAbi;
  if (pwrite(fd.get(), &header, sizeof header, 0) != sizeof header) return -errno;
  memfd = std::move(fd);
  return 0;
}

int PoolMemory::map(int memfd) {
  struct stat st;
  if (fstat(memfd, &st) != 0) return -errno;
  if (static_cast<size_t>(st.st_size) != kPoolSize) return -EPROTO;
  void* base = mmap(nullptr, kPoolSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memfd, 0);
  if (base == MAP_FAILED) return -errno;
  base_ = base;
  size_ = kPoolSize;
  auto at = [base](size_t offset) { return static_cast<std::byte*>(base) + offset; };
  header = reinterpret_cast<PoolHeader*>(at(0));
  instances = reinterpret_cast<InstanceRecord*>(at(kInstancesAt));
  replays = reinterpret_cast<ReplayRecord*>(at(kReplaysAt));
  locks = reinterpret_cast<LockRecord*>(at(kLocksAt));
  opens = reinterpret_cast<OpenRecord*>(at(kOpensAt));
  nodes = reinterpret_cast<NodeRecord*>(at(kNodesAt));
  blocks = reinterpret_cast<HandleBlock*>(at(kBlocksAt));
  if (header->magic != kPoolMagic || header->abi != kPoolAbi) return -EPROTO;
  header->incarnation.fetch_add(1);
  return 0;
}

PoolMemory::~PoolMemory() {
  if (base_) munmap(base_, size_);
}

}  // namespace poly
