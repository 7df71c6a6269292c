// Which libservice node each node id of each instance means, and how often the kernel holds it (FUSE lookup
// counts).
//
// A record whose handle leads through another node (Libservice::handle_parent) holds a lookup of that one's
// record, so that a successor decodes both, whether a kernel knows the other or not. The other's is raised
// before the handle is stored, and lowered after: a death in between leaves one too many.
//
// Lock order: Node::binding_lock > RecordTable stripe; of two nodes' binding_locks no thread holds both.
#pragma once

#include "native/core/record_table.hpp"

namespace poly {

class NodeTable {
 public:
  explicit NodeTable(PoolMemory& pool);

  // One more lookup of `node` by `instance`; makes its record at the first. ENFILE when the table is full.
  [[nodiscard]] int remember(Libservice&, uint32_t instance, Node& node, uint64_t& id);
  // The kernel gave up `lookups` references; at none left the record and its node go.
  void forget(uint32_t instance, uint64_t id, uint64_t lookups);
  Ref<Node> get(uint64_t id, uint32_t instance) { return table_.get(id, instance); }
  // The id of a node this instance knows, or 0.
  uint64_t id_in(Node& node, uint32_t instance);
  uint64_t id_of(uint32_t record) const { return table_.id(record); }
  // The node's handle reads otherwise now, for all instances. ENFILE: there is no room for the new one.
  [[nodiscard]] int refresh_handle(Libservice&, Node& node);

  // After a restart: decodes all nodes of an instance. Unreadable ones stay as ids that answer ESTALE.
  void restore(Libservice&, uint32_t instance);
  void drop_instance(uint32_t instance);
  template <typename Visit>
  void for_each_id(uint32_t instance, Visit visit) {
    table_.for_each_live([&](uint32_t index, NodeRecord& record) {
      if (record.instance == instance) visit(table_.id(index));
    });
  }
  uint64_t count(uint32_t instance) { return table_.count(instance); }

 private:
  // One more lookup, if the instance knows the node.
  bool again(uint32_t instance, Node& node, uint64_t& id);
  // The same, or a first record, to which the lookup of `parent` goes.
  [[nodiscard]] int add(Libservice&, uint32_t instance, Node& node, uint64_t parent, uint64_t& id);
  [[nodiscard]] int hold_parent(Libservice&, uint32_t instance, Ref<Node> node, uint64_t& id);
  [[nodiscard]] int refresh_in(Libservice&, uint32_t instance, Node& node);
  // Id of the parent, if the record went.
  uint64_t forget_one(uint32_t instance, uint64_t id, uint64_t lookups);
  // Caller holds node.binding_lock.
  [[nodiscard]] int store_handle(Libservice&, Node&, NodeBinding&, uint64_t parent);
  void free_block(const NodeRecord&);

  PoolMemory& pool_;
  RecordTable<NodeRecord, Node> table_;
  std::mutex blocks_lock_;
  std::vector<uint32_t> free_blocks_;  // guarded by blocks_lock_
};

}  // namespace poly
