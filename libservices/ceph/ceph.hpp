// `ceph`: a directory of a Ceph filesystem, by libcephfs, one client per libservice. Who may do what has been
// decided by the time a call comes here; the caller's ids are for who owns what is made.
//
// A node is an inode number and a snapshot. It holds the library's Inode as soon as it has been asked for
// one, and of a node of before a restart only the numbers are known until its first use. The library counts
// its references per Inode; a node counts those it has been given and gives them back when it goes.
//
// Lock order: CephFile::directory_lock > index shard. No lock of the library is taken with an index shard
// locked, and its callbacks take index shards only.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

#include "libservices/ceph/client.hpp"
#include "libservices/ceph/credentials.hpp"
#include "libservices/ceph/settings.hpp"
#include "libservices/libservice.hpp"

namespace poly {

class Ceph;

class CephNode final : public Node {
 public:
  CephNode(Ceph& owner, ceph::VersionedInode id, mode_t type) : owner(owner), id(id), type(type) {}

  Ceph& owner;
  const ceph::VersionedInode id;
  const mode_t type;                         // S_IFMT part
  std::atomic<ceph::Inode*> inode{nullptr};  // null until it is asked for
  std::atomic<int> references{0};            // of `inode`, given to us by the library
  // How often the right to cache its data has been taken from us, and the same number plus one when we were
  // last seen to have it (files.cpp).
  std::atomic<uint64_t> revocations{0}, cacheable{0};
  // When to look again whether it can be cached (CLOCK_MONOTONIC_COARSE, ns).
  std::atomic<uint64_t> next_look{0};
  int uncached_writers = 0;  // guarded by Ceph::writers_lock_
  // It may have security.capability, which goes with the next write: looked at when it is opened for writing.
  std::atomic<bool> privileged{false};

 protected:
  void dispose() override;
};

class CephFile final : public File {
 public:
  CephFile(Ref<CephNode> node, ceph::Fh* handle) : node(std::move(node)), handle(handle) {}
  CephFile(Ref<CephNode> node, ceph_dir_result* directory) : node(std::move(node)), directory(directory) {}
  ~CephFile() override;

  const Ref<CephNode> node;
  ceph::Fh* const handle = nullptr;            // of a file
  ceph_dir_result* const directory = nullptr;  // of a directory
  std::atomic<bool> unsynced{false};           // something was written since the last fsync
  // Set once, when it is opened.
  bool reads = false;
  bool uncached = false;

  std::mutex directory_lock;
  uint64_t position = 0;  // guarded by directory_lock, as what follows: cookie of the next entry to be given
  bool pending = false;   // `entry` is that entry, read and not yet given
  dirent entry{};
};

class Ceph final : public Libservice {
 public:
  // -errno, and then `what` says in one line what is at fault.
  [[nodiscard]] static int create(const CephSettings&, std::unique_ptr<Ceph>& out, std::string& what);
  // The directory of the Ceph filesystem that is its root: the settings', or one above it.
  const std::string& root_path() const { return root_path_; }

  int root(const char* subdirectory, Entry& out) override;
  int lookup(const Caller&, Node& dir, const char* name, Entry& out) override;
  int getattr(Node&, File* file, Attr& out) override;
  int getattr_access(Node& dir, Attr& out) override;
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
  int lend(File&, Loan&) override { return -ENOTSUP; }
  void set_invalidate_sink(InvalidateSink* sink) override {
    std::lock_guard guard(sink_lock_);
    sink_ = sink;
  }
  bool may_keep(File&) override;
  bool uncached(File& file) override { return static_cast<CephFile&>(file).uncached; }
  int leave(bool patient) override;
  bool loses_unsynced() const override { return settings_.write_back; }
  bool locks_below() const override { return true; }
  int lock(File&, uint64_t owner, const FileLock&) override;
  int test_lock(File&, uint64_t owner, FileLock&) override;

 private:
  friend class CephNode;
  friend class CephFile;

  struct Shard {
    std::mutex lock;
    std::unordered_map<uint64_t, CephNode*> nodes;  // guarded by lock; by key()
  };
  static constexpr size_t kShards = 64;

  explicit Ceph(const CephSettings& settings) : settings_(settings) {}

  // Snapshots are few and numbered from 1, and inode numbers are far below 2^56, so that this is one-to-one
  // in practice; find() compares both.
  static uint64_t key(ceph::VersionedInode id) { return id.ino.value ^ (id.snapshot << 44); }
  Shard& shard(ceph::VersionedInode id) { return shards_[(key(id) ^ key(id) >> 6) % kShards]; }

  ceph::Perms as(const Caller& caller) { return ceph::permissions(client_.library(), caller); }
  ceph::Perms ourselves() { return ceph::own_permissions(client_.library()); }

  // The library's Inode of a node, asked for at its first use. ESTALE: there is none any more.
  int inode(Node& node, ceph::Inode*& out);
  Ref<CephNode> find(ceph::VersionedInode id);
  Ref<CephNode> publish(Ref<CephNode> fresh);
  // The node of an Inode that the library has just handed out, with one reference.
  Ref<CephNode> intern(ceph::Inode*, const ceph::Statx&);
  void entry(ceph::Inode*, const ceph::Statx&, Entry& out);
  void forget(CephNode&);
  int attributes(ceph::Inode*, ceph::Statx& out, unsigned wanted = ceph::kStatxWanted);
  void refresh(ceph::Inode* directory);
  void look(CephFile&, uint64_t offset, int tries = 2);
  bool reads_from_cache(ceph::Fh*, uint64_t offset);
  static bool cacheable(const CephNode&);
  Ref<File> opened_file(Ref<CephNode>, ceph::Fh*, int flags);
  void decide_cache(CephFile&, int flags);
  bool has_capability(ceph::Inode*);
  // As the kernel does for a write, truncate or chown (cap_inode_killpriv).
  void drop_capability(CephNode&, ceph::Inode*);

  static void inode_changed(void* self, ceph::VersionedInode, int64_t offset, int64_t length);
  static void entry_changed(void* self, ceph::VersionedInode directory, ceph::VersionedInode,
                            const char* name, size_t length);

  const CephSettings settings_;
  std::string root_path_;  // set by create()
  ceph::Client client_;
  std::mutex writers_lock_;  // a leaf
  std::shared_mutex sink_lock_;
  InvalidateSink* sink_ = nullptr;  // guarded by sink_lock_, which its calls hold shared
  std::array<Shard, kShards> shards_;
};

}  // namespace poly
