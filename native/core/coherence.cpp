// How a change reaches the caches of kernels.
//
// A change that a kernel asked for: that kernel knows; the others over the same libservice are told, by the
// notifier's threads, soon. A change that the fast path asked for: all kernels are told, the one in front of
// the same instance too, before the call is answered, and of nothing that they cannot hold (kernel_view.hpp).
#include <linux/limits.h>

#include "native/core/changes.hpp"
#include "native/core/dispatcher.hpp"

namespace poly {
namespace {

// For so long a fast-path call waits until a notification is out. Notifications wait for locks that processes
// hold in the kernel, usually for microseconds; but someone who lists a directory into memory that he does
// not let be paged in holds its lock for as long as he likes, and must not have our threads with it. (Nor is
// that a reason to abort the connection: it would be his to give.) What is late goes out later: Reply::told
// says when. While it is, no further call waits for the same kernel.
constexpr auto kPatience = std::chrono::seconds(1);

// A kernel's write may have been on its way to us for so long.
constexpr uint64_t kUnsettled = 1'000'000'000;

bool prompt(uint64_t since) {
  return coarse_ns() - since < KernelView::kUnderWay / 2;
}

}  // namespace

// What must be noted as dropped when all has been told.
struct Dispatcher::Telling {
  struct DroppedNode {
    uint64_t id;
    KernelView::Held held;
    bool pages;
  };
  struct DroppedName {
    uint64_t directory;
    const char* name;
    uint64_t held;
  };
  const TicketRef& sent() {
    if (!ticket) ticket = std::make_shared<Ticket>();
    return ticket;
  }
  std::vector<DroppedNode> nodes;
  std::vector<DroppedName> names;
  TicketRef ticket;  // of what the notifier's threads send; null when there is nothing
  bool late = false;
};

bool Dispatcher::observe(Instance& instance, Node& node, const Attr& attr) {
  if (instance.private_backend() || !S_ISREG(attr.stx_mode)) return false;
  uint64_t mtime = static_cast<uint64_t>(attr.stx_mtime.tv_sec) * 1'000'000'000 + attr.stx_mtime.tv_nsec;
  uint64_t version = (mtime ^ attr.stx_size * 0x9e3779b97f4a7c15ull) | 1;  // never 0, which is "not seen yet"
  bool ours = node.changed_by_us.load(std::memory_order_relaxed) && node.changed_by_us.exchange(false);
  uint64_t seen = node.seen_version.load(std::memory_order_relaxed);
  if (seen == version) return false;
  node.seen_version.store(version, std::memory_order_relaxed);
  if (ours || seen == 0) return false;
  uint64_t id = nodes_.id_in(node, instance.id);
  if (id && instance.invalidator) instance.invalidator->invalidate_node(id, 0, 0, nullptr);
  tell_others(instance, node,
              [](Invalidator& to, uint32_t, uint64_t other) { to.invalidate_node(other, 0, 0, nullptr); });
  return true;
}

// Calls tell(invalidator, instance, node id) for each other instance that knows the node. Node ids are taken
// before the invalidators are called: they take locks of their own.
template <typename Tell>
void Dispatcher::tell_others(Instance& instance, Node& node, Tell tell) {
  if (!instance.shares()) return;
  std::shared_lock guard(instances_lock_);
  std::vector<NodeBinding> bindings;
  {
    std::lock_guard binding_guard(node.binding_lock);
    bindings = node.bindings;
  }
  for (auto& binding : bindings) {
    auto it = instances_.find(binding.instance);
    if (binding.instance == instance.id || it == instances_.end() || !it->second->invalidator) continue;
    tell(*it->second->invalidator, binding.instance, nodes_.id_of(binding.record));
  }
}

void Dispatcher::changed(Instance& instance, Node& node, int64_t offset, int64_t length) {
  node.changed_by_us.store(true);
  if (Changes* changes = Changes::current()) {
    const uint64_t now = coarse_ns();
    node.fast_changed.store(now);
    if (offset >= 0) {
      node.uncached_change.store(now);
      node.uncached_write.store(0);
    }
    changes->add({Ref<Node>::share(&node), nullptr, nullptr, offset, length});
    return;
  }
  tell_others(instance, node, [&](Invalidator& to, uint32_t, uint64_t id) {
    to.invalidate_node(id, offset, length, nullptr);
  });
}

void Dispatcher::entry_changed(Instance& instance, Node& dir, const char* name) {
  if (Changes* changes = Changes::current()) {
    dir.fast_changed.store(coarse_ns());
    changes->add({Ref<Node>::share(&dir), name, nullptr, -1, 0});
    return;
  }
  tell_others(instance, dir, [&](Invalidator& to, uint32_t, uint64_t id) {
    to.invalidate_entry(id, name, nullptr);
    to.invalidate_node(id, -1, 0, nullptr);  // contents are not cached (handle_opendir)
  });
}

void Dispatcher::entry_removed(Instance& instance, Node& dir, const char* name, Node& victim, bool last) {
  // A kernel that is told of a removal takes it for that of the last name (fuse_reverse_inval_entry).
  if (!last) return entry_changed(instance, dir, name);
  if (Changes* changes = Changes::current()) {
    dir.fast_changed.store(coarse_ns());
    changes->add({Ref<Node>::share(&dir), name, Ref<Node>::share(&victim), -1, 0});
    return;
  }
  tell_others(instance, dir, [&](Invalidator& to, uint32_t other, uint64_t id) {
    to.delete_entry(id, nodes_.id_in(victim, other), name, nullptr);
    to.invalidate_node(id, -1, 0, nullptr);
  });
}

template <typename Tell>
void Dispatcher::tell_all(Node& node, Tell tell) {
  std::shared_lock guard(instances_lock_);
  std::vector<NodeBinding> bindings;
  {
    std::lock_guard binding_guard(node.binding_lock);
    bindings = node.bindings;
  }
  for (auto& binding : bindings) {
    auto it = instances_.find(binding.instance);
    if (it != instances_.end() && it->second->invalidator)
      tell(*it->second->invalidator, nodes_.id_of(binding.record));
  }
}

// What a kernel may hold is not asked: a READ that is under way has not been noted yet, and a notification
// waits for it (its pages are locked).
void Dispatcher::invalidate_node(Node& node, int64_t offset, int64_t length) {
  // Pages that a kernel has just filled to write them may be among those that go (wrote).
  if (offset >= 0) {
    uncached_writes_.store(true);
    node.uncached_change.store(coarse_ns());
  }
  tell_all(node, [&](Invalidator& to, uint64_t id) { to.invalidate_node(id, offset, length, nullptr); });
}

void Dispatcher::invalidate_entry(Node& directory, std::string_view name) {
  if (name.size() > NAME_MAX) return;
  tell_all(directory, [&](Invalidator& to, uint64_t id) { to.invalidate_entry(id, name, nullptr); });
}

int Dispatcher::dispatch_fast(Instance& instance, Request& request, Reply& reply) {
  fast_path_used_.store(true);
  uncached_writes_.store(true);
  Changes changes;
  int result = (this->*handlers_[static_cast<size_t>(request.op)])(instance, request, reply);
  if (!changes.empty()) tell_kernels(changes, reply);
  return result;
}

void Dispatcher::tell_kernels(const Changes& changes, Reply& reply) {
  // What was changed is changed before anyone looks what kernels hold (see kernel_view.hpp).
  std::atomic_thread_fence(std::memory_order_seq_cst);
  Telling telling;
  {
    std::shared_lock guard(instances_lock_);
    changes.for_each([&](const Change& change) { tell(change, telling); });
  }
  if (telling.ticket) {
    telling.ticket->done();
    if (!telling.ticket->wait(telling.late ? std::chrono::milliseconds(0) : kPatience)) {
      reply.told = std::move(telling.ticket);
      return;
    }
  }
  for (auto& [id, held, pages] : telling.nodes) view_.dropped(id, held, pages);
  for (auto& [directory, name, held] : telling.names) view_.name_dropped(directory, name, held);
}

// Caller holds instances_lock_, which only notifications that wait for nothing may be sent under.
void Dispatcher::tell(const Change& change, Telling& telling) {
  std::vector<std::pair<uint32_t, uint64_t>> known;  // instances and the node's id there
  {
    std::lock_guard guard(change.node->binding_lock);
    for (auto& binding : change.node->bindings) {
      const uint64_t id = nodes_.id_of(binding.record);
      if (view_.held(id) || (change.name && view_.name_held(id, change.name)))
        known.emplace_back(binding.instance, id);
    }
  }
  for (auto& [instance, id] : known) {
    auto it = instances_.find(instance);
    if (it == instances_.end() || !it->second->invalidator) continue;
    telling.late |= it->second->invalidator->late();
    if (change.name) tell_name(*it->second, id, change, telling);
    tell_node(*it->second->invalidator, id, change, telling);
  }
}

void Dispatcher::tell_name(Instance& instance, uint64_t directory, const Change& change, Telling& telling) {
  const uint64_t held = view_.name_held(directory, change.name);
  if (!held) return;
  Invalidator& to = *instance.invalidator;
  const TicketRef& sent = telling.sent();
  if (change.gone)
    to.delete_entry(directory, nodes_.id_in(*change.gone, instance.id), change.name, sent);
  else
    to.invalidate_entry(directory, change.name, sent);
  telling.names.push_back({directory, change.name, held});
}

void Dispatcher::tell_node(Invalidator& to, uint64_t id, const Change& change, Telling& telling) {
  const KernelView::Held held = view_.held(id);
  const bool pages = change.offset >= 0 && held.pages;
  if (!pages && !held.attributes) return;
  bool ordered = false;
  for (uint64_t directory : held.directories) {
    if (directory == 0) continue;
    to.wait_for_lookups(directory, telling.sent());
    ordered = true;
  }
  if (pages && held.all_pages)
    to.invalidate_node(id, 0, 0, telling.sent());
  else if (pages)
    to.invalidate_node(id, change.offset, change.length, telling.sent());
  else if (ordered)
    to.invalidate_node(id, -1, 0, telling.sent());
  else
    to.drop_attributes(id);
  telling.nodes.push_back({id, held, pages});
}

// Is the fast path in use, as seen after what a reply tells has been noted? If not, its first change will see
// the note.
bool Dispatcher::fast_path_used() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return fast_path_used_.load(std::memory_order_relaxed);
}

bool Dispatcher::changed_since(Instance& instance, uint64_t id, uint64_t since) {
  const Ref<Node> n = nodes_.get(id, instance.id);
  return !n || n->fast_changed.load() >= since;
}

bool Dispatcher::told_attributes(Instance& instance, uint64_t id, uint64_t since) {
  view_.attributes_told(id, instance.attr_timeout);
  return prompt(since) && !(fast_path_used() && changed_since(instance, id, since));
}

Dispatcher::Believed Dispatcher::told_entry(Instance& instance, uint64_t directory, std::string_view name,
                                            uint64_t id, const Attr& attr, uint64_t since) {
  const bool named = !name.empty();
  if (named) view_.name_told(directory, name, instance.entry_timeout);
  const uint64_t told_in = named ? directory : 0;
  Believed believed{named, id && view_.entry_told(id, told_in, instance.attr_timeout, attr.stx_size)};
  if (!prompt(since)) return {false, false};
  if (!fast_path_used()) return believed;
  believed.name = believed.name && !changed_since(instance, directory, since);
  believed.attributes = believed.attributes && !changed_since(instance, id, since);
  return believed;
}

std::optional<uint64_t> Dispatcher::told_size(Instance& instance, uint64_t id, uint64_t size) {
  const std::optional<uint64_t> known = view_.size_told(id, size);
  if (!known || !uncached_writes_.load()) return std::nullopt;
  const Ref<Node> n = nodes_.get(id, instance.id);
  const uint64_t now = coarse_ns();
  if (!n || n->uncached_write.load() + kUnsettled < now) return std::nullopt;
  n->uncached_change.store(now);
  return known;
}

void Dispatcher::writes_uncached(Instance& instance, const Request& request) {
  uncached_writes_.store(true);
  if (const Ref<Node> n = nodes_.get(request.node, instance.id)) {
    const uint64_t now = coarse_ns();
    n->uncached_change.store(now);
    n->uncached_write.store(now);
  }
}

// The kernel fills pages of its cache before it sends them to us, and leaves them unlocked. When they go
// meanwhile, because a notification or an unexpected size drops them, a reader may bring back what was there
// before; so where that may have happened they go once more. Before the answer, for the kernel ignores a size
// that a notification has overtaken (fc->attr_version, fs/fuse/inode.c), and the writer may ask for it next.
// Not so appends: an answer that is late may be lost with its service, and an append must not be done twice.
void Dispatcher::wrote(Instance& instance, const Request& request, const Reply& reply, bool cached) {
  view_.size_grown(request.node, request.offset + reply.value);
  if (!cached) return writes_uncached(instance, request);
  if (!uncached_writes_.load(std::memory_order_relaxed)) return;
  const Ref<Node> n = nodes_.get(request.node, instance.id);
  if (!n) return;
  if (reply.end == request.offset + reply.value) view_.size_written(request.node, reply.end);
  if (n->uncached_change.load() + kUnsettled > coarse_ns() && instance.invalidator) {
    const auto offset = static_cast<int64_t>(request.offset), length = static_cast<int64_t>(reply.value);
    if (request.flags & O_APPEND)
      instance.invalidator->invalidate_node(request.node, offset, length, nullptr);
    else
      instance.invalidator->invalidate_written(request.node, offset, length);
  }
}

bool Dispatcher::kernel_believes_larger(Instance& instance, Node& node, uint64_t size) {
  return view_.believes_larger(nodes_.id_in(node, instance.id), size);
}

bool Dispatcher::kernel_holds(Node& node) {
  std::lock_guard guard(node.binding_lock);
  for (auto& binding : node.bindings) {
    if (view_.held(nodes_.id_of(binding.record))) return true;
  }
  return false;
}

}  // namespace poly
