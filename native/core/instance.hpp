// A filesystem instance: a mountable filesystem made of a stack of libservices (today one), with its root
// node. Its id is what records in pool memory carry.
#pragma once

#include <atomic>
#include <memory>

#include "fastpath/fd.hpp"
#include "libservices/libservice.hpp"
#include "native/core/control.hpp"
#include "native/core/op_stats.hpp"
#include "native/core/pool_memory.hpp"
#include "native/core/recent_names.hpp"
#include "native/core/ticket.hpp"

namespace poly {

// The front end's ear for changes made elsewhere: by another instance over the same libservice, by the fast
// path, or by an append that landed where the kernel did not expect it. Calls return at once; the messages
// go out in their order, from threads of their own, and each one's ticket, where given, says that it is out.
class Invalidator {
 public:
  virtual ~Invalidator() = default;
  // offset -1: attributes only; length 0: to the end.
  virtual void invalidate_node(uint64_t node, int64_t offset, int64_t length, const TicketRef&) = 0;
  // Of what a kernel has written, before it is told so: its pages may be locked until then. When this returns
  // the kernel has marked the node, unless it took long.
  virtual void invalidate_written(uint64_t node, int64_t offset, int64_t length) = 0;
  virtual void invalidate_entry(uint64_t parent, std::string_view name, const TicketRef&) = 0;
  // The name is gone, and with it, where the kernel knows it, `child` (0: not known): inotify watchers are
  // told too.
  virtual void delete_entry(uint64_t parent, uint64_t child, std::string_view name, const TicketRef&) = 0;
  // Out when the lookups that the kernel has under way in the directory have ended.
  virtual void wait_for_lookups(uint64_t directory, const TicketRef&) = 0;
  // Something has been waiting in the kernel for long: what is posted now will not be out soon.
  virtual bool late() = 0;
  // Attributes only, and out when it returns: this waits for no lock that a request may hold.
  virtual void drop_attributes(uint64_t node) = 0;
};

// A libservice and how many instances share it.
struct LibserviceHost {
  uint32_t id = 0;
  bool private_backend = false;  // nobody but us changes the files below; set once before it is used
  std::unique_ptr<Libservice> libservice;
  Fd root;  // the directory that the keeper has, for the next keeper
  // After the libservice, whose nodes they hold.
  RecentNames directories{private_backend}, files{private_backend};
  std::atomic<uint32_t> instances{0};
  // Of a backend that may be away (core/backend_watch.hpp); set once before it is served.
  bool watched = false;
  uint64_t op_timeout = 0;                // ns; 0: calls wait
  std::atomic<uint64_t> silent_since{0};  // coarse_ns; 0: it answers
  std::atomic<bool> released{false};      // calls fail at once
};

class Instance {
 public:
  Instance(uint32_t id, std::shared_ptr<LibserviceHost> host) : id(id), host(std::move(host)) {
    this->host->instances.fetch_add(1);
  }
  ~Instance() { host->instances.fetch_sub(1); }
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;

  Libservice& libservice() { return *host->libservice; }
  bool private_backend() const { return host->private_backend; }
  bool shares() const { return host->instances.load(std::memory_order_relaxed) > 1; }

  const uint32_t id;
  const std::shared_ptr<LibserviceHost> host;
  uint64_t root = 0;  // node id; set once before the instance is served
  std::atomic<bool> read_only{false};
  // Nanoseconds for which a kernel may believe what it is told; set once before it is served.
  uint64_t attr_timeout = 0, entry_timeout = 0;
  Invalidator* invalidator = nullptr;   // set once before the instance is served
  ControlSecret control{};              // set once before the instance is served
  InstanceRecord* record = nullptr;     // set once before the instance is served; null: none, in tests
  std::atomic<uint32_t> fast_calls{0};  // under way (Dispatcher::use)
  OpStats stats;
};

}  // namespace poly
