// The bounded cache of descriptors.
#include "libservices/local/fd_cache.hpp"

#include <thread>

#include "test/unit/local_rig.hpp"

using namespace rig;

namespace {

Ref<SharedFd> some_fd() {
  return Ref<SharedFd>::adopt(new SharedFd(Fd(::open("/dev/null", O_PATH | O_CLOEXEC))));
}

// Keys far enough apart to fall into all shards.
const void* key(size_t n) {
  return reinterpret_cast<const void*>((n + 1) << 6);
}

}  // namespace

TEST(finds_what_was_put) {
  FdCache cache(100);
  CHECK(!cache.find(key(1)));
  const Ref<SharedFd> fd = some_fd();
  cache.insert(key(1), fd);
  CHECK_EQ(cache.find(key(1)).get(), fd.get());
  cache.insert(key(1), some_fd());  // the first stays
  CHECK_EQ(cache.find(key(1)).get(), fd.get());
  cache.erase(key(1));
  cache.erase(key(1));
  CHECK(!cache.find(key(1)));
  CHECK(fd->get() >= 0);
}

TEST(holds_no_more_than_its_bound) {
  const size_t before = open_fds();
  {
    FdCache cache(64);
    for (size_t i = 0; i < 5000; i++) cache.insert(key(i), some_fd());
    CHECK(open_fds() <= before + 64 + 16);
    CHECK(open_fds() >= before + 64);
    const Ref<SharedFd> used = some_fd();
    cache.insert(key(9999), used);
    for (size_t i = 0; i < 5000; i++) cache.insert(key(i), some_fd());
    CHECK(::fcntl(used->get(), F_GETFD) >= 0);  // evicted, but still in use
  }
  CHECK_EQ(open_fds(), before);
}

TEST(drops_what_was_used_longest_ago) {
  FdCache cache(16 * 4);
  const size_t per_shard = 5;  // of one shard: every sixteenth key
  for (size_t i = 0; i < per_shard; i++) cache.insert(key(i * 16), some_fd());
  CHECK(static_cast<bool>(cache.find(key(0))));
  cache.insert(key(per_shard * 16), some_fd());
  CHECK(static_cast<bool>(cache.find(key(0))));
  CHECK(!cache.find(key(16)));
}

TEST(threads_share_it) {
  const size_t before = open_fds();
  {
    FdCache cache(32);
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 4; t++) {
      threads.emplace_back([&, t] {
        std::mt19937_64 rng(check::seed() + t);
        for (int i = 0; i < 20000; i++) {
          const size_t n = rng() % 100;
          if (const Ref<SharedFd> fd = cache.find(key(n))) {
            CHECK(fd->get() >= 0);
          } else if (rng() % 4 == 0) {
            cache.erase(key(n));
          } else {
            cache.insert(key(n), some_fd());
          }
        }
      });
    }
    for (auto& thread : threads) thread.join();
  }
  CHECK_EQ(open_fds(), before);
}

CHECK_MAIN()
