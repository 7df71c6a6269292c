#include "native/core/node_table.hpp"

#include <algorithm>
#include <cstring>

namespace poly {
namespace {

NodeBinding* binding_of(Node& node, uint32_t instance) {
  for (auto& binding : node.bindings) {
    if (binding.instance == instance) return &binding;
  }
  return nullptr;
}

uint32_t block_of(const NodeRecord& record) {
  return static_cast<uint32_t>(record.handle.load());
}

// In NodeRecord::handle, beside the size: the record holds a lookup of its parent.
constexpr uint64_t kHoldsParent = uint64_t{1} << 63;

// Names that a host process turns into a circle have no end.
constexpr size_t kDeepest = 4096;

bool is_parent(Libservice& libservice, Node& node, const Node* parent) {
  return libservice.handle_parent(node).get() == parent;
}

}  // namespace

NodeTable::NodeTable(PoolMemory& pool)
    : pool_(pool), table_(pool.nodes, PoolMemory::kNodes, pool.header->nodes_used) {
  if (pool.header->blocks_used.load() == 0) pool.header->blocks_used.store(1);
  std::vector<bool> used(pool.header->blocks_used.load());
  table_.for_each_live([&](uint32_t, NodeRecord& record) {
    if (uint32_t block = block_of(record); block < used.size()) used[block] = true;
  });
  for (uint32_t i = static_cast<uint32_t>(used.size()); i-- > 1;) {
    if (!used[i]) free_blocks_.push_back(i);
  }
}

// A new handle never overwrites the old one: a block is filled before the record points to it, so a death in
// between leaves one of the two.
int NodeTable::store_handle(Libservice& libservice, Node& node, NodeBinding& binding, uint64_t parent) {
  NodeRecord& record = table_.record(binding.record);
  NodeHandle handle;
  if (int err = libservice.encode(node, handle)) return err;
  const uint64_t size = uint64_t{handle.size} << 32 | (parent ? kHoldsParent : 0);
  const bool first = record.handle.load() == 0;
  const uint32_t old = block_of(record);
  if (handle.size <= NodeRecord::kInline && first) {
    std::memcpy(record.inline_handle, handle.bytes.data(), handle.size);
    record.handle.store(size, std::memory_order_release);
    return 0;
  }
  std::lock_guard guard(blocks_lock_);
  uint32_t block = 0;
  if (!free_blocks_.empty()) {
    block = free_blocks_.back();
    free_blocks_.pop_back();
  } else {
    block = pool_.header->blocks_used.load();
    if (block == PoolMemory::kBlocks) return -ENFILE;
    pool_.header->blocks_used.store(block + 1);
  }
  std::memcpy(pool_.blocks[block].bytes, handle.bytes.data(), handle.size);
  record.handle.store(size | block, std::memory_order_release);
  if (old) free_blocks_.push_back(old);
  return 0;
}

void NodeTable::free_block(const NodeRecord& record) {
  const uint32_t block = block_of(record);
  if (!block) return;
  std::lock_guard guard(blocks_lock_);
  free_blocks_.push_back(block);
}

bool NodeTable::again(uint32_t instance, Node& node, uint64_t& id) {
  std::lock_guard binding_guard(node.binding_lock);
  NodeBinding* binding = binding_of(node, instance);
  if (!binding) return false;
  std::lock_guard guard(table_.stripe(binding->record));
  table_.record(binding->record).lookups.fetch_add(1, std::memory_order_relaxed);
  id = table_.id(binding->record);
  return true;
}

int NodeTable::add(Libservice& libservice, uint32_t instance, Node& node, uint64_t parent, uint64_t& id) {
  if (again(instance, node, id)) {
    forget(instance, parent, 1);
    return 0;
  }
  std::unique_lock binding_guard(node.binding_lock);
  if (binding_of(node, instance)) {
    binding_guard.unlock();
    return add(libservice, instance, node, parent, id);
  }
  uint32_t index = table_.reserve();
  if (!index) {
    binding_guard.unlock();
    forget(instance, parent, 1);
    return -ENFILE;
  }
  NodeRecord& record = table_.record(index);
  record.instance.store(instance, std::memory_order_relaxed);
  record.lookups.store(1, std::memory_order_relaxed);
  record.handle.store(0, std::memory_order_relaxed);
  NodeBinding& binding = node.bindings.emplace_back(instance, index, parent);
  // A node without a handle still works until a restart, when it answers ESTALE.
  (void)store_handle(libservice, node, binding, parent);
  id = table_.publish(index, Ref<Node>::share(&node));
  return 0;
}

// From the nearest that has a record downwards. No recursion, trees may be deeper than stacks.
int NodeTable::hold_parent(Libservice& libservice, uint32_t instance, Ref<Node> at, uint64_t& parent) {
  parent = 0;
  std::vector<Ref<Node>> unknown;
  for (; at; at = libservice.handle_parent(*at)) {
    if (again(instance, *at, parent)) break;
    if (unknown.size() == kDeepest) break;
    unknown.push_back(at);
  }
  for (; !unknown.empty(); unknown.pop_back()) {
    uint64_t id = 0;
    if (int err = add(libservice, instance, *unknown.back(), parent, id)) return err;
    parent = id;
  }
  return 0;
}

int NodeTable::remember(Libservice& libservice, uint32_t instance, Node& node, uint64_t& id) {
  if (again(instance, node, id)) return 0;
  const Ref<Node> before = libservice.handle_parent(node);
  uint64_t parent;
  if (int err = hold_parent(libservice, instance, before, parent)) return err;
  if (int err = add(libservice, instance, node, parent, id)) return err;
  if (!is_parent(libservice, node, before.get())) (void)refresh_in(libservice, instance, node);
  return 0;
}

void NodeTable::forget(uint32_t instance, uint64_t id, uint64_t lookups) {
  for (; id != 0; lookups = 1) id = forget_one(instance, id, lookups);
}

uint64_t NodeTable::forget_one(uint32_t instance, uint64_t id, uint64_t lookups) {
  auto index = static_cast<uint32_t>(id);
  NodeRecord& record = table_.record(index);
  Ref<Node> node = table_.get(id, instance);
  if (!node) {
    // After a restart: not decoded yet, as clients that have died meanwhile are not waited for, or not to be
    // decoded at all.
    std::lock_guard guard(table_.stripe(index));
    if (!table_.index_of(id) || record.instance != instance) return 0;
    node = table_.object(index);
    if (!node) {
      uint64_t held = record.lookups.load(std::memory_order_relaxed);
      record.lookups.store(held - std::min(held, lookups), std::memory_order_relaxed);
      if (held > lookups) return 0;
      free_block(record);
      (void)table_.retire(index);
      return 0;
    }
  }
  Ref<Node> retired;  // dropped last, outside the locks
  std::lock_guard binding_guard(node->binding_lock);
  std::lock_guard guard(table_.stripe(index));
  if (!table_.index_of(id)) return 0;
  uint64_t held = record.lookups.load(std::memory_order_relaxed);
  record.lookups.store(held - std::min(held, lookups), std::memory_order_relaxed);
  if (held > lookups) return 0;
  const auto is_its = [&](const NodeBinding& b) { return b.instance == instance && b.record == index; };
  const auto binding = std::ranges::find_if(node->bindings, is_its);
  const uint64_t parent = binding != node->bindings.end() ? binding->parent : 0;
  std::erase_if(node->bindings, is_its);
  free_block(record);
  retired = table_.retire(index);
  return parent;
}

uint64_t NodeTable::id_in(Node& node, uint32_t instance) {
  std::lock_guard guard(node.binding_lock);
  NodeBinding* binding = binding_of(node, instance);
  return binding ? table_.id(binding->record) : 0;
}

int NodeTable::refresh_handle(Libservice& libservice, Node& node) {
  std::vector<NodeBinding> bindings;
  {
    std::lock_guard guard(node.binding_lock);
    bindings = node.bindings;
  }
  for (auto& binding : bindings) {
    if (int err = refresh_in(libservice, binding.instance, node)) return err;
  }
  return 0;
}

// Whoever comes last stores what holds last, with the parent that it has then.
int NodeTable::refresh_in(Libservice& libservice, uint32_t instance, Node& node) {
  for (;;) {
    const Ref<Node> wanted = libservice.handle_parent(node);
    uint64_t parent;
    if (int err = hold_parent(libservice, instance, wanted, parent)) return err;
    int err = 0;
    std::unique_lock guard(node.binding_lock);
    NodeBinding* binding = binding_of(node, instance);
    const bool moved = !is_parent(libservice, node, wanted.get());
    if (binding && !moved) {
      err = store_handle(libservice, node, *binding, parent);
      if (err == 0) std::swap(binding->parent, parent);
    }
    guard.unlock();
    forget(instance, parent, 1);
    if (err || !moved || !binding) return err;
  }
}

void NodeTable::restore(Libservice& libservice, uint32_t instance) {
  table_.for_each_live([&](uint32_t index, NodeRecord& record) {
    const uint64_t id = table_.id(index);
    if (record.instance != instance) return;
    uint64_t packed = record.handle.load();
    auto block = static_cast<uint32_t>(packed);
    NodeHandle handle;
    handle.size = static_cast<uint16_t>(
        std::min<uint64_t>((packed & ~kHoldsParent) >> 32, block ? NodeHandle::kMax : NodeRecord::kInline));
    if (block >= PoolMemory::kBlocks) return;
    std::memcpy(handle.bytes.data(), block ? pool_.blocks[block].bytes : record.inline_handle, handle.size);
    Ref<Node> node;
    if (libservice.decode(handle, node) != 0) return;
    std::lock_guard guard(node->binding_lock);
    // Null: forgotten meanwhile, by a client that has died.
    if (table_.restore(id, node) && !binding_of(*node, instance)) node->bindings.push_back({instance, index});
  });
  table_.for_each_live([&](uint32_t index, NodeRecord& record) {
    if (record.instance != instance || !(record.handle.load() & kHoldsParent)) return;
    const Ref<Node> node = table_.get(table_.id(index), instance);
    const Ref<Node> parent = node ? libservice.handle_parent(*node) : nullptr;
    const uint64_t held = parent ? id_in(*parent, instance) : 0;
    if (!held) return;
    std::lock_guard guard(node->binding_lock);
    if (NodeBinding* binding = binding_of(*node, instance)) binding->parent = held;
  });
}

void NodeTable::drop_instance(uint32_t instance) {
  table_.for_each_live([&](uint32_t index, NodeRecord& record) {
    if (record.instance == instance) forget(instance, table_.id(index), UINT64_MAX);
  });
}

}  // namespace poly
