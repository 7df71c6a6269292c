// The preload library's lock, open files and table of descriptors, among threads and signal handlers. Nothing
// is attached: the open files stand for nothing.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <thread>
#include <vector>

#include "preload/fd_table.hpp"
#include "preload/own_fds.hpp"
#include "test/unit/check.hpp"

using namespace poly;

namespace {

constexpr int kThreads = 4;

template <typename Work>
void in_threads(Work work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back([=] { work(i); });
  for (auto& thread : threads) thread.join();
}

// Numbers that no descriptor of this process has.
constexpr int kBase = 5000, kNumbers = 32;

ThreadLock handler_lock;
volatile sig_atomic_t handled = 0;
volatile uint64_t guarded = 0;

void handler(int) {
  const bool outermost = handler_lock.lock();
  handled = handled + 1;
  if (outermost) handler_lock.unlock();
}

}  // namespace

TEST(lock_excludes) {
  static ThreadLock lock;
  static uint64_t counter = 0;
  counter = 0;
  in_threads([](int) {
    for (int i = 0; i < 20000; ++i) {
      const ThreadLockHold hold(lock);
      const ThreadLockHold again(lock);
      counter = counter + 1;
    }
  });
  CHECK_EQ(counter, uint64_t{kThreads} * 20000);
}

TEST(lock_may_be_taken_by_a_handler) {
  struct sigaction action {};
  action.sa_handler = handler;
  REQUIRE(sigaction(SIGALRM, &action, nullptr) == 0);
  itimerval every{{0, 200}, {0, 200}};
  REQUIRE(setitimer(ITIMER_REAL, &every, nullptr) == 0);
  while (handled < 200) {
    const ThreadLockHold hold(handler_lock);
    for (int i = 0; i < 100; ++i) guarded = guarded + 1;
  }
  every = {};
  setitimer(ITIMER_REAL, &every, nullptr);
  CHECK(guarded > 0);
}

TEST(no_record_is_given_out_twice) {
  REQUIRE(Arena::make());
  static std::array<std::atomic<int>, 4096> owners{};
  in_threads([](int) {
    std::vector<FileRef> held;
    for (int i = 0; i < 20000; ++i) {
      if (held.size() < 20 && (held.empty() || i % 3 != 0)) {
        held.push_back(open_files::make());
        const uint32_t index = open_files::index_of(*held.back());
        CHECK(index < owners.size() && owners[index].fetch_add(1) == 0);
      } else {
        owners[open_files::index_of(*held.back())].fetch_sub(1);
        held.pop_back();
      }
    }
    for (const FileRef& file : held) owners[open_files::index_of(*file)].fetch_sub(1);
  });
  const FileRef file = open_files::make();
  CHECK(open_files::index_of(*file) < kThreads * 20 + 1);
}

// What get() finds is what was installed under that number, never a record that has become another file's.
TEST(a_number_stands_for_its_file) {
  REQUIRE(Arena::make());
  in_threads([](int thread) {
    std::mt19937_64 random(check::seed() + static_cast<uint64_t>(thread));
    for (int i = 0; i < 50000; ++i) {
      const int fd = kBase + static_cast<int>(random() % kNumbers);
      if (random() % 3 == 0) {
        FileRef made = open_files::make();
        made->inode = static_cast<uint64_t>(fd);
        FileRef before = fds::take(fd);
        before.drop();
        // Another thread may have installed meanwhile: then its file is lost to the table, and must be
        // dropped.
        const ThreadLockHold hold(fds::table_lock);
        FileRef late = fds::take(fd);
        fds::install(fd, static_cast<FileRef&&>(made));
      } else if (fds::is_library(fd)) {
        const FileRef file = fds::get(fd);
        if (file) CHECK_EQ(file->inode, static_cast<uint64_t>(fd));
      }
    }
  });
  for (int fd = kBase; fd < kBase + kNumbers; ++fd) {
    FileRef file = fds::take(fd);
    if (file) CHECK_EQ(file->references.load(), 1u);
  }
  CHECK(!fds::is_library(kBase));
}

TEST(placeholders_fail_instead_of_lying) {
  REQUIRE(Arena::make());
  const int fd = fds::make_placeholder(0, true);
  REQUIRE(fd >= 0);
  char byte = 'x';
  CHECK(read(fd, &byte, 1) == -1 && errno == EBADF);
  CHECK(write(fd, &byte, 1) == -1 && errno == EBADF);
  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  close(fd);
  const int again = fds::make_placeholder(0, false);
  CHECK_EQ(again, fd);
  CHECK_EQ(fcntl(again, F_GETFD), 0);
  close(again);
}

TEST(own_descriptors_make_way) {
  const int own = own_fds::move_high(dup(0));
  REQUIRE(own > 2);
  own_fds::set(own_fds::kFirstMount, own);
  CHECK(own_fds::holds(own));
  own_fds::make_way(own);
  CHECK(!own_fds::holds(own));
  const int moved = own_fds::get(own_fds::kFirstMount);
  CHECK(moved > own && fcntl(moved, F_GETFD) == FD_CLOEXEC);
  close(own);
  // Where numbers end.
  struct rlimit limit;
  REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  const int last = static_cast<int>(limit.rlim_cur) - 1;
  REQUIRE(dup3(moved, last, O_CLOEXEC) == last);
  close(moved);
  own_fds::set(own_fds::kFirstMount, last);
  own_fds::make_way(last);
  const int back = own_fds::get(own_fds::kFirstMount);
  CHECK(back > 2 && back != last && own_fds::holds(back) && fcntl(back, F_GETFD) == FD_CLOEXEC);
  close(last);
  own_fds::reset(own_fds::kFirstMount);
  CHECK(fcntl(back, F_GETFD) == -1);
}

CHECK_MAIN()
