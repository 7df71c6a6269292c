// A libservice that can do nothing: tests derive from it and say what theirs can. And nodes that are a
// number, for what only needs to tell nodes apart.
#pragma once

#include <cstring>
#include <map>
#include <mutex>

#include "libservices/libservice.hpp"

namespace rig {

using namespace poly;

class StubLibservice : public Libservice {
 public:
  int root(const char*, Entry&) override { return -ENOSYS; }
  int lookup(const Caller&, Node&, const char*, Entry&) override { return -ENOSYS; }
  int getattr(Node&, File*, Attr&) override { return -ENOSYS; }
  int setattr(const Caller&, Node&, File*, const SetAttr&, Attr&) override { return -ENOSYS; }
  ssize_t readlink(Node&, std::span<char>) override { return -ENOSYS; }
  int mknod(const Caller&, Node&, const char*, mode_t, dev_t, Entry&) override { return -ENOSYS; }
  int mkdir(const Caller&, Node&, const char*, mode_t, Entry&) override { return -ENOSYS; }
  int symlink(const Caller&, Node&, const char*, const char*, Entry&) override { return -ENOSYS; }
  int link(const Caller&, Node&, Node&, const char*, Entry&) override { return -ENOSYS; }
  int unlink(const Caller&, Node&, const char*, const Entry&) override { return -ENOSYS; }
  int rmdir(const Caller&, Node&, const char*, const Entry&) override { return -ENOSYS; }
  int rename(const Caller&, Node&, const char*, Node&, const char*, uint32_t) override { return -ENOSYS; }
  int create(const Caller&, Node&, const char*, int, mode_t, Entry&, Ref<File>&) override { return -ENOSYS; }
  int tmpfile(const Caller&, Node&, int, mode_t, Entry&, Ref<File>&) override { return -ENOSYS; }
  int open(const Caller&, Node&, int, bool, Ref<File>&) override { return -ENOSYS; }
  ssize_t read(File&, uint64_t, std::span<std::byte>) override { return -ENOSYS; }
  ssize_t write(File&, uint64_t, std::span<const std::byte>) override { return -ENOSYS; }
  int flush(File&) override { return -ENOSYS; }
  int fsync(File&, bool) override { return -ENOSYS; }
  int readdir(File&, uint64_t, DirSink&) override { return -ENOSYS; }
  int fallocate(File&, uint32_t, uint64_t, uint64_t) override { return -ENOSYS; }
  int64_t lseek(File&, int64_t, int) override { return -ENOSYS; }
  ssize_t copy_range(File&, uint64_t, File&, uint64_t, uint64_t) override { return -ENOSYS; }
  int setxattr(Node&, const char*, std::span<const std::byte>, int) override { return -ENOSYS; }
  ssize_t getxattr(Node&, const char*, std::span<std::byte>) override { return -ENOSYS; }
  ssize_t listxattr(Node&, std::span<std::byte>) override { return -ENOSYS; }
  int removexattr(Node&, const char*) override { return -ENOSYS; }
  int statfs(Node&, struct statvfs&) override { return -ENOSYS; }
  int syncfs(Node&) override { return -ENOSYS; }
  int encode(Node&, NodeHandle&) override { return -ENOSYS; }
  int decode(const NodeHandle&, Ref<Node>&) override { return -ESTALE; }
  int lend(File&, Loan&) override { return -ENOTSUP; }
};

// Nodes that are numbers; each exists once while anybody holds it. A handle is the number, padded to
// `handle_size` bytes.
class NumberedLibservice;
class NumberedNode final : public Node {
 public:
  NumberedNode(NumberedLibservice& owner, uint64_t number) : owner(owner), number(number) {}
  NumberedLibservice& owner;
  const uint64_t number;

 protected:
  void dispose() override;
};

class NumberedLibservice : public StubLibservice {
 public:
  size_t handle_size = 8;
  bool forgetful = false;  // decode() finds nothing

  Ref<Node> at(uint64_t number) {
    std::lock_guard guard(lock_);
    NumberedNode*& node = nodes_[number];
    if (node && node->try_acquire()) return Ref<Node>::adopt(node);
    node = new NumberedNode(*this, number);
    return Ref<Node>::adopt(node);
  }
  size_t alive() {
    std::lock_guard guard(lock_);
    return nodes_.size();
  }
  int encode(Node& node, NodeHandle& out) override {
    out.bytes.fill(std::byte{0x5a});
    const uint64_t number = static_cast<NumberedNode&>(node).number;
    std::memcpy(out.bytes.data(), &number, sizeof number);
    out.size = static_cast<uint16_t>(handle_size);
    return 0;
  }
  int decode(const NodeHandle& handle, Ref<Node>& out) override {
    uint64_t number;
    if (forgetful || handle.size != handle_size) return -ESTALE;
    std::memcpy(&number, handle.bytes.data(), sizeof number);
    for (size_t i = sizeof number; i < handle_size; i++) {
      if (handle.bytes[i] != std::byte{0x5a}) return -ESTALE;
    }
    out = at(number);
    return 0;
  }

 private:
  friend class NumberedNode;
  std::mutex lock_;
  std::map<uint64_t, NumberedNode*> nodes_;  // guarded by lock_
};

inline void NumberedNode::dispose() {
  {
    std::lock_guard guard(owner.lock_);
    auto it = owner.nodes_.find(number);
    if (it != owner.nodes_.end() && it->second == this) owner.nodes_.erase(it);
  }
  delete this;
}

}  // namespace rig
