// What a front end asks of the dispatcher, and what it gets back. One shape for all operations; each handler
// (core/handlers_*.cpp) says which fields it reads. Spans and strings belong to the front end and live until
// dispatch returns.
#pragma once

#include <span>

#include "fastpath/copy.hpp"
#include "fastpath/ops.hpp"
#include "libservices/libservice.hpp"
#include "native/core/lock_table.hpp"
#include "native/core/pool_memory.hpp"
#include "native/core/ticket.hpp"

namespace poly {

class Instance;
class Permissions;

struct Request {
  Op op{};
  Caller caller;
  uint64_t identity =
      0;  // unique within the instance while in flight; the same when asked again after a restart
  ReplayRecord* replay = nullptr;
  bool resent = false;  // `replay` holds what a predecessor left

  // A fast-path call: no kernel has decided whether it may be done, nor knows what it changes. `permissions`
  // decides the former where that must not come apart from the doing (null: nothing to decide). `client`: key
  // of whose open files are its own.
  bool fast = false;
  const Permissions* permissions = nullptr;
  uint64_t client = 0;

  uint64_t node = 0;
  uint64_t node2 = 0;  // rename, link: the other directory
  // Nodes themselves instead of their ids, kept in use by the caller: fast-path calls on what no kernel
  // knows.
  Node* at = nullptr;
  Node* at2 = nullptr;
  uint64_t file = 0;
  uint64_t file2 = 0;  // copy_file_range: the destination
  const char* name = "";
  const char* name2 = "";  // rename: new name; symlink: target
  uint64_t offset = 0;
  uint64_t offset2 = 0;
  uint64_t size = 0;
  uint32_t flags = 0;  // open, rename, xattr, fallocate, fsync (1: data only), lseek (whence)
  mode_t mode = 0;
  dev_t device = 0;
  bool kill_priv = false;   // clear set-id bits, as for an unprivileged writer
  bool wait = false;        // setlk
  bool past_cache = false;  // read, write: direct I/O, of which the kernel keeps nothing
  std::span<const std::byte> data;
  SetAttr set;
  LockRange lock;
  LockOwner lock_owner{};
};

// What is done even if the backend does not answer: nothing of it waits, and what is held must be let go.
inline bool gives_back(Op op) {
  return op == Op::forget || op == Op::release || op == Op::releasedir;
}

struct EntryReply {
  // 0 with result 0: the name is absent, and that may be cached. Fast-path calls get one with an open file
  // only.
  uint64_t node = 0;
  Attr attr;
};

class EntrySink {
 public:
  virtual ~EntrySink() = default;
  [[nodiscard]] virtual bool fits(size_t name_size) const = 0;
  // `entry` is null in a plain readdir and for entries nothing is known about.
  virtual void add(const DirEntry& directory_entry, const EntryReply* entry) = 0;
};

struct Reply {
  EntryReply entry;    // lookup and the makers; getattr and setattr fill only entry.attr
  uint64_t file = 0;   // open, create, tmpfile, opendir
  uint64_t value = 0;  // write, copy_file_range: bytes; lseek: offset; xattr with an empty buffer: size
  uint64_t end = 0;    // write: the file offset after what was written
  std::span<std::byte> buffer;  // in: room; read, readlink, xattrs fill it
  size_t size = 0;              // how much of it is filled
  CopyTeller teller;            // in: read tells how much of it is
  bool stale = false;           // open: the data changed below since the kernel may have cached it
  bool uncached = false;        // open, create, tmpfile: to be read and written past the page cache
  EntrySink* sink = nullptr;    // readdir, readdirplus
  struct statvfs statfs {};
  LockRange lock;
  // Of a fast-path call, and nearly always null: not all kernels have been told in time of what it changed.
  // To be answered only when the ticket says so (Ticket::then), which may be never while a kernel is stuck.
  TicketRef told;
};

}  // namespace poly
