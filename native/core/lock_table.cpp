#include "native/core/lock_table.hpp"

#include <fcntl.h>

#include <algorithm>
#include <set>
#include <tuple>

namespace poly {

LockTable::LockTable(PoolMemory& pool, LockCompletion& completion) : pool_(pool), completion_(completion) {
  for (uint32_t i = pool.header->locks_used.load(); i-- > 0;) {
    if ((pool.locks[i].state.load() & 1) == 0) free_.push_back(i);
  }
}

bool LockTable::conflicts(const Held& held, const LockOwner& owner, const LockRange& range) {
  return held.owner.kind == owner.kind && !(held.owner == owner) && held.range.start <= range.end &&
         range.start <= held.range.end && (held.range.type == F_WRLCK || range.type == F_WRLCK);
}

const LockTable::Held* LockTable::find_conflict(const NodeLocks& locks, const LockOwner& owner,
                                                const LockRange& range) const {
  if (range.type == F_UNLCK) return nullptr;
  const Held* first = nullptr;  // in the file: what F_GETLK reports
  for (auto& held : locks.held) {
    if (conflicts(held, owner, range) && (!first || held.range.start < first->range.start)) first = &held;
  }
  return first;
}

// Would `asker`, waiting for this, wait for itself? Follows who waits for whom, each owner once (fcntl(2),
// EDEADLK). All who hold a shared lock are waited for, so the circle may close through any of them.
bool LockTable::deadlocks(const NodeLocks& wanted, const LockOwner& asker, const LockRange& range) const {
  std::vector<LockOwner> queue;
  std::set<std::tuple<uint32_t, uint64_t, LockKind>> seen;
  auto add_holders = [&](const NodeLocks& locks, const LockOwner& owner, const LockRange& of) {
    for (auto& held : locks.held) {
      const LockOwner& holder = held.owner;
      if (conflicts(held, owner, of) && seen.emplace(holder.instance, holder.id, holder.kind).second)
        queue.push_back(holder);
    }
  };
  add_holders(wanted, asker, range);
  for (size_t i = 0; i < queue.size(); i++) {
    const LockOwner holder = queue[i];
    if (holder == asker) return true;
    for (auto& [node, locks] : nodes_) {
      for (auto& waiter : locks->waiters) {
        if (waiter.owner == holder) add_holders(*locks, holder, waiter.range);
      }
    }
  }
  return false;
}

void LockTable::test(Node& node, const LockOwner& owner, LockRange& range) {
  std::lock_guard guard(lock_);
  auto it = nodes_.find(&node);
  const Held* conflict = it == nodes_.end() ? nullptr : find_conflict(*it->second, owner, range);
  if (conflict)
    range = conflict->range;
  else
    range.type = F_UNLCK;
}

int LockTable::add(NodeLocks& locks, uint64_t node_id, uint64_t file, const LockOwner& owner,
                   const LockRange& range) {
  uint32_t index;
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else {
    index = pool_.header->locks_used.load();
    if (index == PoolMemory::kLocks) return -ENOLCK;
    pool_.header->locks_used.store(index + 1);
  }
  LockRecord& record = pool_.locks[index];
  record.instance = owner.instance;
  record.node = node_id;
  record.file = file;
  record.owner = owner.id;
  record.start = range.start;
  record.end = range.end;
  record.pid = range.pid;
  record.type = static_cast<uint8_t>(range.type);
  record.kind = static_cast<uint8_t>(owner.kind);
  record.state.store(record.state.load() | 1, std::memory_order_release);
  locks.held.push_back({owner, file, range, index});
  return 0;
}

void LockTable::remove(NodeLocks& locks, size_t index) {
  LockRecord& record = pool_.locks[locks.held[index].record];
  record.state.store((record.state.load() | 1) + 1, std::memory_order_release);
  free_.push_back(locks.held[index].record);
  locks.held.erase(locks.held.begin() + static_cast<ptrdiff_t>(index));
}

// Sets, replaces or removes a range of the owner's, splitting and joining as fcntl(2) says. New pieces are
// recorded before old ones go.
int LockTable::apply(NodeLocks& locks, uint64_t node_id, uint64_t file, const LockOwner& owner,
                     const LockRange& range) {
  LockRange joined = range;
  std::vector<LockRange> pieces;
  std::vector<uint32_t> old;
  for (auto& held : locks.held) {
    if (!(held.owner == owner)) continue;
    const LockRange& h = held.range;
    bool same = h.type == range.type;
    bool touches =
        same ? (h.start == 0 || h.start - 1 <= joined.end) && (joined.start == 0 || joined.start - 1 <= h.end)
             : h.start <= range.end && range.start <= h.end;
    if (!touches) continue;
    old.push_back(held.record);
    if (same) {
      joined.start = std::min(joined.start, h.start);
      joined.end = std::max(joined.end, h.end);
    } else {
      if (h.start < range.start) pieces.push_back({h.start, range.start - 1, h.type, h.pid});
      if (h.end > range.end) pieces.push_back({range.end + 1, h.end, h.type, h.pid});
    }
  }
  if (range.type != F_UNLCK) pieces.push_back(joined);
  const size_t before = locks.held.size();
  for (auto& piece : pieces) {
    if (int err = add(locks, node_id, file, owner, piece)) {
      while (locks.held.size() > before) remove(locks, locks.held.size() - 1);
      return err;
    }
  }
  for (uint32_t record : old) {
    auto it = std::ranges::find_if(locks.held, [&](const Held& held) { return held.record == record; });
    remove(locks, static_cast<size_t>(it - locks.held.begin()));
  }
  return 0;
}

int LockTable::set(Node& node, uint64_t node_id, uint64_t file, const LockOwner& owner,
                   const LockRange& range, bool wait, uint64_t request) {
  Completions done;
  int result;
  Ref<Node> dropped;
  {
    std::lock_guard guard(lock_);
    auto& locks = nodes_[&node];
    if (!locks) locks = std::make_unique<NodeLocks>(NodeLocks{Ref<Node>::share(&node), {}, {}});
    if (owner.kind == LockKind::kFlock) give_up_other_type(*locks, owner, range.type, done);
    const Held* conflict = find_conflict(*locks, owner, range);
    if (!conflict) {
      result = apply(*locks, node_id, file, owner, range);
      wake(*locks, done);
    } else if (!wait) {
      result = -EAGAIN;
    } else if (owner.kind == LockKind::kPosix && deadlocks(*locks, owner, range)) {
      result = -EDEADLK;
    } else {
      locks->waiters.push_back({owner, file, range, node_id, request});
      result = kParked;
    }
    dropped = drop_if_empty(&node);
  }
  complete(done);
  return result;
}

std::vector<LockRange> LockTable::held(Node& node, const LockOwner& owner, const LockRange& of) {
  std::vector<LockRange> ranges;
  std::lock_guard guard(lock_);
  auto it = nodes_.find(&node);
  if (it == nodes_.end()) return ranges;
  for (auto& held : it->second->held) {
    const LockRange& r = held.range;
    if (!(held.owner == owner) || r.end < of.start || of.end < r.start) continue;
    ranges.push_back({std::max(r.start, of.start), std::min(r.end, of.end), r.type, r.pid});
  }
  return ranges;
}

void LockTable::put_back(Node& node, uint64_t node_id, uint64_t file, const LockOwner& owner,
                         const LockRange& of, const std::vector<LockRange>& before) {
  LockRange none = of;
  none.type = F_UNLCK;
  Completions done;
  Ref<Node> dropped;
  {
    std::lock_guard guard(lock_);
    auto it = nodes_.find(&node);
    if (it == nodes_.end()) return;
    // Splitting what lies around it may want one record more than there is, and then it stays locked.
    (void)apply(*it->second, node_id, file, owner, none);
    for (auto& range : before) (void)apply(*it->second, node_id, file, owner, range);
    wake(*it->second, done);
    dropped = drop_if_empty(&node);
  }
  complete(done);
}

std::vector<LockTable::Holding> LockTable::posix_locks(uint32_t instance) {
  std::vector<Holding> found;
  std::lock_guard guard(lock_);
  for (auto& [node, locks] : nodes_) {
    for (auto& held : locks->held) {
      if (held.owner.instance == instance && held.owner.kind == LockKind::kPosix)
        found.push_back({locks->node, held.owner, held.file, held.range});
    }
  }
  return found;
}

// flock(2): a conversion is not atomic. What is held goes first, and is lost if the new lock is not to be
// had; so two who hold a shared lock and both want it exclusive do not wait for each other for ever.
void LockTable::give_up_other_type(NodeLocks& locks, const LockOwner& owner, int type, Completions& done) {
  bool gave_up = false;
  for (size_t i = locks.held.size(); i-- > 0;) {
    if (!(locks.held[i].owner == owner) || locks.held[i].range.type == type) continue;
    remove(locks, i);
    gave_up = true;
  }
  if (gave_up) wake(locks, done);
}

void LockTable::wake(NodeLocks& locks, Completions& done) {
  for (auto it = locks.waiters.begin(); it != locks.waiters.end();) {
    if (find_conflict(locks, it->owner, it->range)) {
      ++it;
      continue;
    }
    int result = apply(locks, it->node_id, it->file, it->owner, it->range);
    done.push_back({it->owner.instance, it->request, result});
    it = locks.waiters.erase(it);
  }
}

Ref<Node> LockTable::drop_if_empty(Node* node) {
  auto it = nodes_.find(node);
  if (it == nodes_.end() || !it->second->held.empty() || !it->second->waiters.empty()) return nullptr;
  Ref<Node> dropped = std::move(it->second->node);
  nodes_.erase(it);
  return dropped;
}

template <typename Matches>
void LockTable::release_if(Node& node, Matches matches) {
  Completions done;
  Ref<Node> dropped;
  {
    std::lock_guard guard(lock_);
    auto it = nodes_.find(&node);
    if (it == nodes_.end()) return;
    NodeLocks& locks = *it->second;
    for (size_t i = locks.held.size(); i-- > 0;) {
      if (matches(locks.held[i])) remove(locks, i);
    }
    wake(locks, done);
    dropped = drop_if_empty(&node);
  }
  complete(done);
}

void LockTable::release_owner(Node& node, const LockOwner& owner) {
  release_if(node, [&](const Held& held) { return held.owner == owner; });
}

void LockTable::release_file(Node& node, uint64_t file) {
  release_if(node, [&](const Held& held) { return held.file == file; });
}

bool LockTable::cancel(uint32_t instance, uint64_t request) {
  Ref<Node> dropped;
  {
    std::lock_guard guard(lock_);
    Node* found = nullptr;
    for (auto& [node, locks] : nodes_) {
      auto matches = [&](const Waiter& w) { return w.owner.instance == instance && w.request == request; };
      if (locks->waiters.remove_if(matches) != 0) {
        found = node;
        break;
      }
    }
    if (!found) return false;
    dropped = drop_if_empty(found);
  }
  completion_.lock_completed(instance, request, -EINTR);
  return true;
}

void LockTable::drop_instance(uint32_t instance) {
  Completions done;
  std::vector<Ref<Node>> dropped;
  {
    std::lock_guard guard(lock_);
    for (auto it = nodes_.begin(); it != nodes_.end();) {
      NodeLocks& locks = *it->second;
      locks.waiters.remove_if([&](const Waiter& w) { return w.owner.instance == instance; });
      for (size_t i = locks.held.size(); i-- > 0;) {
        if (locks.held[i].owner.instance == instance) remove(locks, i);
      }
      wake(locks, done);
      Node* node = (it++)->first;
      dropped.push_back(drop_if_empty(node));
    }
  }
  complete(done);
}

void LockTable::restore(NodeTable& nodes, uint32_t instance) {
  std::lock_guard guard(lock_);
  for (uint32_t i = 0; i < pool_.header->locks_used.load(); i++) {
    LockRecord& r = pool_.locks[i];
    if ((r.state.load(std::memory_order_acquire) & 1) == 0 || r.instance != instance) continue;
    Ref<Node> node = nodes.get(r.node, instance);
    if (!node) {
      r.state.store((r.state.load() | 1) + 1, std::memory_order_release);
      free_.push_back(i);
      continue;
    }
    auto& locks = nodes_[node.get()];
    if (!locks) locks = std::make_unique<NodeLocks>(NodeLocks{node, {}, {}});
    locks->held.push_back(
        {{r.instance, r.owner, static_cast<LockKind>(r.kind)}, r.file, {r.start, r.end, r.type, r.pid}, i});
  }
}

void LockTable::count(uint32_t instance, uint64_t& held, uint64_t& parked) {
  held = parked = 0;
  std::lock_guard guard(lock_);
  for (auto& [node, locks] : nodes_) {
    held += static_cast<uint64_t>(
        std::ranges::count_if(locks->held, [&](const Held& h) { return h.owner.instance == instance; }));
    parked += static_cast<uint64_t>(
        std::ranges::count_if(locks->waiters, [&](const Waiter& w) { return w.owner.instance == instance; }));
  }
}

void LockTable::complete(const Completions& done) {
  for (auto& c : done) completion_.lock_completed(c.instance, c.request, c.result);
}

}  // namespace poly
