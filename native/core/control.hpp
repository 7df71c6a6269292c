// The control directory: how a fast-path client's open file becomes a kernel descriptor (promotion).
//
// Below the root of every instance, and in no listing, each client has a directory whose name nobody else
// knows. The client's library opens HANDLE (in hex) in it with O_CREAT through the kernel, and the service
// answers that FUSE_CREATE with the file's real node and with the very service open file the handle stands
// for. From then on it is the kernel's: FUSE's RELEASE closes it.
//
// The name says which client (the upper half of its key) and proves it: a keyed hash (SipHash-2-4) of that
// with a secret of the instance in pool memory. So names outlive the service, and no list of clients is
// needed. The node id is nothing that the node table could make: record index 1, and the client's tag for a
// generation.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "libservices/libservice.hpp"

namespace poly {

using ControlSecret = std::array<uint64_t, 2>;

// Stands for a client in names and node ids. Never 0, so that no control node is FUSE's root, 1.
constexpr uint32_t client_tag(uint64_t key) {
  return static_cast<uint32_t>(key >> 32) | 1u << 31;
}

constexpr uint64_t control_node(uint32_t tag) {
  return uint64_t{tag} << 32 | 1;
}
// 0: an ordinary node id.
constexpr uint32_t tag_of_control_node(uint64_t node) {
  return static_cast<uint32_t>(node) == 1 ? static_cast<uint32_t>(node >> 32) : 0;
}

// ".poly-" and 24 hex digits: AttachProven::control.
inline constexpr size_t kControlNameSize = 6 + 8 + 16;
void control_name(const ControlSecret& secret, uint64_t key, char (&out)[32]);
// The client's tag when the name is a control directory's, else 0.
uint32_t tag_of_control_name(const ControlSecret& secret, std::string_view name);

// What stat(2) of a control directory says.
Attr control_attributes(uint32_t tag);

}  // namespace poly
