// Handlers of locks: decided here among the service's callers, and by the backend where others lock there
// too.
#include <fcntl.h>

#include "native/core/dispatcher.hpp"

namespace poly {

namespace {

bool goes_below(Instance& instance, const LockOwner& owner) {
  return owner.kind == LockKind::kPosix && instance.libservice().locks_below();
}

constexpr LockRange kEverything{0, INT64_MAX, F_UNLCK, 0};

}  // namespace

int Dispatcher::op_getlk(Instance& instance, Request& request, Reply& reply) {
  Ref<Node> n;
  if (int err = node(instance, request.node, n)) return err;
  reply.lock = request.lock;
  locks_.test(*n, request.lock_owner, reply.lock);
  if (reply.lock.type != F_UNLCK || !goes_below(instance, request.lock_owner)) return 0;
  Ref<File> f;
  if (int err = file(instance, request.file, f)) return err;
  const LockRange& asked = request.lock;
  FileLock lock{asked.start, asked.end, asked.type, asked.pid};
  if (int err = instance.libservice().test_lock(*f, LowerLocks::owner_below(request.lock_owner), lock))
    return err;
  reply.lock = {lock.start, lock.end, lock.type, lock.pid};
  return 0;
}

int Dispatcher::op_setlk(Instance& instance, Request& request, Reply&) {
  Ref<Node> n;
  if (int err = node(instance, request.node, n)) return err;
  const LockOwner& owner = request.lock_owner;
  if (!goes_below(instance, owner))
    return locks_.set(*n, request.node, request.file, owner, request.lock, request.wait, request.identity);
  if (request.lock.type == F_UNLCK) {
    if (int err = lock_below(instance, request.file, owner, request.lock)) return err;
    return locks_.set(*n, request.node, request.file, owner, request.lock, false, request.identity);
  }
  LowerLocks::Wanted wanted{instance.id,
                            request.identity,
                            request.node,
                            request.file,
                            owner,
                            request.lock,
                            locks_.held(*n, owner, request.lock)};
  return lock_both(instance, wanted, *n, request.wait);
}

int Dispatcher::lock_below(Instance& instance, uint64_t id, const LockOwner& owner, const LockRange& range) {
  if (instance.host->released.load(std::memory_order_relaxed)) return -EIO;
  Ref<File> f;
  if (int err = file(instance, id, f)) return err;
  return instance.libservice().lock(*f, LowerLocks::owner_below(owner),
                                    {range.start, range.end, range.type, range.pid});
}

int Dispatcher::lock_both(Instance& instance, LowerLocks::Wanted& wanted, Node& node, bool wait) {
  // Before it may be granted, which another thread may do at once.
  if (wait) lower_locks_.park(wanted);
  int result = locks_.set(node, wanted.node, wanted.file, wanted.owner, wanted.range, wait, wanted.request);
  if (result == LockTable::kParked) return result;
  LowerLocks::Wanted parked;
  if (wait) (void)lower_locks_.take_parked(wanted.instance, wanted.request, parked);
  if (result) return result;
  result = lock_below(instance, wanted.file, wanted.owner, wanted.range);
  if (result == 0) return 0;
  locks_.put_back(node, wanted.node, wanted.file, wanted.owner, wanted.range, wanted.before);
  if (result != -EAGAIN || !wait) return result;
  lower_locks_.retry(std::move(wanted));
  return LockTable::kParked;
}

// One more attempt at a lock that is waited for.
int Dispatcher::lock_again(LowerLocks::Wanted& wanted) {
  Use instance = use(wanted.instance);
  if (!instance) return -EINTR;
  Ref<Node> n;
  if (int err = node(*instance, wanted.node, n)) return err;
  wanted.before = locks_.held(*n, wanted.owner, wanted.range);
  return lock_both(*instance, wanted, *n, false);
}

// The table has granted what was parked there; the backend has yet to be asked.
void Dispatcher::lock_completed(uint32_t id, uint64_t request, int result) {
  LowerLocks::Wanted wanted;
  if (!lower_locks_.take_parked(id, request, wanted) || result != 0) return tell_lock(id, request, result);
  Use instance = use(id);
  Ref<Node> n;
  if (!instance || node(*instance, wanted.node, n) != 0) return tell_lock(id, request, -EINTR);
  result = lock_below(*instance, wanted.file, wanted.owner, wanted.range);
  if (result == 0) return tell_lock(id, request, 0);
  locks_.put_back(*n, wanted.node, wanted.file, wanted.owner, wanted.range, wanted.before);
  if (result == -EAGAIN)
    lower_locks_.retry(std::move(wanted));
  else
    tell_lock(id, request, result);
}

void Dispatcher::cancel_lock(uint32_t instance, uint64_t request) {
  if (!locks_.cancel(instance, request)) (void)lower_locks_.cancel(instance, request);
}

// close(2): the backend first, so that nobody here is granted what is still locked there.
void Dispatcher::give_up_locks(Instance& instance, Node& node, uint64_t file, const LockOwner& owner) {
  if (goes_below(instance, owner) && !locks_.held(node, owner, kEverything).empty())
    (void)lock_below(instance, file, owner, kEverything);  // a backend that is gone has no locks
  locks_.release_owner(node, owner);
}

// After a restart the backend has none of ours any more. What another host has locked meanwhile is lost to
// its holder, who hears of it as of lost data.
void Dispatcher::take_locks_again(Instance& instance) {
  if (!instance.libservice().locks_below()) return;
  for (auto& held : locks_.posix_locks(instance.id)) {
    if (lock_below(instance, held.file, held.owner, held.range) == 0) continue;
    locks_.put_back(*held.node, nodes_.id_in(*held.node, instance.id), held.file, held.owner, held.range, {});
    const auto index = static_cast<uint32_t>(held.file);
    std::lock_guard guard(files_.stripe(index));
    if (files_.index_of(held.file)) files_.record(index).sync_state.store(kLost);
  }
}

}  // namespace poly
