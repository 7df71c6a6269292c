// Where what encode() answers for a node is kept for the next service (native/core/node_table.hpp).
#pragma once

namespace poly {

class Libservice;
class Node;

class HandleStore {
 public:
  virtual ~HandleStore() = default;
  // encode() answers otherwise than before: with 0 a successor decodes the new answer. Takes
  // Node::binding_lock, and calls encode() under it.
  [[nodiscard]] virtual int handle_changed(Libservice&, Node&) = 0;
};

}  // namespace poly
