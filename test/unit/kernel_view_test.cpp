// What kernels may hold, and what of it a fast-path change tells them.
#include "native/core/kernel_view.hpp"

#include <algorithm>
#include <functional>

#include "test/unit/fuse_rig.hpp"

using namespace rig;

namespace {

constexpr uint64_t kHour = 3'600'000'000'000;
constexpr uint64_t id(uint32_t index, uint32_t generation = 1) {
  return uint64_t{generation} << 32 | index;
}

// Changes a file or directory from inside a call of the libservice, as the fast path might at that moment.
class Interfering final : public ForwardingLibservice {
 public:
  using ForwardingLibservice::ForwardingLibservice;
  void after() override {
    if (auto run = std::exchange(change, nullptr)) run();
  }
  std::function<void()> change;
};

struct FastRig : FuseRig {
  FastRig() {
    die();
    REQUIRE(PoolMemory::create(memfd) == 0);
    started = false;
    options = {3600, 3600};
    local.start();
    interfering = std::make_unique<Interfering>(static_cast<Libservice&>(*local.fs));
    wrapper = interfering.get();
    start();
  }
  int fast(Request request, Reply& reply) {
    request.fast = true;
    return life->dispatcher->dispatch(*life->instance, request, reply, 0);
  }
  int fast(Request request) {
    Reply reply;
    return fast(std::move(request), reply);
  }
  Request chmod(uint64_t node, mode_t mode = 0600) {
    Request request;
    request.op = Op::setattr;
    request.node = node;
    request.set.mask = kSetMode;
    request.set.mode = mode;
    return request;
  }
  Request named(Op op, const char* name) {
    Request request;
    request.op = op;
    request.node = life->instance->root;
    request.name = name;
    request.mode = op == Op::mkdir ? 0755 : S_IFREG | 0644;
    return request;
  }
  // What the kernel has been told until now, one letter each: i(node), e(ntry), d(eleted). Then a tick
  // passes, so that what has been changed before is seen to be so.
  std::string told() {
    std::string all;
    ::usleep(20'000);
    for (Answer a = received(); a.sent; a = received()) {
      all += a.error == FUSE_NOTIFY_INVAL_INODE ? 'i' : a.error == FUSE_NOTIFY_INVAL_ENTRY ? 'e' : 'd';
    }
    return all;
  }
  fuse_entry_out look(const char* name) { return call(Message(FUSE_LOOKUP).text(name)).as<fuse_entry_out>(); }
  fuse_attr_out attributes(uint64_t node) {
    return call(Message(FUSE_GETATTR, node).with(fuse_getattr_in{})).as<fuse_attr_out>();
  }
  std::unique_ptr<Interfering> interfering;
};

}  // namespace

TEST(attributes_are_held_until_told_or_timed_out) {
  KernelView view;
  const uint64_t node = id(7);
  CHECK(!view.held(node));
  view.attributes_told(node, 0);  // a timeout of 0 is not believed
  CHECK(!view.held(node));
  view.attributes_told(node, kHour);
  KernelView::Held held = view.held(node);
  CHECK(held.attributes && !held.pages);
  CHECK(!view.held(id(7, 2)));  // the record of another life
  view.dropped(node, held, false);
  CHECK(!view.held(node));
  // A reply noted since is not forgotten with what was there before.
  view.attributes_told(node, kHour);
  held = view.held(node);
  view.attributes_told(node, kHour);
  view.dropped(node, held, false);
  CHECK(view.held(node).attributes);
}

TEST(entry_replies_are_under_way_in_at_most_two_directories) {
  KernelView view;
  const uint64_t node = id(7);
  CHECK(view.entry_told(node, id(20), kHour, 0) && view.entry_told(node, id(20), kHour, 0));
  CHECK(view.entry_told(node, id(21), kHour, 0));
  CHECK(!view.entry_told(node, id(22), kHour, 0));  // and not believed
  const KernelView::Held held = view.held(node);
  CHECK(held.attributes && held.directories[0] == id(20) && held.directories[1] == id(21));
  view.dropped(node, held, false);
  CHECK(view.entry_told(node, id(22), kHour, 0));
  CHECK_EQ(view.held(node).directories[0], id(22));
  CHECK_EQ(view.held(node).directories[1], 0);
}

TEST(a_size_that_grew_elsewhere_goes_behind_the_pages) {
  KernelView view;
  const uint64_t node = id(8);
  CHECK(!view.size_told(node, 100));  // no pages: nobody can read zeros in one
  view.pages_told(node);
  CHECK(!view.size_told(node, 100));
  CHECK_EQ(view.size_told(node, 250).value_or(0), 100);
  CHECK(!view.size_told(node, 250) && !view.size_told(node, 50));
  view.size_written(node, 80);  // through its own pages
  CHECK(!view.size_told(node, 80));
  CHECK(view.entry_told(node, id(20), 0, 60));  // shorter: its last page has zeros behind the end now
  CHECK_EQ(view.size_told(node, 70).value_or(0), 60);
}

TEST(the_largest_size_it_may_believe_in) {
  KernelView view;
  const uint64_t node = id(9);
  CHECK(!view.believes_larger(node, 0));
  CHECK(view.entry_told(node, id(20), 0, 60));
  CHECK(view.believes_larger(node, 59) && !view.believes_larger(node, 60));
  view.size_grown(node, 100);
  CHECK(view.entry_told(node, id(20), 0, 60));  // which the kernel may not have believed
  CHECK(view.believes_larger(node, 99));
  (void)view.size_told(node, 50);
  CHECK(!view.believes_larger(node, 50));
  CHECK(!view.believes_larger(id(9, 2), 0));
  view.anything_told(node);
  CHECK(view.believes_larger(node, kHour));
}

// The kernel ignores the size in a reply that a notification overtakes; so only what nobody has dropped is to
// go before the reply does.
TEST(a_size_that_the_fast_path_grew_is_told_at_once) {
  FastRig rig;
  rig.local.create("f");
  const uint64_t f = rig.look("f").nodeid;
  const uint64_t fh = rig.open(f);
  Request write;
  write.op = Op::write;
  write.node = f;
  write.file = fh;
  write.data = std::as_bytes(std::span("text", 4));
  CHECK_EQ(rig.fast(write), 0);
  CHECK_EQ(rig.call(rig.read_message(FUSE_READ, f, fh, 0, 4096)).error, 0);  // before any size is told
  for (const uint64_t offset : {4, 5000}) {
    CHECK_EQ(rig.attributes(f).attr.size, offset);
    write.offset = offset == 4 ? 4996 : 9996;
    CHECK_EQ(rig.fast(write), 0);
    rig.told();
    CHECK_EQ(rig.attributes(f).attr.size, write.offset + 4);
    CHECK_EQ(rig.told(), "");
  }
}

TEST(pages_go_range_by_range_and_then_all) {
  KernelView view;
  const uint64_t node = id(9);
  view.pages_told(node);
  for (int i = 0; i < KernelView::kRanges; i++) {
    const KernelView::Held held = view.held(node);
    CHECK(held.pages && !held.all_pages && !held.attributes);
    view.dropped(node, held, true);
  }
  CHECK(view.held(node).all_pages);
  view.pages_told(node);  // read again: ranges are worth while
  CHECK(!view.held(node).all_pages);
  for (int i = 0; i < KernelView::kRanges; i++) view.dropped(node, view.held(node), true);
  KernelView::Held held = view.held(node);
  view.dropped(node, held, false);  // attributes alone were told
  CHECK(view.held(node).pages);
  view.pages_told(node);
  view.dropped(node, held, true);  // there was a read meanwhile
  CHECK(view.held(node).pages);
  for (int i = 0; i <= KernelView::kRanges; i++) view.dropped(node, view.held(node), true);
  CHECK(!view.held(node));
}

TEST(names_are_held_each_in_its_directory) {
  KernelView view;
  CHECK_EQ(view.name_held(id(5), "f"), 0);
  view.name_told(id(5), "f", kHour);
  uint64_t held = view.name_held(id(5), "f");
  CHECK(held != 0);
  CHECK_EQ(view.name_held(id(6), "f"), 0);
  CHECK_EQ(view.name_held(id(5), "g"), 0);
  view.name_dropped(id(5), "f", held);
  CHECK_EQ(view.name_held(id(5), "f"), 0);
  view.name_told(id(5), "f", kHour);
  held = view.name_held(id(5), "f");
  view.name_told(id(5), "f", kHour);
  view.name_dropped(id(5), "f", held);  // told again meanwhile
  CHECK(view.name_held(id(5), "f") != 0);
  CHECK_EQ(view.name_held(id(6), "x"), 0);
  view.any_name_told(kHour);
  CHECK(view.name_held(id(6), "x") != 0);
}

TEST(no_name_of_many_is_missed) {
  KernelView view;
  constexpr int kMany = 300'000;
  for (int i = 0; i < kMany; i++) view.name_told(id(5), std::to_string(i), kHour);
  int held = 0, strangers = 0;
  for (int i = 0; i < kMany; i++) held += view.name_held(id(5), std::to_string(i)) != 0;
  for (int i = 0; i < 10'000; i++) strangers += view.name_held(id(6), std::to_string(i)) != 0;
  CHECK_EQ(held, kMany);
  CHECK(strangers < 1500);  // in slots that several share
}

TEST(what_no_kernel_has_seen_costs_no_notification) {
  FastRig rig;
  CHECK_EQ(rig.fast(rig.named(Op::mknod, "f")), 0);
  Reply found;
  Request lookup = rig.named(Op::lookup, "f");
  CHECK_EQ(rig.life->dispatcher->dispatch(*rig.life->instance, lookup, found, 0), 0);
  CHECK_EQ(rig.fast(rig.chmod(found.entry.node)), 0);
  CHECK_EQ(rig.fast(rig.named(Op::unlink, "f")), 0);
  CHECK_EQ(rig.told(), "");
}

TEST(what_a_kernel_may_hold_is_told_once) {
  FastRig rig;
  rig.local.create("f");
  const fuse_entry_out entry = rig.look("f");
  CHECK_EQ(entry.attr_valid, 3600);
  CHECK_EQ(entry.entry_valid, 3600);
  CHECK_EQ(rig.fast(rig.chmod(entry.nodeid)), 0);
  CHECK_EQ(rig.told(), "ei");  // the lookup may not have arrived: waits for it, then drops the attributes
  CHECK_EQ(rig.fast(rig.chmod(entry.nodeid, 0640)), 0);
  CHECK_EQ(rig.told(), "");
  CHECK_EQ(rig.attributes(entry.nodeid).attr_valid, 3600);
  CHECK_EQ(rig.fast(rig.chmod(entry.nodeid)), 0);
  CHECK_EQ(rig.told(), "i");

  // The name, and the directory's attributes, which nobody has asked for.
  CHECK_EQ(rig.fast(rig.named(Op::unlink, "f")), 0);
  CHECK_EQ(rig.told(), "d");
  CHECK_EQ(rig.look("f").nodeid, 0);
  CHECK_EQ(rig.attributes(FUSE_ROOT_ID).attr_valid, 3600);
  CHECK_EQ(rig.fast(rig.named(Op::mkdir, "f")), 0);
  std::string told = rig.told();
  std::ranges::sort(told);
  CHECK_EQ(told, "ei");
  CHECK_EQ(rig.fast(rig.named(Op::rmdir, "f")), 0);
  CHECK_EQ(rig.told(), "");
}

TEST(lists_of_access_and_pages_are_held_without_a_timeout) {
  FastRig rig;
  rig.local.create("f");
  const uint64_t f = rig.look("f").nodeid;
  CHECK_EQ(rig.fast(rig.chmod(f)), 0);
  CHECK_EQ(rig.told(), "ei");
  CHECK_EQ(
      rig.call(Message(FUSE_GETXATTR, f).with(fuse_getxattr_in{64, 0}).text("system.posix_acl_access")).error,
      -ENODATA);
  CHECK_EQ(rig.fast(rig.chmod(f)), 0);
  CHECK_EQ(rig.told(), "i");
  const uint64_t fh = rig.open(f);
  CHECK_EQ(rig.call(rig.read_message(FUSE_READ, f, fh, 0, 4096)).error, 0);
  CHECK_EQ(rig.fast(rig.chmod(f)), 0);
  CHECK_EQ(rig.told(), "");  // no data was changed
  Request write;
  write.op = Op::write;
  write.node = f;
  write.file = fh;
  write.data = std::as_bytes(std::span("text", 4));
  for (int i = 0; i <= KernelView::kRanges; i++) {
    CHECK_EQ(rig.fast(write), 0);
    CHECK_EQ(rig.told(), "i");
  }
  CHECK_EQ(rig.fast(write), 0);
  CHECK_EQ(rig.told(), "");
}

TEST(what_changes_while_a_reply_is_made_is_not_to_be_believed) {
  FastRig rig;
  rig.local.create("f");
  const uint64_t f = rig.look("f").nodeid;
  rig.interfering->change = [&] { CHECK_EQ(rig.fast(rig.chmod(f)), 0); };
  fuse_entry_out entry = rig.look("f");
  CHECK_EQ(entry.entry_valid, 3600);
  CHECK_EQ(entry.attr_valid, 0);
  CHECK_EQ(rig.told(), "ei");  // of the lookup before; that the one under way was noted is no matter
  CHECK_EQ(rig.look("f").attr_valid, 3600);
  rig.interfering->change = [&] { CHECK_EQ(rig.fast(rig.chmod(f)), 0); };
  CHECK_EQ(rig.attributes(f).attr_valid, 0);
  rig.told();
  CHECK_EQ(rig.attributes(f).attr_valid, 3600);
  // A negative entry, while the name is made.
  rig.interfering->change = [&] { CHECK_EQ(rig.fast(rig.named(Op::mknod, "new")), 0); };
  entry = rig.look("new");
  CHECK_EQ(entry.nodeid, 0);
  CHECK_EQ(entry.entry_valid, 0);
  CHECK(rig.look("new").nodeid != 0);
  // A positive one, while it goes.
  rig.interfering->change = [&] { CHECK_EQ(rig.fast(rig.named(Op::unlink, "new")), 0); };
  CHECK_EQ(rig.look("new").entry_valid, 0);
}

TEST(after_a_restart_a_kernel_may_hold_anything) {
  FastRig rig;
  rig.local.create("f");
  const uint64_t f = rig.look("f").nodeid;
  CHECK_EQ(rig.fast(rig.chmod(f)), 0);
  rig.told();
  rig.die();
  rig.local.start();
  rig.interfering = std::make_unique<Interfering>(static_cast<Libservice&>(*rig.local.fs));
  rig.wrapper = rig.interfering.get();
  rig.start();
  CHECK_EQ(rig.fast(rig.chmod(f)), 0);
  CHECK_EQ(rig.told(), "i");
  CHECK_EQ(rig.fast(rig.chmod(f)), 0);
  CHECK_EQ(rig.told(), "");
  CHECK_EQ(rig.fast(rig.named(Op::mknod, "never seen")), 0);
  std::string told = rig.told();
  std::ranges::sort(told);
  CHECK_EQ(told, "ei");
}

TEST(a_stuck_kernel_holds_a_call_up_for_a_moment_only) {
  FastRig rig;
  rig.local.create("f");
  rig.look("f");
  const int queue = rig.life->connection->queues[0].get();
  CHECK_EQ(::fcntl(queue, F_SETFL, 0), 0);  // writes block
  const std::vector<char> much(1000);
  while (::send(queue, much.data(), much.size(), MSG_DONTWAIT) > 0) {
  }
  Reply first, others[5];
  CHECK_EQ(rig.fast(rig.named(Op::unlink, "f"), first), 0);
  CHECK(first.told != nullptr);
  ::usleep(50'000);
  // It is known to be late: none waits for its whole second, as five in a row would, however busy the
  // machine.
  auto quickest = std::chrono::steady_clock::duration::max();
  bool there = false;
  for (Reply& reply : others) {
    const auto begun = std::chrono::steady_clock::now();
    there = !there;
    CHECK_EQ(rig.fast(rig.named(there ? Op::mknod : Op::unlink, "f"), reply), 0);
    CHECK(reply.told != nullptr);
    quickest = std::min(quickest, std::chrono::steady_clock::now() - begun);
  }
  CHECK(quickest < std::chrono::milliseconds(800));
  char drained[1000];
  while (::recv(rig.life->kernel.get(), drained, sizeof drained, MSG_DONTWAIT) > 0 || errno != EAGAIN) {
  }
  if (first.told) CHECK(first.told->wait(std::chrono::seconds(5)));
  for (Reply& reply : others) {
    if (reply.told) CHECK(reply.told->wait(std::chrono::seconds(5)));
  }
}

CHECK_MAIN()
