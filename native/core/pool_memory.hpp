// Pool memory: what a filesystem service must not lose when it dies, in a memfd that the keeper holds.
//
// Flat tables of fixed-size records, indices instead of pointers, no lists and no hash tables: those are
// rebuilt in the service's heap from a scan. Every record is published by one store of its state word
// (release) after its other fields, and retired by one store, so a death between any two instructions leaves
// each record whole or absent. The memfd is sparse: capacities are address space, only touched pages are
// memory.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "fastpath/fd.hpp"
#include "libservices/libservice.hpp"

namespace poly {

inline constexpr uint64_t kPoolMagic = 0x6c6f6f50796c6f50;  // "PolyPool"
// Fields that took the place of reserved ones, which were zero in every pool, mean with zero what was there
// before them, so that they are no new ABI: OpenRecord::client and sync_state,
// InstanceRecord::control_secret.
inline constexpr uint32_t kPoolAbi = 1;

// State word of a record: generation in the upper 31 bits, bit 0 = live. The generation grows at every
// reservation and retirement, so an id (index | generation << 32) never means a later tenant of the same
// record. Free and live are told apart by bit 0 alone.
struct NodeRecord {
  static constexpr size_t kInline = 104;
  std::atomic<uint32_t> state;
  std::atomic<uint32_t> instance;  // counted by scans without a lock
  std::atomic<uint64_t> lookups;   // FUSE nlookup, plus fast-path references
  std::atomic<uint64_t> handle;    // size << 32 | (0: inline_handle, else index of a HandleBlock)
  std::byte inline_handle[kInline];
};
static_assert(sizeof(NodeRecord) == 128);

struct HandleBlock {
  std::byte bytes[NodeHandle::kMax];
};
static_assert(sizeof(HandleBlock) == 416);

// A service open file: the state both front ends share.
struct OpenRecord {
  std::atomic<uint32_t> state;
  std::atomic<uint32_t> instance;  // counted by scans without a lock
  uint64_t node;                   // node id
  std::atomic<uint32_t> flags;     // open(2) flags as the caller gave them
  uint32_t directory;              // 1: opened by opendir
  std::atomic<uint64_t> offset;    // shared file offset (fast path)
  // Key of the fast-path client whose file it is; 0: FUSE's. A client's open file holds one lookup of its
  // node.
  std::atomic<uint64_t> client;
  // 1: the next FLUSH is no close(2) of the program's; then that FLUSH's number, odd, so that it is none
  // either when it is asked again. Set by promotion, where the library opens a descriptor, duplicates it to
  // where the program has it, and closes the first: the process keeps its POSIX locks.
  std::atomic<uint32_t> spare_descriptor;
  // SyncState: what was written through it and may be lost, where the libservice loses any (loses_unsynced).
  std::atomic<uint32_t> sync_state;
  uint64_t reserved[2];
};
static_assert(sizeof(OpenRecord) == 64);

enum SyncState : uint32_t {
  kSynced = 0,
  kUnsynced = 1,
  kLost = 2,  // unsynced when a service died: the next fsync(2) or close(2) says EIO, once
};

struct LockRecord {
  std::atomic<uint32_t> state;
  uint32_t instance;
  uint64_t node;
  uint64_t file;
  uint64_t owner;
  uint64_t start;
  uint64_t end;  // inclusive
  int32_t pid;
  uint8_t type;  // F_RDLCK or F_WRLCK
  uint8_t kind;  // LockKind
  uint8_t reserved[10];
};
static_assert(sizeof(LockRecord) == 64);

// One request in flight (core/replay.hpp says how it is used).
struct ReplayRecord {
  std::atomic<uint32_t> phase;
  uint32_t instance;
  uint64_t identity;
  uint32_t op;
  int32_t result;
  uint64_t entry;  // node id whose lookup count the unanswered reply has already raised; 0: none
  uint64_t file;   // file id the unanswered reply has already opened; 0: none
  // Append: where the data goes. Removal: the victim's node id, or 0. Promotion and release: the file's id.
  uint64_t offset;
  uint64_t device;  // evidence: the inode that must lose or gain the name
  uint64_t ino;
  int64_t birth_seconds;
  uint64_t birth_nanoseconds;
  uint64_t reserved[6];
};
static_assert(sizeof(ReplayRecord) == 128);

struct InstanceRecord {
  std::atomic<uint32_t> state;  // 0 free, 1 known, 2 INIT answered
  uint32_t id;
  uint64_t root;  // node id of the FUSE root
  uint32_t proto_minor;
  uint32_t max_write;
  std::atomic<uint64_t> init_flags;  // what its kernel and we have agreed upon (FUSE_INIT)
  // What names of the control directory are made from (core/control.hpp); 0, 0: none yet.
  uint64_t control_secret[2];
  uint64_t reserved[2];
};
static_assert(sizeof(InstanceRecord) == 64);

struct PoolHeader {
  uint64_t magic;
  uint32_t abi;
  std::atomic<uint32_t> incarnation;
  // One more than the highest record ever used, so that a scan need not touch the untouched.
  std::atomic<uint32_t> nodes_used, blocks_used, opens_used, locks_used, replays_used;
  uint32_t reserved[9];
};
static_assert(sizeof(PoolHeader) == 72);

class PoolMemory {
 public:
  static constexpr uint32_t kNodes = 8u << 20, kBlocks = 1u << 20, kOpens = 1u << 20, kLocks = 1u << 18;
  static constexpr uint32_t kReplays = 4096, kInstances = 4096;

  // Makes a new memfd, or maps what a predecessor left. -EPROTO: not ours, or of another ABI.
  [[nodiscard]] static int create(Fd& memfd);
  [[nodiscard]] int map(int memfd);
  ~PoolMemory();

  PoolHeader* header = nullptr;
  NodeRecord* nodes = nullptr;
  HandleBlock* blocks = nullptr;
  OpenRecord* opens = nullptr;
  LockRecord* locks = nullptr;
  ReplayRecord* replays = nullptr;
  InstanceRecord* instances = nullptr;

 private:
  void* base_ = nullptr;
  size_t size_ = 0;
};

}  // namespace poly
