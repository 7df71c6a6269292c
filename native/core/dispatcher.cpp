#include "native/core/dispatcher.hpp"

#include <fcntl.h>

#include <utility>

namespace poly {

const std::array<Dispatcher::Handler, kOpCount> Dispatcher::handlers_{
#define X(name, cls, effect) &Dispatcher::op_##name,
    POLY_OPS(X)
#undef X
};

Dispatcher::Dispatcher(PoolMemory& pool)
    : pool_(pool),
      nodes_(pool),
      files_(pool.opens, PoolMemory::kOpens, pool.header->opens_used),
      locks_(pool, *this),
      lower_locks_([this](LowerLocks::Wanted& wanted) { return lock_again(wanted); },
                   [this](const LowerLocks::Wanted& wanted, int result) {
                     tell_lock(wanted.instance, wanted.request, result);
                   }),
      replays_(pool) {}

int Dispatcher::dispatch(Instance& instance, Request& request, Reply& reply, size_t shard) {
  uint64_t start = monotonic_ns();
  int result = perform(instance, request, reply);
  instance.stats.add(request.op, shard, result < 0, monotonic_ns() - start);
  return result;
}

int Dispatcher::perform(Instance& instance, Request& request, Reply& reply) {
  auto op = static_cast<size_t>(request.op);
  if (kOpEffects[op] == OpEffect::kChanges && instance.read_only.load(std::memory_order_relaxed))
    return -EROFS;
  if (instance.host->released.load(std::memory_order_relaxed) && !gives_back(request.op)) return -EIO;
  if (request.fast && (kOpEffects[op] == OpEffect::kChanges || request.op == Op::open))  // O_TRUNC
    return dispatch_fast(instance, request, reply);
  return (this->*handlers_[op])(instance, request, reply);
}

Dispatcher::Use Dispatcher::use(uint32_t instance) {
  std::shared_lock guard(instances_lock_);
  auto it = instances_.find(instance);
  if (it == instances_.end()) return {};
  it->second->fast_calls.fetch_add(1, std::memory_order_relaxed);
  return Use(it->second);
}

int Dispatcher::add_instance(Instance& instance, const char* subdirectory, bool restored) {
  Entry root;
  if (int err = instance.libservice().root(subdirectory, root)) return err;
  if (restored) nodes_.restore(instance.libservice(), instance.id);
  // The root keeps the one lookup of its first service for as long as the instance lives.
  instance.root = restored ? nodes_.id_in(*root.node, instance.id) : 0;
  if (instance.root == 0) {
    if (int err = nodes_.remember(instance.libservice(), instance.id, *root.node, instance.root)) return err;
  }
  if (restored) {
    locks_.restore(nodes_, instance.id);
    take_for_lost(instance);
    take_locks_again(instance);
    nodes_.for_each_id(instance.id, [&](uint64_t id) { view_.anything_told(id); });
    view_.any_name_told(instance.entry_timeout);
  }
  std::unique_lock guard(instances_lock_);
  instances_[instance.id] = &instance;
  return 0;
}

void Dispatcher::detach_instance(Instance& instance) {
  std::unique_lock guard(instances_lock_);
  instances_.erase(instance.id);
  lock_completions_.erase(instance.id);
}

void Dispatcher::drop_instance(Instance& instance) {
  lower_locks_.drop_instance(instance.id);
  locks_.drop_instance(instance.id);
  files_.for_each_live([&](uint32_t index, OpenRecord& record) {
    if (record.instance == instance.id) unregister_file(instance.id, files_.id(index));
  });
  instance.host->directories.clear();
  instance.host->files.clear();
  nodes_.drop_instance(instance.id);
}

void Dispatcher::invalidate_all(Instance& instance) {
  if (!instance.invalidator) return;
  nodes_.for_each_id(instance.id,
                     [&](uint64_t id) { instance.invalidator->invalidate_node(id, 0, 0, nullptr); });
}

void Dispatcher::set_lock_completion(uint32_t instance, LockCompletion* completion) {
  std::unique_lock guard(instances_lock_);
  lock_completions_[instance] = completion;
}

void Dispatcher::tell_lock(uint32_t instance, uint64_t request, int result) {
  std::shared_lock guard(instances_lock_);
  auto it = lock_completions_.find(instance);
  if (it != lock_completions_.end()) it->second->lock_completed(instance, request, result);
}

uint64_t Dispatcher::lendable_files(Instance& instance) {
  uint64_t lendable = 0;
  files_.for_each_live([&](uint32_t index, OpenRecord&) {
    Loan loan;
    Ref<File> open = files_.get(files_.id(index), instance.id);
    if (open && instance.libservice().lend(*open, loan) == 0) lendable++;
  });
  return lendable;
}

int Dispatcher::node(Instance& instance, uint64_t id, Ref<Node>& out) {
  out = nodes_.get(id, instance.id);
  return out ? 0 : -ESTALE;
}

int Dispatcher::first_node(Instance& instance, const Request& request, Ref<Node>& out) {
  if (!request.at) return node(instance, request.node, out);
  out = Ref<Node>::share(request.at);
  return 0;
}

int Dispatcher::second_node(Instance& instance, const Request& request, Ref<Node>& out) {
  if (!request.at2) return node(instance, request.node2, out);
  out = Ref<Node>::share(request.at2);
  return 0;
}

int Dispatcher::file(Instance& instance, uint64_t id, Ref<File>& out) {
  out = files_.get(id, instance.id);
  return out ? 0 : reopen(instance, id, out);
}

int Dispatcher::reopen(Instance& instance, uint64_t id, Ref<File>& out) {
  uint64_t node_id;
  uint32_t flags;
  {
    auto index = static_cast<uint32_t>(id);
    std::lock_guard guard(files_.stripe(index));
    if (!files_.index_of(id) || files_.record(index).instance != instance.id) return -EBADF;
    node_id = files_.record(index).node;
    flags = files_.record(index).flags.load(std::memory_order_relaxed);
  }
  Ref<Node> n;
  if (int err = node(instance, node_id, n)) return err;
  Ref<File> opened;
  if (int err = instance.libservice().open(Caller{}, *n, static_cast<int>(flags), true, opened)) return err;
  out = files_.restore(id, std::move(opened));
  return out ? 0 : -EBADF;
}

int Dispatcher::hold(Instance& instance, Request& request, Node& node, uint64_t& id) {
  if (int err = nodes_.remember(instance.libservice(), instance.id, node, id)) return err;
  if (request.replay) request.replay->entry = id;
  return 0;
}

int Dispatcher::answer(Instance& instance, Request& request, Entry& entry, EntryReply& out) {
  if (!request.fast) {
    if (int err = hold(instance, request, *entry.node, out.node)) return err;
  }
  out.attr = entry.attr;
  observe(instance, *entry.node, entry.attr);
  return 0;
}

int Dispatcher::register_file(Instance& instance, Request& request, uint64_t node, uint32_t flags,
                              bool directory, Ref<File> opened, uint64_t& id) {
  uint32_t index = files_.reserve();
  if (!index) return -ENFILE;
  OpenRecord& record = files_.record(index);
  record.instance = instance.id;
  record.node = node;
  record.flags.store(flags & ~static_cast<uint32_t>(O_CREAT | O_EXCL | O_TRUNC | O_NOCTTY),
                     std::memory_order_relaxed);
  record.directory = directory;
  record.offset.store(0, std::memory_order_relaxed);
  record.client.store(request.client, std::memory_order_relaxed);
  record.spare_descriptor.store(0, std::memory_order_relaxed);
  record.sync_state.store(kSynced, std::memory_order_relaxed);
  // A client's open file has the lookup from here on, and gives it back when it is closed.
  if (request.replay && request.client) {
    request.replay->entry = 0;
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  // Noted before it is live: a death in between leaves an id that means nothing, never an open file nobody
  // knows.
  if (request.replay) request.replay->file = files_.id(index);
  id = files_.publish(index, std::move(opened));
  return 0;
}

void Dispatcher::unregister_file(uint32_t instance, uint64_t id) {
  auto index = static_cast<uint32_t>(id);
  uint64_t held = 0;
  {
    Ref<File> closed;  // closed outside the stripe: close(2) may block
    std::lock_guard guard(files_.stripe(index));
    if (!files_.index_of(id) || files_.record(index).instance != instance) return;
    if (files_.record(index).client.load(std::memory_order_relaxed)) held = files_.record(index).node;
    closed = files_.retire(index);
  }
  if (held) nodes_.forget(instance, held, 1);
}

// A predecessor died between raising a lookup count or opening a file and answering: take it back, the answer
// is made anew.
void Dispatcher::undo_unanswered(Instance& instance, Request& request) {
  if (!request.resent || !request.replay) return;
  // Not ours any more before they go: a death in between leaks a lookup, it never takes one back twice.
  uint64_t file = std::exchange(request.replay->file, 0), entry = std::exchange(request.replay->entry, 0);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (file) unregister_file(instance.id, file);
  if (entry) nodes_.forget(instance.id, entry, 1);
}

}  // namespace poly
