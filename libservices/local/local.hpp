// `local`: a directory of the host as a filesystem, with complete POSIX behaviour and no fd per inode.
//
// Never leaves its root: every step is one component with O_NOFOLLOW from a descriptor or handle already
// known to be inside; symlinks are returned to the kernel, not followed; subdirectories are resolved with
// openat2(RESOLVE_BENEATH). `memory` (libservices/memory) is the same machinery over a private tmpfs.
//
// Lock order: index shard > LocalNode::lock > FdCache shard.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "fastpath/fd.hpp"
#include "libservices/handle_store.hpp"
#include "libservices/libservice.hpp"
#include "libservices/local/fd_cache.hpp"
#include "libservices/local/local_node.hpp"
#include "libservices/parking.hpp"

namespace poly {

struct LocalOptions {
  std::string parking_prefix;      // what the names of its parked fds begin with
  ParkingLot* parking = nullptr;   // null: open-but-unlinked files die with the service
  std::vector<ParkedFd> parked;    // what a predecessor left there
  HandleStore* handles = nullptr;  // null: what moves in path mode is not found after a restart
  size_t path_fds = 1024;          // bound of the O_PATH cache
  size_t read_fds = 0;             // how many files stay open for whoever opens them next to read
  bool use_handles = true;         // off: path mode even where handles work (tests)
};

class Local final : public Libservice {
 public:
  // `root`: an open directory (not O_PATH: open_by_handle_at wants a real one).
  [[nodiscard]] static int create(Fd root, LocalOptions options, std::unique_ptr<Local>& out);
  ~Local() override;

  int root(const char* subdirectory, Entry& out) override;
  int lookup(const Caller&, Node& dir, const char* name, Entry& out) override;
  int stat(const Caller&, Node& dir, const char* name, Attr& out) override;
  int getattr(Node&, File* file, Attr& out) override;
  int setattr(const Caller&, Node&, File* file, const SetAttr&, Attr& out) override;
  ssize_t readlink(Node&, std::span<char> out) override;
  int mknod(const Caller&, Node& dir, const char* name, mode_t, dev_t, Entry& out) override;
  int mkdir(const Caller&, Node& dir, const char* name, mode_t, Entry& out) override;
  int symlink(const Caller&, Node& dir, const char* name, const char* target, Entry& out) override;
  int link(const Caller&, Node& node, Node& dir, const char* name, Entry& out) override;
  int unlink(const Caller&, Node& dir, const char* name, const Entry& victim) override;
  int rmdir(const Caller&, Node& dir, const char* name, const Entry& victim) override;
  int rename(const Caller&, Node& dir, const char* name, Node& new_dir, const char* new_name,
             uint32_t flags) override;
  int create(const Caller&, Node& dir, const char* name, int flags, mode_t, Entry& out,
             Ref<File>& file) override;
  int tmpfile(const Caller&, Node& dir, int flags, mode_t, Entry& out, Ref<File>& file) override;
  int open(const Caller&, Node&, int flags, bool restored, Ref<File>& file) override;
  ssize_t read(File&, uint64_t offset, std::span<std::byte> out) override;
  bool reads_in_chunks() const override { return true; }
  ssize_t write(File&, uint64_t offset, std::span<const std::byte> in) override;
  int flush(File&) override;
  int fsync(File&, bool data_only) override;
  int readdir(File&, uint64_t cookie, DirSink&) override;
  int fallocate(File&, uint32_t mode, uint64_t offset, uint64_t length) override;
  int64_t lseek(File&, int64_t offset, int whence) override;
  ssize_t copy_range(File& in, uint64_t offset_in, File& out, uint64_t offset_out, uint64_t length) override;
  int setxattr(Node&, const char* name, std::span<const std::byte> value, int flags) override;
  ssize_t getxattr(Node&, const char* name, std::span<std::byte> value) override;
  ssize_t listxattr(Node&, std::span<std::byte> names) override;
  int removexattr(Node&, const char* name) override;
  int statfs(Node&, struct statvfs& out) override;
  int syncfs(Node&) override;
  int encode(Node&, NodeHandle& out) override;
  int decode(const NodeHandle&, Ref<Node>& out) override;
  Ref<Node> handle_parent(Node&) override;
  void all_restored() override;
  int park_again() override;
  int lend(File&, Loan& out) override;

  bool uses_handles() const { return use_handles_; }

 private:
  friend class LocalNode;
  friend class LocalFile;
  friend class PathFd;

  // By all of the identity: a record of a file that is gone, whose inode number another file has now, is not
  // in that one's way.
  struct IdentityHash {
    size_t operator()(const NodeIdentity& key) const {
      return key.ino * 0x9e3779b97f4a7c15ull ^ key.device ^ key.birth_nanoseconds;
    }
  };
  struct Shard {
    std::mutex lock;
    std::unordered_map<NodeIdentity, LocalNode*, IdentityHash> nodes;  // guarded by lock
  };
  static constexpr size_t kShards = 64;

  Local(Fd root, LocalOptions options);

  // The host's attributes of a name, and of an O_PATH or real descriptor.
  static int stat_at(int dir, const char* name, Attr& out);
  static int stat_fd(int fd, Attr& out);

  Shard& shard(const NodeIdentity& identity) { return shards_[(identity.ino ^ identity.ino >> 6) % kShards]; }
  Ref<LocalNode> find(const NodeIdentity& identity);
  // The node for `attr`, found or made; `fd` when one is open on it, else it is dir_fd/name.
  int intern(int dir_fd, const char* name, int fd, const Attr& attr, Ref<LocalNode>& out);
  // Into the index, unless it has a node for the same file: that one then.
  Ref<LocalNode> publish(Ref<LocalNode> fresh);
  int make_handle(int fd, const char* name, const Attr& attr, HostHandle& out);
  int entry_at(LocalNode& dir, int dir_fd, const char* name, Entry& out);

  // O_PATH (or root) descriptor of the node: cached, pinned, or opened anew.
  int path_fd(LocalNode& node, Ref<SharedFd>& out);
  static constexpr int kNoWay = 1;
  // Without regard to names: cached, pinned, or by handle. kNoWay: only a name leads there.
  int path_fd_directly(LocalNode& node, Ref<SharedFd>& out);
  int open_path(LocalNode& node, Ref<SharedFd>& out);   // by names only
  int walk_names(LocalNode& node, Ref<SharedFd>& out);  // kNoWay: a name changed meanwhile
  KnownName known_name(LocalNode& node);
  // A real descriptor with open(2)'s flags.
  int open_real(LocalNode& node, int flags, Fd& out);
  // A descriptor to read a regular file, which opens of it share.
  int open_to_read(LocalNode& node, Ref<SharedFd>& out);
  // As open_real() for a file that was open before a restart, whatever its mode has become.
  int open_again(LocalNode& node, int flags, Fd& out);
  // Around a change of the node's names, after which it has `left`. Before: keeps it reachable, and parks it
  // when it is or may be in use without a name, or until a successor would find it by the name it has then.
  // After: what turned out to be unnecessary is undone.
  int begin_change(LocalNode& node, uint32_t left);
  void end_change(LocalNode& node, bool reachable);
  // What has happened in between. True: nobody needs what was parked.
  bool lost_name(LocalNode& node, uint32_t left, LocalNode& dir, const char* name);
  bool moved(LocalNode& node, LocalNode& dir, const char* name, LocalNode& new_dir, const char* new_name);
  bool store_name(LocalNode& node);
  int park(LocalNode& node);  // caller holds node.lock
  int count_open(LocalNode& node);
  int victim(int dir_fd, const char* name, Ref<LocalNode>& out, Attr& attr);
  // The node had these attributes as dir/name, after the directory's names_version had been `version`.
  void found_at(LocalNode& node, LocalNode& dir, const char* name, const Attr& attr, uint64_t version);
  int remove(Node& dir, const char* name, const Entry& victim, int flags);
  std::string parking_name(const LocalNode& node) const;
  void forget(LocalNode& node);

  Fd root_fd_;
  LocalOptions options_;
  uint64_t root_mount_ = 0;
  NodeIdentity root_identity_;
  bool use_handles_ = false;
  bool flush_reports_ = true;  // close(2) on this host filesystem may report errors
  FdCache cache_;
  FdCache readers_;  // of regular files, O_RDONLY and no other flag
  std::array<Shard, kShards> shards_;
  std::mutex adopt_lock_;
  std::unordered_multimap<NodeIdentity, ParkedFd, IdentityHash> adoptable_;  // guarded by adopt_lock_
  Ref<LocalNode> root_;
};

// chmod(2) of an O_PATH descriptor.
[[nodiscard]] int change_mode(int fd, mode_t mode);

// "/proc/self/fd/N": the way to calls that take no O_PATH descriptor (xattrs, truncate, chmod before
// Linux 6.6).
class ProcPath {
 public:
  explicit ProcPath(int fd);
  const char* c_str() const { return text_; }

 private:
  char text_[32];
};

}  // namespace poly
