// The libservice interface (users' and implementers' face): one piece of filesystem functionality, node- and
// handle-based like FUSE's low-level API and libcephfs's ceph_ll_*. A filesystem instance is a stack of
// libservices; each calls the next directly. The dispatcher (native/core/dispatcher.hpp) is the only caller
// from above.
//
// Results: 0 or a positive count on success, -errno on failure; never an exception. Every call may block its
// thread; it holds no lock of the dispatcher while it does. Calls come from any service thread, concurrently,
// on the same node too. Names are single components, NUL-terminated, without '/', never "." or "..", at most
// NAME_MAX bytes.
//
// Permissions: on FUSE the kernel has decided before the call (default_permissions, POSIX_ACL). The caller's
// credentials are for ownership of new files, umask and default ACLs.
//
// Lifetime: Node and File are reference-counted (ref.hpp). A Node stays valid while any Ref exists; what it
// denotes may be gone below (ESTALE). The dispatcher keeps its own bookkeeping in Node::bindings, which
// libservices do not touch.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "fastpath/set_attr_mask.hpp"
#include "libservices/ref.hpp"

namespace poly {

// statx(2)'s structure is the attribute record: it carries btime and 64-bit everything, and `local` fills it
// in one call.
using Attr = struct statx;

// Who asks. `umask` applies to creations unless the parent has a default ACL (acl(5)).
struct Caller {
  uid_t uid = 0;
  gid_t gid = 0;
  pid_t pid = 0;
  mode_t umask = 0;
  // Supplementary groups, sorted, where the front end knows them; else they are looked up by pid when needed.
  std::optional<std::span<const gid_t>> groups = std::nullopt;
};

// What a libservice may be given as a name. Front ends check it; a libservice that reaches further by name
// checks it again.
inline bool is_component(const char* name) {
  return *name && !std::strchr(name, '/') && std::strcmp(name, ".") != 0 && std::strcmp(name, "..") != 0;
}

struct NodeBinding {
  uint32_t instance;
  uint32_t record;
  uint64_t parent = 0;  // id of the node that its handle leads through, of which it holds a lookup; 0: none
};

class Node : public RefCounted {
 public:
  // Dispatcher's: which record stands for this node in which instance (one per instance that shares the
  // libservice).
  std::mutex binding_lock;
  std::vector<NodeBinding> bindings;  // guarded by binding_lock
  // Dispatcher's: held from the look that decides a change of this directory's names, or of this node's owner
  // and mode, until the change is made, so that nothing comes between. Of two directories (rename) the one at
  // the lower address is locked first.
  std::mutex change_lock;
  // Dispatcher's (core/recent_names.hpp), of a directory: grows when a name begins to go or to lead
  // elsewhere, and again when that is done; so it is odd meanwhile. Written under change_lock. New names do
  // not count.
  std::atomic<uint64_t> names_version{0};
  // Dispatcher's (core/access.cpp): when the node's ctime is this (ns, 0: never), it has no access ACL.
  std::atomic<int64_t> no_acl_ctime{0};
  // Dispatcher's, to tell changes that came from below from our own (dispatcher.cpp, observe): what size and
  // mtime were when last seen, and whether we have changed the data since.
  std::atomic<uint64_t> seen_version{0};
  std::atomic<bool> changed_by_us{false};
  // Dispatcher's (coherence.cpp): when the fast path last changed the node or one of its entries, and when
  // its data last changed otherwise than through a kernel's cache.
  std::atomic<uint64_t> fast_changed{0};
  std::atomic<uint64_t> uncached_change{0};
  // When a kernel last wrote past its own pages, and no fast-path change that drops them has come since.
  std::atomic<uint64_t> uncached_write{0};
};

// A libservice file: what an open made. Closed when the last reference goes.
class File : public RefCounted {};

struct Entry {
  Ref<Node> node;
  Attr attr;
};

struct SetAttr {
  uint32_t mask = 0;  // 0: chown(2) with both ids -1, which changes nothing but set-id bits and ctime
  mode_t mode = 0;
  uid_t uid = 0;
  gid_t gid = 0;
  uint64_t size = 0;
  timespec atime{};
  timespec mtime{};
};

struct DirEntry {
  std::string_view name;
  uint64_t ino;
  // Cookie to continue after this entry; stable under change and across restarts.
  uint64_t next;
  uint8_t type;  // DT_*
};

// Receives directory entries; returns false when it has no room (that entry is not consumed).
class DirSink {
 public:
  virtual ~DirSink() = default;
  [[nodiscard]] virtual bool add(const DirEntry& entry) = 0;
};

// What encode() makes of a node and decode() takes back after a restart: opaque to all but its libservice.
struct NodeHandle {
  static constexpr size_t kMax = 416;
  uint16_t size = 0;
  std::array<std::byte, kMax> bytes;
};

// A host fd whose pages are the file's pages, for passthrough and shared reading.
struct Loan {
  int fd = -1;  // owned by the libservice; valid while the File is open
  bool writable = false;
};

// A POSIX lock, as the backend has it.
struct FileLock {
  uint64_t start = 0;
  uint64_t end = 0;  // inclusive; INT64_MAX: to the end of any file
  int type = 0;      // F_RDLCK, F_WRLCK, F_UNLCK
  pid_t pid = 0;
};

// Upcalls for changes that come from below or from another instance over the same libservice.
class InvalidateSink {
 public:
  virtual ~InvalidateSink() = default;
  // Data and attributes of a node changed; length 0 means to the end, offset -1 attributes only.
  virtual void invalidate_node(Node& node, int64_t offset, int64_t length) = 0;
  virtual void invalidate_entry(Node& directory, std::string_view name) = 0;
};

class Libservice {
 public:
  virtual ~Libservice() = default;

  // `subdirectory` is resolved beneath the libservice's root and never out of it; "" is the root.
  [[nodiscard]] virtual int root(const char* subdirectory, Entry& out) = 0;

  [[nodiscard]] virtual int lookup(const Caller&, Node& dir, const char* name, Entry& out) = 0;
  // The attributes alone, where no node is wanted: cheaper for who has to make one.
  [[nodiscard]] virtual int stat(const Caller& caller, Node& dir, const char* name, Attr& out) {
    Entry entry;
    if (int err = lookup(caller, dir, name, entry)) return err;
    out = entry.attr;
    return 0;
  }
  // `file` may be null: the node's attributes are the same either way, an open file only makes them cheaper.
  [[nodiscard]] virtual int getattr(Node&, File* file, Attr& out) = 0;
  // What decides who may do what in a directory: type, mode, owner, group and links. What else is right,
  // stx_mask says: times and sizes may be dear where others make and remove names in it.
  [[nodiscard]] virtual int getattr_access(Node& dir, Attr& out) { return getattr(dir, nullptr, out); }
  [[nodiscard]] virtual int setattr(const Caller&, Node&, File* file, const SetAttr&, Attr& out) = 0;
  [[nodiscard]] virtual ssize_t readlink(Node&, std::span<char> out) = 0;

  [[nodiscard]] virtual int mknod(const Caller&, Node& dir, const char* name, mode_t, dev_t, Entry& out) = 0;
  [[nodiscard]] virtual int mkdir(const Caller&, Node& dir, const char* name, mode_t, Entry& out) = 0;
  [[nodiscard]] virtual int symlink(const Caller&, Node& dir, const char* name, const char* target,
                                    Entry& out) = 0;
  [[nodiscard]] virtual int link(const Caller&, Node& node, Node& dir, const char* name, Entry& out) = 0;
  // The victim of unlink, rmdir and rename stays usable through its Node until the last reference goes.
  // `victim` is what a lookup of the name has just answered.
  [[nodiscard]] virtual int unlink(const Caller&, Node& dir, const char* name, const Entry& victim) = 0;
  [[nodiscard]] virtual int rmdir(const Caller&, Node& dir, const char* name, const Entry& victim) = 0;
  // flags: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT of renameat2(2); EINVAL for what is not known.
  [[nodiscard]] virtual int rename(const Caller&, Node& dir, const char* name, Node& new_dir,
                                   const char* new_name, uint32_t flags) = 0;

  // flags as open(2); O_APPEND is the dispatcher's business and never arrives here.
  [[nodiscard]] virtual int create(const Caller&, Node& dir, const char* name, int flags, mode_t, Entry& out,
                                   Ref<File>& file) = 0;
  [[nodiscard]] virtual int tmpfile(const Caller&, Node& dir, int flags, mode_t, Entry& out,
                                    Ref<File>& file) = 0;
  // Also directories (O_DIRECTORY). `restored`: an open of before a restart, not to be truncated again.
  [[nodiscard]] virtual int open(const Caller&, Node&, int flags, bool restored, Ref<File>& file) = 0;

  [[nodiscard]] virtual ssize_t read(File&, uint64_t offset, std::span<std::byte> out) = 0;
  // Do many small reads cost about as much as one large one?
  [[nodiscard]] virtual bool reads_in_chunks() const { return false; }
  [[nodiscard]] virtual ssize_t write(File&, uint64_t offset, std::span<const std::byte> in) = 0;
  // close(2) of one descriptor: report what asynchronous writing found so far.
  [[nodiscard]] virtual int flush(File&) = 0;
  [[nodiscard]] virtual int fsync(File&, bool data_only) = 0;
  // From `cookie` (0 = start) until the sink is full or the directory ends.
  [[nodiscard]] virtual int readdir(File&, uint64_t cookie, DirSink&) = 0;
  [[nodiscard]] virtual int fallocate(File&, uint32_t mode, uint64_t offset, uint64_t length) = 0;
  [[nodiscard]] virtual int64_t lseek(File&, int64_t offset, int whence) = 0;  // SEEK_DATA, SEEK_HOLE
  [[nodiscard]] virtual ssize_t copy_range(File& in, uint64_t offset_in, File& out, uint64_t offset_out,
                                           uint64_t length) = 0;

  [[nodiscard]] virtual int setxattr(Node&, const char* name, std::span<const std::byte> value,
                                     int flags) = 0;
  // An empty span asks for the size.
  [[nodiscard]] virtual ssize_t getxattr(Node&, const char* name, std::span<std::byte> value) = 0;
  [[nodiscard]] virtual ssize_t listxattr(Node&, std::span<std::byte> names) = 0;
  [[nodiscard]] virtual int removexattr(Node&, const char* name) = 0;

  [[nodiscard]] virtual int statfs(Node&, struct statvfs& out) = 0;
  [[nodiscard]] virtual int syncfs(Node&) = 0;

  // ESTALE from decode: what the handle named is gone.
  [[nodiscard]] virtual int encode(Node&, NodeHandle& out) = 0;
  [[nodiscard]] virtual int decode(const NodeHandle&, Ref<Node>& out) = 0;
  // The node that must be decoded, too, for what encode() answers to lead anywhere. Null: none.
  [[nodiscard]] virtual Ref<Node> handle_parent(Node&) { return nullptr; }
  // Every node that a predecessor encoded has been decoded, or never will be: what was kept for others can
  // go.
  virtual void all_restored() {}
  // The parking lot has lost all: park again what should be there. 0, or -errno of what could not be parked.
  [[nodiscard]] virtual int park_again() { return 0; }

  // ENOTSUP where nothing can be lent. Nothing borrows yet; the answer is reported by `poly stat`.
  [[nodiscard]] virtual int lend(File&, Loan& out) = 0;

  // No call follows: writes back what has not been, and takes leave of a backend that would wait for it. May
  // take as long as the backend, and is called once, in any thread. `patient`: the backend has answered so
  // far; else it is left within seconds. 0, or -errno when written data may not have reached it (ETIMEDOUT:
  // it does not answer).
  [[nodiscard]] virtual int leave([[maybe_unused]] bool patient) { return 0; }

  // Where changes from below are reported, from any thread; a libservice whose backend tells nothing never
  // calls it. When this returns, no call of the one before is under way.
  virtual void set_invalidate_sink(InvalidateSink*) {}

  // May a kernel keep what has just been read from or written to the file? No, where others may change it and
  // nobody would be told: then it is dropped again.
  [[nodiscard]] virtual bool may_keep(File&) { return true; }
  // Decided when it was opened for writing: should a kernel read and write it past its page cache? What it
  // writes through pages that may be dropped at any time, readers may find missing for a moment.
  [[nodiscard]] virtual bool uncached(File&) { return false; }

  // May data be lost with the service that write() has taken and fsync() has not been asked for? Who had it
  // open is told then (OpenRecord::sync_state).
  [[nodiscard]] virtual bool loses_unsynced() const { return false; }

  // Do others than this service lock files below? Then what has been decided among its own callers is asked
  // of the backend, too. `owner` is one number for each holder of POSIX locks in all instances.
  [[nodiscard]] virtual bool locks_below() const { return false; }
  // Sets or (F_UNLCK) gives up a range without waiting; -EAGAIN: somebody else's is in the way.
  [[nodiscard]] virtual int lock(File&, uint64_t /*owner*/, const FileLock&) { return 0; }
  // What of somebody else's is in the way, or F_UNLCK.
  [[nodiscard]] virtual int test_lock(File&, uint64_t /*owner*/, FileLock& lock) {
    lock.type = F_UNLCK;
    return 0;
  }
};

}  // namespace poly
