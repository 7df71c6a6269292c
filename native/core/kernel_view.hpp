// What the kernels in front of all instances may hold of what FUSE replies told them: so that a change by the
// fast path costs a notification only where there is something to take back.
//
// Per node: until when its attributes may be believed, whether pages of it may be cached, and in which
// directories an entry reply for it may still be under way. Per (directory, name): until when an entry, a
// negative one too, may be believed; names share a hash table of fixed size, and what falls into one slot is
// only told too often.
//
// The rule that makes it hold: a front end notes what a reply will tell before the reply leaves, and then
// looks whether the fast path has changed it since the request began (Dispatcher::told_*); a change is made
// first and then looks here. So one of the two sees the other. What has been told is forgotten (dropped) only
// if no further reply was noted since it was looked up: such a reply belongs to a request that the kernel
// began after the notification, or that the kernel disregards for having begun before it (fc->attr_version,
// fs/fuse/inode.c), or that the notification waits for (wait_for_lookups below).
//
// Times are nanoseconds of coarse_ns(): what seems simultaneous is taken for a change. Locks: a stripe by
// node is a leaf; the name table has none.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string_view>

namespace poly {

class KernelView {
 public:
  static constexpr uint64_t kForever = UINT64_MAX;
  // For how long a reply may be on its way: through the handler, and in the kernel until the process that
  // asked has run on and starts the kernel's own count of the timeout. What took half of it to answer is not
  // to be believed (Dispatcher::told_*).
  static constexpr uint64_t kUnderWay = 10'000'000'000;
  // After so many ranges in a row with no READ between them all pages go at once: a file that the fast path
  // writes and no kernel reads any more costs nothing then.
  static constexpr uint8_t kRanges = 8;

  KernelView();
  ~KernelView();
  KernelView(const KernelView&) = delete;
  KernelView& operator=(const KernelView&) = delete;

  // Replies that tell something. timeout 0: it will not be believed. Node ids are RecordTable's.
  void attributes_told(uint64_t node, uint64_t timeout);
  // The reply names the node in `directory` (0: in none). False when such replies from too many directories
  // are under way: then its attributes must not be believed.
  [[nodiscard]] bool entry_told(uint64_t node, uint64_t directory, uint64_t timeout, uint64_t size);
  void pages_told(uint64_t node);
  // The file's size as a reply tells it. When that is more than the kernel is known to know while it may hold
  // pages: the size it knows, from which on they are to go before the reply does, for until they are gone
  // readers find zeros there (the kernel sets the size first, fuse_change_attributes, fs/fuse/inode.c).
  [[nodiscard]] std::optional<uint64_t> size_told(uint64_t node, uint64_t size);
  // The kernel has written up to `end` through its own pages: they have what is there.
  void size_written(uint64_t node, uint64_t end);
  // A change that the kernel has asked for may have made it believe in a size of at least `end`.
  void size_grown(uint64_t node, uint64_t end);
  // May the kernel believe in a larger size than this?
  bool believes_larger(uint64_t node, uint64_t size);
  void name_told(uint64_t directory, std::string_view name, uint64_t timeout);
  // After a restart: a kernel may hold anything of the node; any name, for as long as names may be believed.
  void anything_told(uint64_t node);
  void any_name_told(uint64_t timeout);

  struct Held {
    bool attributes = false;
    bool pages = false;
    bool all_pages = false;  // with `pages`: tell all of them
    // Entry replies for the node in these directories may not have arrived yet. While one has not, the kernel
    // may not know the node, so that a notification of it goes by unheard; a notification of any name in the
    // directory waits for them, for the kernel has the directory locked until they have arrived.
    std::array<uint64_t, 2> directories{};
    uint32_t attribute_marks = 0, page_marks = 0;
    explicit operator bool() const { return attributes || pages; }
  };
  Held held(uint64_t node);
  // All that `held` says has been told.
  void dropped(uint64_t node, const Held& held, bool pages_too);

  // 0: not believed; else what to hand to name_dropped.
  uint64_t name_held(uint64_t directory, std::string_view name);
  void name_dropped(uint64_t directory, std::string_view name, uint64_t held);

 private:
  struct Node {
    uint64_t id;       // whose marks these are: a record is used again under another id
    uint64_t size;     // the kernel's pages are right up to there; it may believe in more
    uint64_t largest;  // it may believe in as much as that
    uint64_t attributes_until;
    uint64_t under_way_until;
    std::array<uint64_t, 2> directories;
    uint32_t attribute_marks, page_marks;  // count up, so that a mark made meanwhile is seen
    bool pages;
    uint8_t ranges;
  };
  static constexpr size_t kNameSlots = size_t{1} << 20;

  // Null where the id is none of the table's. Caller holds the stripe.
  Node* find(uint64_t node);
  // The same, emptied if it was another's.
  Node* own(uint64_t node);
  static void believe(Node& n, uint64_t now, uint64_t timeout);
  std::mutex& stripe(uint64_t node) { return stripes_[static_cast<uint32_t>(node) % stripes_.size()]; }

  Node* nodes_ = nullptr;                   // by record index; untouched memory is none; guarded by stripes
  std::atomic<uint64_t>* names_ = nullptr;  // tag << 48 | microseconds, ever greater
  std::atomic<uint64_t> any_name_until_{0};
  std::array<std::mutex, 256> stripes_;
};

}  // namespace poly
