// Records in pool memory and their objects: ids, restarts, a full table, threads.
#include "native/core/record_table.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "test/unit/check.hpp"

using namespace poly;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kScale = 1;
#else
constexpr int kScale = 5;
#endif

std::atomic<int> objects{0};

struct Object final : RefCounted {
  explicit Object(uint64_t value) : value(value) { objects++; }
  ~Object() override { objects--; }
  const uint64_t value;
};
Ref<Object> object(uint64_t value) {
  return Ref<Object>::adopt(new Object(value));
}

using Table = RecordTable<OpenRecord, Object>;

// Records and the high-water mark as pool memory has them, without pool memory.
struct Memory {
  explicit Memory(uint32_t capacity) : capacity(capacity), records(new OpenRecord[capacity]{}) {}
  std::unique_ptr<Table> table() { return std::make_unique<Table>(records.get(), capacity, used); }
  uint32_t capacity;
  std::unique_ptr<OpenRecord[]> records;
  std::atomic<uint32_t> used{0};
};

uint64_t add(Table& table, uint32_t instance, uint64_t value) {
  const uint32_t index = table.reserve();
  if (index == 0) return 0;
  table.record(index).instance = instance;
  table.record(index).node = value;
  return table.publish(index, object(value));
}

void retire(Table& table, uint64_t id) {
  Ref<Object> gone;
  const auto index = static_cast<uint32_t>(id);
  std::lock_guard guard(table.stripe(index));
  if (table.index_of(id) != 0) gone = table.retire(index);
}

}  // namespace

TEST(ids_mean_one_record_only) {
  Memory memory(16);
  auto table = memory.table();
  std::set<uint64_t> seen;
  uint64_t last = 0;
  for (int i = 0; i < 5000; i++) {
    const uint64_t id = add(*table, 7, static_cast<uint64_t>(i));
    CHECK(id > 1);
    CHECK(seen.insert(id).second);
    CHECK(!table->get(last, 7));
    const Ref<Object> found = table->get(id, 7);
    REQUIRE(static_cast<bool>(found));
    CHECK_EQ(found->value, i);
    CHECK(!table->get(id, 8));
    CHECK(!table->get(id + (uint64_t{1} << 32), 7));
    CHECK(!table->get(id + 1, 7));
    retire(*table, id);
    retire(*table, id);  // again: nothing
    last = id;
  }
  CHECK_EQ(objects.load(), 0);
}

TEST(nonsense_ids_find_nothing) {
  Memory memory(16);
  auto table = memory.table();
  const uint64_t id = add(*table, 1, 5);
  for (const uint64_t nonsense :
       {uint64_t{0}, uint64_t{1}, ~uint64_t{0}, id << 32, uint64_t{0xffffffff}, id | uint64_t{1} << 63})
    CHECK(!table->get(nonsense, 1));
  CHECK(!table->restore(~uint64_t{0}, object(1)));
}

TEST(an_object_outlives_its_record) {
  Memory memory(16);
  auto table = memory.table();
  const uint64_t id = add(*table, 1, 5);
  {
    const Ref<Object> held = table->get(id, 1);
    retire(*table, id);
    CHECK(!table->get(id, 1));
    CHECK_EQ(held->value, 5);
    CHECK_EQ(objects.load(), 1);
  }
  CHECK_EQ(objects.load(), 0);
}

TEST(a_full_table_says_so) {
  Memory memory(10);
  auto table = memory.table();
  std::vector<uint64_t> ids;
  while (const uint64_t id = add(*table, 1, 0)) ids.push_back(id);
  CHECK_EQ(ids.size(), 8);  // 0 and 1 are nobody's
  CHECK_EQ(table->count(1), 8);
  retire(*table, ids[3]);
  CHECK(add(*table, 1, 1) != 0);
  CHECK_EQ(add(*table, 1, 1), 0);
}

TEST(records_outlive_the_service) {
  Memory memory(64);
  std::map<uint64_t, uint64_t> model;
  auto& rng = check::random();
  std::set<uint64_t> ever;
  for (int life = 0; life < 20 * kScale; life++) {
    auto table = memory.table();
    CHECK_EQ(table->count(3), model.size());
    for (auto& [id, value] : model) {
      CHECK(!table->get(id, 3));  // no object yet
      const Ref<Object> first = table->restore(id, object(value));
      REQUIRE(static_cast<bool>(first));
      CHECK_EQ(table->restore(id, object(999))->value, value);  // the first stays
      CHECK_EQ(table->get(id, 3)->value, value);
    }
    for (int step = 0; step < 40; step++) {
      if (rng() % 2 == 0 && !model.empty()) {
        auto victim = std::next(model.begin(), static_cast<long>(rng() % model.size()));
        retire(*table, victim->first);
        model.erase(victim);
      } else if (const uint64_t id = add(*table, 3, rng() % 100)) {
        CHECK(ever.insert(id).second);
        model[id] = table->record(static_cast<uint32_t>(id)).node;
      }
    }
    std::map<uint64_t, uint64_t> seen;
    table->for_each_live([&](uint32_t index, OpenRecord& record) { seen[table->id(index)] = record.node; });
    CHECK(seen == model);
    CHECK_EQ(objects.load(), model.size());
  }
  CHECK_EQ(objects.load(), 0);
}

// Whoever dies between reserving and publishing may have told its id to a record of its own
// (core/replay.hpp). That id must not come to mean what another makes of the same record later.
TEST(an_id_that_was_never_published_is_never_given_again) {
  Memory memory(16);
  uint64_t noted;
  {
    auto table = memory.table();
    noted = table->id(table->reserve());
  }
  auto table = memory.table();
  for (int i = 0; i < 20; i++) CHECK(add(*table, 1, 0) != noted);
}

TEST(threads_make_get_and_retire) {
  Memory memory(512);
  auto table = memory.table();
  std::atomic<uint64_t> shared[32]{};
  std::atomic<uint64_t> wrong{0}, hits{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; t++) {
    threads.emplace_back([&, t] {
      std::mt19937_64 rng(check::seed() + t);
      for (int i = 0; i < 20000 * kScale; i++) {
        auto& slot = shared[rng() % 32];
        switch (rng() % 4) {
          case 0: {
            const uint64_t value = rng();
            if (const uint64_t id = add(*table, static_cast<uint32_t>(value % 3), value)) {
              const uint64_t old = slot.exchange(id);
              if (old != 0) retire(*table, old);
            }
            break;
          }
          case 1:
            retire(*table, slot.exchange(0));
            break;
          case 2:
            if (i % 100 == 0 && table->count(1) > 512) wrong++;
            break;
          default: {
            const auto instance = static_cast<uint32_t>(rng() % 3);
            const Ref<Object> found = table->get(slot.load(), instance);
            if (found && found->value % 3 != instance) wrong++;
            if (found) hits++;
          }
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0);
  CHECK(hits.load() > 0);
  for (auto& slot : shared) retire(*table, slot.load());
  CHECK_EQ(objects.load(), 0);
  CHECK_EQ(table->count(0) + table->count(1) + table->count(2), 0);
}

CHECK_MAIN()
