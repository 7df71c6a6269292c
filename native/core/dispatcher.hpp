// The dispatcher: the one place under all front ends where operations happen, and the only caller of
// libservices.
//
// dispatch() finds the operation's handler in a table made from POLY_OPS. Handlers resolve ids to nodes and
// files, keep the exactly-once records, decide append offsets and locks, and tell other instances what
// changed.
//
// Lock order (all of the native side): Node::change_lock (a directory's before its child's) and append stripe
// > Local's (local.hpp) and Node::binding_lock > record stripe > free list ; instances_lock_ > all but the
// first two ; LockTable::lock_, KernelView's stripes, Ticket's and the Notifier's queue are leaves. No lock
// is held while a FUSE reply is written, and neither a change_lock nor an append stripe while a kernel is
// told of a change: it may be waiting there for an answer that waits for the same lock.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <utility>
#include <vector>

#include "libservices/handle_store.hpp"
#include "native/core/access.hpp"
#include "native/core/instance.hpp"
#include "native/core/kernel_view.hpp"
#include "native/core/lock_table.hpp"
#include "native/core/lower_locks.hpp"
#include "native/core/node_table.hpp"
#include "native/core/replay.hpp"
#include "native/core/request.hpp"

namespace poly {

class Changes;
struct Change;

class Dispatcher final : public LockCompletion, public InvalidateSink, public HandleStore {
 public:
  explicit Dispatcher(PoolMemory& pool);

  // 0 or -errno; LockTable::kParked when the answer comes later through the instance's LockCompletion.
  [[nodiscard]] int dispatch(Instance& instance, Request& request, Reply& reply, size_t shard);
  // The same without statistics: the caller keeps them.
  [[nodiscard]] int perform(Instance& instance, Request& request, Reply& reply);

  // An instance by its id, kept from being dropped while the fast-path call that asked for it runs. Null: no
  // such instance (any more).
  class Use {
   public:
    Use() = default;
    explicit Use(Instance* instance) : instance_(instance) {}
    Use(Use&& other) noexcept : instance_(std::exchange(other.instance_, nullptr)) {}
    Use& operator=(Use&& other) noexcept {
      std::swap(instance_, other.instance_);
      return *this;
    }
    ~Use() {
      if (instance_) instance_->fast_calls.fetch_sub(1, std::memory_order_release);
    }
    explicit operator bool() const { return instance_ != nullptr; }
    Instance& operator*() const { return *instance_; }
    Instance* operator->() const { return instance_; }

   private:
    Instance* instance_ = nullptr;
  };
  Use use(uint32_t instance);

  // Open files of fast-path clients (client_files.cpp). A client's handle of a file is the index of its
  // record; it means nothing to any other client.
  struct ClientFile {
    uint64_t id = 0;
    uint64_t node = 0;
    uint32_t instance = 0;
    uint32_t flags = 0;  // open(2)'s
    bool directory = false;
  };
  [[nodiscard]] bool client_file(uint64_t client, uint32_t handle, ClientFile& out);
  Ref<Node> client_node(const ClientFile& file) { return nodes_.get(file.node, file.instance); }
  // As close(2): what it says (libservice's flush), and the file is closed whatever that is.
  int close_client_file(Instance& instance, const ClientFile& file);
  // All that a client has open; how many there were.
  size_t close_client(uint64_t client);
  uint32_t count_client_files(uint64_t client);
  // A repeated call goes another way than its first run, whose unanswered effects are taken back.
  void start_over(Instance& instance, Request& request) { undo_unanswered(instance, request); }
  // Keys of the clients with open files, for who finds out after a restart which of them still live.
  std::vector<uint64_t> clients_with_files();
  // May the kernel of any instance hold attributes or pages of the node? What it decides from them without
  // asking (ETXTBSY of a running program, who may set an ACL) is its to decide then.
  bool kernel_holds(Node& node);
  // May the kernel in front of the instance believe that the file is larger than this? It asks for the size
  // only when a read leads past the end it believes in (fuse_cache_read_iter, fs/fuse/file.c), and takes what
  // a shorter one does not get for zeros when a notification has come meanwhile (fuse_read_update_size). So
  // it must cut such a file itself.
  bool kernel_believes_larger(Instance&, Node&, uint64_t size);
  // Gives the open file `request.file` (a handle) of the client with this tag to the kernel, which opens it
  // with `request.flags`: its lookup becomes the kernel's. -ENOENT: no such file; -EACCES: opened otherwise.
  [[nodiscard]] int promote(Instance& instance, uint32_t client_tag, Request& request, Reply& reply);
  // Whether a FLUSH of the file is of the descriptor by which it was promoted: the first one is, also when it
  // is asked again.
  [[nodiscard]] bool closes_spare_descriptor(uint64_t file, uint64_t request);
  // The node of that file, with one more lookup, for a kernel that may not create (a read-only mount).
  [[nodiscard]] int promote_by_lookup(Instance& instance, uint32_t client_tag, Request& request,
                                      Reply& reply);

  // Makes the instance known and gives it its root; `restored`: its records of before a restart are taken up.
  [[nodiscard]] int add_instance(Instance& instance, const char* subdirectory, bool restored);
  // Removal in two steps. Nobody is told anything of or through the instance any more; then, when no request
  // of it is under way, its records go.
  void detach_instance(Instance& instance);
  void drop_instance(Instance& instance);

  // After a restart: what a predecessor changed and had not told this instance, which shares its libservice,
  // is made up for. Names are not: the kernel believes them for as long as entry_timeout says.
  void invalidate_all(Instance& instance);

  // Of changes by other hosts: all kernels are told, soon. From any thread.
  void invalidate_node(Node&, int64_t offset, int64_t length) override;
  void invalidate_entry(Node& directory, std::string_view name) override;
  int handle_changed(Libservice& libservice, Node& node) override {
    return nodes_.refresh_handle(libservice, node);
  }

  void lock_completed(uint32_t instance, uint64_t request, int result) override;
  void set_lock_completion(uint32_t instance, LockCompletion* completion);

  // For the front end that answers a kernel, when it knows what the reply will tell and before it sends it
  // (kernel_view.hpp). False: the fast path has changed that since `since`, when the request began
  // (coarse_ns), so that the reply must not be believed: timeout 0.
  [[nodiscard]] bool told_attributes(Instance&, uint64_t node, uint64_t since);
  struct Believed {
    bool name, attributes;
  };
  // An entry: `node` (0: none), with these attributes, has `name` in `directory` ("": has no name).
  [[nodiscard]] Believed told_entry(Instance&, uint64_t directory, std::string_view name, uint64_t node,
                                    const Attr& attr, uint64_t since);
  // The size that a reply tells. Has it grown elsewhere than in the kernel's cache: where pages are to go
  // from before the reply does (KernelView::size_told).
  [[nodiscard]] std::optional<uint64_t> told_size(Instance&, uint64_t node, uint64_t size);
  // A kernel's write is to be done, past its cache; has been done. `cached`: it has the pages in its cache.
  void writes_uncached(Instance&, const Request&);
  void wrote(Instance&, const Request&, const Reply&, bool cached);
  KernelView& view() { return view_; }

  ReplayTable& replays() { return replays_; }
  LockTable& locks() { return locks_; }
  // Ends a parked wait with -EINTR.
  void cancel_lock(uint32_t instance, uint64_t request);
  NodeTable& nodes() { return nodes_; }
  uint64_t open_files(uint32_t instance) { return files_.count(instance); }
  // How many of them the libservice could lend a host fd for.
  uint64_t lendable_files(Instance& instance);

 private:
  using Handler = int (Dispatcher::*)(Instance&, Request&, Reply&);
  static const std::array<Handler, kOpCount> handlers_;

#define X(name, cls, effect) int op_##name(Instance&, Request&, Reply&);
  POLY_OPS(X)
#undef X

  // -ESTALE when the id means nothing (any more).
  int node(Instance&, uint64_t id, Ref<Node>& out);
  int first_node(Instance&, const Request&, Ref<Node>& out);
  int second_node(Instance&, const Request&, Ref<Node>& out);
  // Reopens a file of before a restart at its first use. -EBADF when the id means nothing.
  int file(Instance&, uint64_t id, Ref<File>& out);
  int reopen(Instance&, uint64_t id, Ref<File>& out);
  // Counts one lookup and notes it in the replay record.
  int hold(Instance&, Request&, Node&, uint64_t& id);
  // An entry for the front end: held, but for a fast-path call, which has no use for an id.
  int answer(Instance&, Request&, Entry&, EntryReply& out);
  int register_file(Instance&, Request&, uint64_t node, uint32_t flags, bool directory, Ref<File>,
                    uint64_t& id);
  void unregister_file(uint32_t instance, uint64_t id);
  void undo_unanswered(Instance&, Request&);
  int open_node(Instance&, Request&, Reply&, int flags, bool directory);
  int open_place(Instance&, Request&, Reply&);
  int set_attributes(Instance&, const Request&, Node&, File*, Attr& out);
  int strip_set_ids(Instance&, const Request&, Node&, File*);
  int drop_set_group(Instance&, const Request&, Node&);

  // Exactly once: see core/replay.hpp.
  template <typename Make>
  int make_once(Instance&, Request&, Reply&, Node& dir, const char* name, Make make);
  int find_absent(Instance&, Request&, Node& dir, const char* name, Entry& found);
  template <typename Remove>
  int remove_once(Instance&, Request&, Node& dir, bool directory, Remove remove);
  template <typename Remove>
  int remove_locked(Instance&, Request&, Node& dir, bool directory, Entry& victim, Remove remove);
  int create_locked(Instance&, Request&, Node& dir, Entry&, Ref<File>&);
  int rename_once(Instance&, Request&, Node& dir, Node& new_dir);
  int rename_checked(Instance&, Request&, Node& dir, Node& new_dir, const Entry& from);
  void drop_unless_kept(Instance&, const Request&, File&, uint64_t offset, uint64_t length);
  bool appended_since(Instance&, const Request&, uint64_t began);
  // POSIX locks of a libservice whose backend keeps them too (handlers_locks.cpp).
  int lock_below(Instance&, uint64_t file, const LockOwner&, const LockRange&);
  int lock_both(Instance&, LowerLocks::Wanted&, Node&, bool wait);
  int lock_again(LowerLocks::Wanted&);
  void tell_lock(uint32_t instance, uint64_t request, int result);
  void give_up_locks(Instance&, Node&, uint64_t file, const LockOwner&);
  void take_locks_again(Instance&);
  // What was written through an open file and not synced (sync_state.cpp).
  void note_write(Instance&, uint64_t file);
  int sync(Instance&, uint64_t file, int (*run)(Libservice&, File&), File&);
  void take_for_lost(Instance&);
  int write_at(Instance&, Request&, Node&, File&, uint64_t offset, uint64_t& written);
  int append(Instance&, Request&, Node&, File&, Reply&);

  // Looks at attributes that the libservice has just answered: when size or mtime changed and we did not do
  // it, the host did, and what kernels have cached of the file's data goes. True then. Two changes at once,
  // ours and the host's, are taken for ours.
  bool observe(Instance&, Node&, const Attr&);
  // Tell kernels (coherence.cpp): of a fast-path call when it is over, of another now.
  void changed(Instance&, Node&, int64_t offset, int64_t length);
  void entry_changed(Instance&, Node& dir, const char* name);
  void entry_removed(Instance&, Node& dir, const char* name, Node& victim, bool last);
  template <typename Tell>
  void tell_others(Instance&, Node&, Tell tell);
  template <typename Tell>
  void tell_all(Node&, Tell tell);
  struct Telling;
  int dispatch_fast(Instance&, Request&, Reply&);
  void tell_kernels(const Changes&, Reply&);
  void tell(const Change&, Telling&);
  void tell_name(Instance&, uint64_t directory, const Change&, Telling&);
  void tell_node(Invalidator&, uint64_t id, const Change&, Telling&);
  bool fast_path_used();
  bool changed_since(Instance&, uint64_t node, uint64_t since);

  PoolMemory& pool_;
  NodeTable nodes_;
  RecordTable<OpenRecord, File> files_;
  LockTable locks_;
  LowerLocks lower_locks_;
  ReplayTable replays_;
  KernelView view_;
  std::atomic<bool> fast_path_used_{false};   // ever
  std::atomic<bool> uncached_writes_{false};  // ever, of either front end
  std::array<std::mutex, 64> append_locks_;   // by node: an append's offset is decided and written under it

  std::shared_mutex instances_lock_;
  std::map<uint32_t, Instance*> instances_;               // guarded by instances_lock_
  std::map<uint32_t, LockCompletion*> lock_completions_;  // guarded by instances_lock_
};

}  // namespace poly
