#include "native/core/lower_locks.hpp"

#include <cerrno>

#include "native/core/thread_start.hpp"

namespace poly {

LowerLocks::~LowerLocks() {
  {
    std::lock_guard guard(lock_);
    stopping_ = true;
    work_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

uint64_t LowerLocks::owner_below(const LockOwner& owner) {
  return owner.id ^ uint64_t { owner.instance } * 0x9e3779b97f4a7c15ull;
}

void LowerLocks::park(Wanted wanted) {
  std::lock_guard guard(lock_);
  const std::pair key(wanted.instance, wanted.request);
  parked_[key] = std::move(wanted);
}

bool LowerLocks::take_parked(uint32_t instance, uint64_t request, Wanted& out) {
  std::lock_guard guard(lock_);
  auto it = parked_.find({instance, request});
  if (it == parked_.end()) return false;
  out = std::move(it->second);
  parked_.erase(it);
  return true;
}

void LowerLocks::retry(Wanted wanted) {
  std::lock_guard guard(lock_);
  retries_.push_back({std::move(wanted)});
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  work_.notify_all();
}

bool LowerLocks::cancel(uint32_t instance, uint64_t request) {
  std::lock_guard guard(lock_);
  for (auto& retry : retries_) {
    if (retry.wanted.instance != instance || retry.wanted.request != request) continue;
    retry.cancelled = true;
    work_.notify_all();
    return true;
  }
  return false;
}

void LowerLocks::drop_instance(uint32_t instance) {
  std::lock_guard guard(lock_);
  std::erase_if(parked_, [&](const auto& item) { return item.first.first == instance; });
  for (auto& retry : retries_) retry.cancelled |= retry.wanted.instance == instance;
}

void LowerLocks::settle(std::list<Retry>::iterator retry, int result) {
  Wanted wanted;
  {
    std::lock_guard guard(lock_);
    if (result == -EAGAIN && !retry->cancelled) return;
    wanted = std::move(retry->wanted);
    retries_.erase(retry);
  }
  complete_(wanted, result == -EAGAIN ? -EINTR : result);
}

void LowerLocks::run() {
  begin_thread("poly-locks");
  std::unique_lock guard(lock_);
  while (!stopping_) {
    if (retries_.empty()) {
      work_.wait(guard);
      continue;
    }
    // Others only add at the end, so the iterator holds over what is done without the lock.
    for (auto it = retries_.begin(); it != retries_.end() && !stopping_;) {
      const auto current = it++;
      Wanted attempt = current->wanted;
      const bool cancelled = current->cancelled;
      guard.unlock();
      settle(current, cancelled ? -EAGAIN : try_again_(attempt));
      guard.lock();
    }
    if (!stopping_ && !retries_.empty()) work_.wait_for(guard, kTick);
  }
}

}  // namespace poly
