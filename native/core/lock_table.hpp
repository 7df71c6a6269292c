// POSIX (fcntl), open-file-description and flock locks of all instances: one table, so that both front ends
// and all mounts of one libservice exclude each other. Waits are parked here, never on a thread, and end by
// grant, cancel (FUSE_INTERRUPT), deadlock (EDEADLK, POSIX locks only), or the end of their instance.
//
// Each held lock has a record in pool memory, written before a release of what it replaces, so a death in the
// middle leaves too much locked, never too little; the repeated request then settles it. Lock order: lock_ is
// a leaf for callers; completions are called after it is released.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "native/core/node_table.hpp"

namespace poly {

enum class LockKind : uint8_t { kPosix, kFlock };

struct LockOwner {
  uint32_t instance;
  uint64_t id;  // FUSE lock_owner: the process's files_struct, the open file description, or the flock file
  LockKind kind;
  bool operator==(const LockOwner&) const = default;
};

struct LockRange {
  uint64_t start = 0;
  uint64_t end = 0;  // inclusive; INT64_MAX: to the end of any file
  int type = 0;      // F_RDLCK, F_WRLCK, F_UNLCK
  pid_t pid = 0;
};

// Gets the end of a parked wait: 0 granted, or -errno. Called without locks held, from any thread.
class LockCompletion {
 public:
  virtual ~LockCompletion() = default;
  virtual void lock_completed(uint32_t instance, uint64_t request, int result) = 0;
};

class LockTable {
 public:
  static constexpr int kParked = 1;

  LockTable(PoolMemory& pool, LockCompletion& completion);

  // The first lock that stands in the way, or F_UNLCK in `range.type`.
  void test(Node& node, const LockOwner& owner, LockRange& range);
  // 0, -EAGAIN, -EDEADLK, -ENOLCK, or kParked when `wait` and `request` will be completed later.
  // `file`: the open file through which it is asked for.
  [[nodiscard]] int set(Node& node, uint64_t node_id, uint64_t file, const LockOwner& owner,
                        const LockRange& range, bool wait, uint64_t request);
  // What the owner holds of the node within `of`, and that again as it was before a set() that is to be
  // undone.
  std::vector<LockRange> held(Node& node, const LockOwner& owner, const LockRange& of);
  void put_back(Node& node, uint64_t node_id, uint64_t file, const LockOwner& owner, const LockRange& of,
                const std::vector<LockRange>& before);
  // All POSIX locks of an instance.
  struct Holding {
    Ref<Node> node;
    LockOwner owner;
    uint64_t file;
    LockRange range;
  };
  std::vector<Holding> posix_locks(uint32_t instance);
  // close(2) of any descriptor by its owner (POSIX) or of the last one (flock).
  void release_owner(Node& node, const LockOwner& owner);
  // The last close(2) of an open file. Whatever is still locked through it belongs to the open file
  // description (F_OFD_SETLK): every process that used it has closed it, and each close has released that
  // process's own locks. FUSE says no more.
  void release_file(Node& node, uint64_t file);
  // True if the wait was still parked; it is then completed with -EINTR.
  bool cancel(uint32_t instance, uint64_t request);
  void drop_instance(uint32_t instance);
  // After a restart: takes up the records of an instance.
  void restore(NodeTable& nodes, uint32_t instance);
  void count(uint32_t instance, uint64_t& held, uint64_t& parked);

 private:
  struct Held {
    LockOwner owner;
    uint64_t file;
    LockRange range;
    uint32_t record;
  };
  struct Waiter {
    LockOwner owner;
    uint64_t file;
    LockRange range;
    uint64_t node_id;
    uint64_t request;
  };
  struct NodeLocks {
    Ref<Node> node;
    std::vector<Held> held;
    std::list<Waiter> waiters;
  };
  struct Completed {
    uint32_t instance;
    uint64_t request;
    int result;
  };
  using Completions = std::vector<Completed>;

  static bool conflicts(const Held& held, const LockOwner& owner, const LockRange& range);
  const Held* find_conflict(const NodeLocks& locks, const LockOwner& owner, const LockRange& range) const;
  bool deadlocks(const NodeLocks& wanted, const LockOwner& asker, const LockRange& range) const;
  int apply(NodeLocks& locks, uint64_t node_id, uint64_t file, const LockOwner& owner,
            const LockRange& range);
  int add(NodeLocks& locks, uint64_t node_id, uint64_t file, const LockOwner& owner, const LockRange& range);
  void remove(NodeLocks& locks, size_t index);
  template <typename Matches>
  void release_if(Node& node, Matches matches);
  void give_up_other_type(NodeLocks& locks, const LockOwner& owner, int type, Completions& done);
  void wake(NodeLocks& locks, Completions& done);
  Ref<Node> drop_if_empty(Node* node);
  void complete(const Completions& done);

  PoolMemory& pool_;
  LockCompletion& completion_;
  std::mutex lock_;
  std::unordered_map<Node*, std::unique_ptr<NodeLocks>> nodes_;  // guarded by lock_
  std::vector<uint32_t> free_;                                   // guarded by lock_
};

}  // namespace poly
