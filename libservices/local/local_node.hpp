// Nodes and files of the `local` libservice.
//
// A node is known by (device, inode, birth time) and reached by one of
//   - a kernel file handle (open_by_handle_at(2), needs CAP_DAC_READ_SEARCH): survives renames on the host;
//   - its parent and name, verified at every resolution: rootless services, filesystems without handles, host
//   submounts;
//   - a pinned O_PATH fd, once its last known name is gone.
#pragma once

#include <atomic>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "fastpath/fd.hpp"
#include "libservices/libservice.hpp"
#include "libservices/local/fd_cache.hpp"

namespace poly {

class Local;

// What makes a host inode this inode, reuse of numbers included.
struct NodeIdentity {
  uint64_t device = 0;
  uint64_t ino = 0;
  int64_t birth_seconds = 0;
  uint32_t birth_nanoseconds = 0;

  static NodeIdentity of(const Attr& attr) {
    return {uint64_t{attr.stx_dev_major} << 32 | attr.stx_dev_minor, attr.stx_ino, attr.stx_btime.tv_sec,
            attr.stx_btime.tv_nsec};
  }
  bool operator==(const NodeIdentity&) const = default;
};

// file_handle of name_to_handle_at(2), as much of it as host filesystems use (ext4 8, tmpfs 12, xfs 12, btrfs
// 40 bytes).
struct HostHandle {
  static constexpr uint32_t kMax = 64;
  uint32_t size = 0;  // 0: none
  int32_t type = 0;
  std::array<std::byte, kMax> bytes{};
};

// open_by_handle_at(2). ESTALE: what it named is gone, or has no name any more.
[[nodiscard]] int open_by_handle(int mount_fd, const HostHandle& handle, int flags, Fd& out);

class LocalNode;

// A name by which a node in path mode was last found.
struct KnownName {
  Ref<LocalNode> parent;  // null after a restart until it is needed: then it is found by its identity
  NodeIdentity parent_identity;
  std::string name;  // empty: none is known
};

class LocalNode final : public Node {
 public:
  LocalNode(Local& owner, const NodeIdentity& identity, mode_t type)
      : owner(owner), identity(identity), type(type) {}

  Local& owner;
  const NodeIdentity identity;
  const mode_t type;  // S_IFMT part
  HostHandle handle;  // written before the node is published, then constant

  // Guards what follows. Innermost: nothing else is locked, and no call that may block on the network is
  // made, under it.
  std::mutex lock;
  KnownName known;          // path mode: the latest
  KnownName previous;       // path mode: the one before, which still holds if it was another hard link
  Ref<SharedFd> pin;        // set before a name goes, kept once it may be the last one
  std::string parked_name;  // the keeper holds the pin too, under this name
  uint32_t changes = 0;     // of its names, under way
  bool unnamed = false;     // no name is known any more: the pin stays
  bool is_root = false;     // of an instance: the pin stays
  // Files open on it; a node of before a restart may have more, which are opened again at their first use.
  uint32_t opens = 0;
  bool restored = false;

 protected:
  void dispose() override;
};

class LocalFile final : public File {
 public:
  LocalFile(Ref<LocalNode> node, Fd fd)
      : LocalFile(std::move(node), Ref<SharedFd>::adopt(new SharedFd(std::move(fd)))) {}
  LocalFile(Ref<LocalNode> node, Ref<SharedFd> fd) : node(std::move(node)), fd(std::move(fd)) {}
  ~LocalFile() override;

  const Ref<LocalNode> node;
  const Ref<SharedFd> fd;  // of a regular file perhaps other files', too: its own offset is used by nobody

  // Directories: one getdents64 buffer, guarded by dir_lock.
  std::mutex dir_lock;
  std::vector<std::byte> entries;
  size_t entries_used = 0;
  size_t entries_size = 0;
  uint64_t entries_cookie = 0;  // of the entry at entries_used
};

}  // namespace poly
