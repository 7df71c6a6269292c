// Names that fast-path walks have passed through or opened lately, and the nodes they lead to. The nodes stay
// in use, so that what the libservice remembers of them (a descriptor, a handle) is still there for the next
// walk. FUSE's lookup counts do that for nodes the kernel knows; fast-path calls count nothing.
//
// What a name led to is believed as long as no name of its directory has gone or been moved since
// (Node::names_version); so only where nobody but the dispatcher changes them (`trusted`). Permissions and
// attributes are asked for anew every time.
//
// A lock per slot, a leaf. Walks never wait for one: who finds it taken looks the name up, or keeps nothing.
#pragma once

#include <array>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "libservices/libservice.hpp"

namespace poly {

class RecentNames {
 public:
  explicit RecentNames(const bool& trusted) : trusted_(trusted) {}

  // What `name` of the directory is; null: not known.
  Ref<Node> find(const Node& directory, std::string_view name) {
    if (!trusted_) return nullptr;
    Slot& slot = slot_of(directory, name);
    std::unique_lock guard(slot.lock, std::try_to_lock);
    const bool known = guard.owns_lock() && slot.is(directory, name) &&
                       slot.version == directory.names_version.load(std::memory_order_acquire);
    return known ? slot.node : nullptr;
  }
  // `version`: the directory's from before the name was looked up.
  void keep(Node& directory, std::string_view name, uint64_t version, Node& node) {
    Slot& slot = slot_of(directory, name);
    Ref<Node> old_directory, old_node;  // let go of after the lock
    std::unique_lock guard(slot.lock, std::try_to_lock);
    if (!guard.owns_lock() || !is_current(directory, version)) return;
    slot.version = version;
    if (slot.node.get() == &node && slot.is(directory, name)) return;
    old_directory = std::exchange(slot.directory, Ref<Node>::share(&directory));
    old_node = std::exchange(slot.node, Ref<Node>::share(&node));
    slot.name = name;
    guard.unlock();
  }
  // The name has gone, or leads elsewhere: what it held should go too. After names_version has changed, so
  // that nobody keeps it again.
  void drop(const Node& directory, std::string_view name) {
    Slot& slot = slot_of(directory, name);
    Ref<Node> old_directory, old_node;
    std::lock_guard guard(slot.lock);
    if (slot.is(directory, name)) slot.give_up(old_directory, old_node);
  }
  void clear() {
    for (Slot& slot : slots_) {
      Ref<Node> old_directory, old_node;
      std::lock_guard guard(slot.lock);
      slot.give_up(old_directory, old_node);
    }
  }

 private:
  static constexpr size_t kSlots = 128;

  struct Slot {
    std::mutex lock;
    Ref<Node> directory, node;  // guarded by lock, as is what follows; null together
    uint64_t version = 0;
    std::string name;

    bool is(const Node& of, std::string_view what) const { return directory.get() == &of && name == what; }
    void give_up(Ref<Node>& old_directory, Ref<Node>& old_node) {
      std::swap(directory, old_directory);
      std::swap(node, old_node);
    }
  };

  static bool is_current(const Node& directory, uint64_t version) {
    return version % 2 == 0 && directory.names_version.load(std::memory_order_acquire) == version;
  }
  Slot& slot_of(const Node& directory, std::string_view name) {
    const uint64_t hash = std::hash<std::string_view>{}(name) ^ reinterpret_cast<uintptr_t>(&directory) >> 4;
    return slots_[(hash * 0x9e3779b97f4a7c15ull >> 32) % kSlots];
  }

  const bool& trusted_;
  std::array<Slot, kSlots> slots_;
};

// While one lives, names of the directory, whose change_lock is held, are going or moving.
class NamesChange {
 public:
  explicit NamesChange(Node& directory) : version_(directory.names_version) { version_.fetch_add(1); }
  ~NamesChange() { version_.fetch_add(1); }
  NamesChange(const NamesChange&) = delete;
  NamesChange& operator=(const NamesChange&) = delete;

 private:
  std::atomic<uint64_t>& version_;
};

}  // namespace poly
