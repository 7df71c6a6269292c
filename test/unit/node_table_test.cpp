// Node ids and lookup counts: through restarts, with handles of all sizes, and from threads that forget what
// others look up.
#include "native/core/node_table.hpp"

#include <map>
#include <memory>
#include <set>
#include <thread>

#include "test/unit/check.hpp"
#include "test/unit/stub_libservice.hpp"

using namespace rig;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kScale = 1;
#else
constexpr int kScale = 5;
#endif

struct Rig {
  Rig() {
    REQUIRE(PoolMemory::create(memfd) == 0);
    start();
  }
  void start() {
    nodes = nullptr;
    pool = std::make_unique<PoolMemory>();
    REQUIRE(pool->map(memfd.get()) == 0);
    nodes = std::make_unique<NodeTable>(*pool);
  }
  uint64_t remember(uint64_t number, uint32_t instance = 1) {
    const Ref<Node> node = libservice.at(number);
    uint64_t id = 0;
    CHECK_EQ(nodes->remember(libservice, instance, *node, id), 0);
    return id;
  }
  // The number behind the id, or -1.
  int64_t number(uint64_t id, uint32_t instance = 1) {
    const Ref<Node> node = nodes->get(id, instance);
    return node ? static_cast<int64_t>(static_cast<NumberedNode&>(*node).number) : -1;
  }

  NumberedLibservice libservice;
  Fd memfd;
  std::unique_ptr<PoolMemory> pool;
  std::unique_ptr<NodeTable> nodes;
};

}  // namespace

TEST(lookups_are_counted) {
  Rig rig;
  const uint64_t id = rig.remember(5);
  CHECK_EQ(rig.remember(5), id);
  CHECK_EQ(rig.remember(5), id);
  CHECK(rig.remember(6) != id);
  rig.nodes->forget(1, id, 2);
  CHECK_EQ(rig.number(id), 5);
  rig.nodes->forget(1, id, 1);
  CHECK_EQ(rig.number(id), -1);
  CHECK_EQ(rig.libservice.alive(), 1);
  const uint64_t again = rig.remember(5);
  CHECK(again != id);
  rig.nodes->forget(1, id, 1);  // of before: nothing
  CHECK_EQ(rig.number(again), 5);
  rig.nodes->forget(1, again, 1000);  // more than there are
  CHECK_EQ(rig.number(again), -1);
  CHECK_EQ(rig.nodes->count(1), 1);
}

TEST(instances_count_for_themselves) {
  Rig rig;
  const uint64_t one = rig.remember(5, 1), two = rig.remember(5, 2);
  CHECK(one != two);
  CHECK_EQ(rig.number(one, 2), -1);
  CHECK_EQ(rig.nodes->id_in(*rig.libservice.at(5), 2), two);
  CHECK_EQ(rig.nodes->id_in(*rig.libservice.at(5), 3), 0);
  rig.nodes->forget(2, one, 1);  // not its own
  CHECK_EQ(rig.number(one, 1), 5);
  rig.nodes->forget(1, one, 1);
  CHECK_EQ(rig.number(two, 2), 5);
  rig.nodes->drop_instance(2);
  CHECK_EQ(rig.libservice.alive(), 0);
}

TEST(nonsense_is_forgotten_quietly) {
  Rig rig;
  const uint64_t id = rig.remember(5);
  for (const uint64_t nonsense : {uint64_t{0}, uint64_t{1}, ~uint64_t{0}, id + 1, id | uint64_t{7} << 32})
    rig.nodes->forget(1, nonsense, UINT64_MAX);
  CHECK_EQ(rig.number(id), 5);
}

TEST(nodes_outlive_the_service) {
  for (const size_t handle_size : {8ul, 104ul, 105ul, 300ul, NodeHandle::kMax}) {
    Rig rig;
    rig.libservice.handle_size = handle_size;
    auto& rng = check::random();
    std::map<uint64_t, std::pair<uint64_t, uint64_t>> model;  // number: id, lookups
    std::set<uint64_t> ever;
    for (int life = 0; life < 6; life++) {
      for (int step = 0; step < 200; step++) {
        const uint64_t number = rng() % 50;
        auto& [id, lookups] = model[number];
        if (lookups == 0 || rng() % 2 == 0) {
          const uint64_t got = rig.remember(number);
          CHECK(lookups == 0 ? ever.insert(got).second : got == id);
          id = got;
          lookups++;
        } else {
          const uint64_t some = 1 + rng() % lookups;
          rig.nodes->forget(1, id, some);
          lookups -= some;
        }
      }
      std::erase_if(model, [](auto& item) { return item.second.second == 0; });
      if (life % 2 == 0) {
        rig.start();
        rig.nodes->restore(rig.libservice, 1);
      }
      CHECK_EQ(rig.nodes->count(1), model.size());
      CHECK_EQ(rig.libservice.alive(), model.size());
      for (auto& [number, what] : model) CHECK_EQ(rig.number(what.first), number);
    }
    for (auto& [number, what] : model) rig.nodes->forget(1, what.first, what.second);
    CHECK_EQ(rig.libservice.alive(), 0);
    CHECK_EQ(rig.nodes->count(1), 0);
    // Blocks are used again: never more than nodes at one time.
    CHECK(rig.pool->header->blocks_used.load() <= 52);
  }
}

// What cannot be decoded stays as an id that finds nothing, until it is forgotten; its block is used again.
TEST(lost_nodes_answer_nothing) {
  Rig rig;
  rig.libservice.handle_size = 200;
  std::vector<uint64_t> ids;
  for (uint64_t number = 0; number < 20; number++) ids.push_back(rig.remember(number));
  rig.libservice.forgetful = true;
  rig.start();
  rig.nodes->restore(rig.libservice, 1);
  rig.libservice.forgetful = false;
  for (const uint64_t id : ids) CHECK_EQ(rig.number(id), -1);
  CHECK_EQ(rig.nodes->count(1), 20);
  for (const uint64_t id : ids) rig.nodes->forget(1, id, 1);
  CHECK_EQ(rig.nodes->count(1), 0);
  const uint32_t blocks = rig.pool->header->blocks_used.load();
  for (uint64_t number = 0; number < 20; number++) CHECK(rig.remember(number) != ids[number]);
  CHECK_EQ(rig.pool->header->blocks_used.load(), blocks);
}

// A handle is replaced beside the old one, so that a death in the middle leaves one of the two.
TEST(a_new_handle_does_not_overwrite_the_old) {
  Rig rig;
  const uint64_t id = rig.remember(5);
  const NodeRecord& record = rig.pool->nodes[static_cast<uint32_t>(id)];
  std::byte before[NodeRecord::kInline];
  std::memcpy(before, record.inline_handle, sizeof before);
  rig.libservice.handle_size = 40;
  CHECK_EQ(rig.nodes->refresh_handle(rig.libservice, *rig.libservice.at(5)), 0);
  CHECK(std::memcmp(before, record.inline_handle, sizeof before) == 0);
  for (const size_t size : {300ul, 50ul, 20ul, 104ul}) {
    rig.libservice.handle_size = size;
    CHECK_EQ(rig.nodes->refresh_handle(rig.libservice, *rig.libservice.at(5)), 0);
    rig.start();
    rig.nodes->restore(rig.libservice, 1);
    CHECK_EQ(rig.number(id), 5);
  }
  rig.nodes->forget(1, id, 1);
  CHECK(rig.pool->header->blocks_used.load() <= 3);
}

TEST(a_pool_of_another_kind_is_refused) {
  Fd memfd;
  REQUIRE(PoolMemory::create(memfd) == 0);
  PoolMemory first, second, third, fourth;
  CHECK_EQ(first.map(memfd.get()), 0);
  CHECK_EQ(second.map(memfd.get()), 0);
  CHECK_EQ(second.header->incarnation.load(), 2);
  first.header->abi++;
  CHECK_EQ(third.map(memfd.get()), -EPROTO);
  const Fd other(::memfd_create("other", MFD_CLOEXEC));
  CHECK_EQ(fourth.map(other.get()), -EPROTO);
  CHECK_EQ(fourth.map(-1), -EBADF);
}

// As the kernel does: every lookup that was answered is forgotten once, in any order, from any thread.
TEST(threads_look_up_and_forget) {
  Rig rig;
  rig.libservice.handle_size = 150;
  std::atomic<uint64_t> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; t++) {
    threads.emplace_back([&, t] {
      std::mt19937_64 rng(check::seed() + t);
      std::vector<std::pair<uint64_t, uint64_t>> owed;  // number, id
      for (int i = 0; i < 10000 * kScale; i++) {
        if (rng() % 2 == 0 || owed.empty()) {
          const uint64_t number = rng() % 8;
          const Ref<Node> node = rig.libservice.at(number);
          uint64_t id;
          if (rig.nodes->remember(rig.libservice, 1 + t % 2, *node, id) != 0) wrong++;
          owed.push_back({number, id});
        } else {
          const size_t which = rng() % owed.size();
          const auto [number, id] = owed[which];
          // Ours is not forgotten yet, so it must be there and be the same.
          if (rig.number(id, 1 + t % 2) != static_cast<int64_t>(number)) wrong++;
          if (rng() % 8 == 0 &&
              rig.nodes->refresh_handle(rig.libservice, *rig.nodes->get(id, 1 + t % 2)) != 0)
            wrong++;
          rig.nodes->forget(1 + t % 2, id, 1);
          owed[which] = owed.back();
          owed.pop_back();
        }
        if (i % 500 == 0 && rig.nodes->count(1) > 8) wrong++;
      }
      for (auto& [number, id] : owed) rig.nodes->forget(1 + t % 2, id, 1);
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0);
  CHECK_EQ(rig.nodes->count(1) + rig.nodes->count(2), 0);
  CHECK_EQ(rig.libservice.alive(), 0);
}

CHECK_MAIN()
