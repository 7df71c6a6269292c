// Locks hold over a death of the service: a holder and a prober that must be kept out; a counter under
// blocking locks.
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "test/faults/workload/areas.hpp"
#include "test/faults/workload/lock_kinds.hpp"

namespace faults {

int set_lock(int fd, Kind kind, int type, off_t start, off_t size, bool wait) {
  if (kind == Kind::kFlock) {
    int operation = type == F_UNLCK ? LOCK_UN : type == F_RDLCK ? LOCK_SH : LOCK_EX;
    return flock(fd, operation | (wait ? 0 : LOCK_NB));
  }
  struct flock lock {};
  lock.l_type = static_cast<short>(type);
  lock.l_start = start;
  lock.l_len = size;
  int command = kind == Kind::kPosix ? (wait ? F_SETLKW : F_SETLK) : (wait ? F_OFD_SETLKW : F_OFD_SETLK);
  return fcntl(fd, command, &lock);
}

std::string show(const char* call, Kind kind, off_t start, off_t size) {
  return std::string(call) + "(" + kKindNames[static_cast<int>(kind)] + ", " + std::to_string(start) + " + " +
         std::to_string(size) + ")";
}

namespace {

int open_locked_file(Context& context, const std::string& name) {
  std::string path = context.common + "/" + name;
  int fd = -1;
  int got = context.report.call("open(" + path + ")",
                                [&] { return fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644); });
  return context.report.expect(0, got) ? fd : -1;
}

// shared[kind]: counts the changes of that lock by the holder; odd: held, even: free. What the prober sees
// counts only if nothing changed around its call.
constexpr size_t kHolderPid = 8;

}  // namespace

// Holds [100, 200) without [140, 150).
void run_lock_holder(Context& context) {
  Reporter& report = context.report;
  int fds[3];
  for (size_t i = 0; i < 3; i++) fds[i] = open_locked_file(context, kKindNames[i]);
  context.shared[kHolderPid].store(static_cast<uint64_t>(getpid()));
  while (!context.over()) {
    size_t i = context.random.below(3);
    Kind kind = kKinds[i];
    auto change = [&](const char* what, int type, off_t start, off_t size) {
      report.expect(0, report.call(show(what, kind, start, size),
                                   [&] { return set_lock(fds[i], kind, type, start, size, true); }));
    };
    if (context.shared[i].load() % 2 == 0) {
      change("lock", F_WRLCK, 100, 100);
      if (kind != Kind::kFlock) change("unlock", F_UNLCK, 140, 10);
      context.shared[i].fetch_add(1);
    } else {
      context.shared[i].fetch_add(1);
      if (kind == Kind::kFlock) {
        change("unlock", F_UNLCK, 0, 0);
      } else {
        change("unlock", F_UNLCK, 100, 50);
        change("unlock", F_UNLCK, 0, 0);
      }
    }
    sleep_ms(context.random.below(400));
  }
  // With the process go its locks, while the other may be asking still.
  for (size_t i = 0; i < 3; i++) {
    if (context.shared[i].load() % 2 == 1) context.shared[i].fetch_add(1);
  }
}

void run_lock_waiter(Context& context) {
  Reporter& report = context.report;
  int fds[3];
  for (size_t i = 0; i < 3; i++) fds[i] = open_locked_file(context, kKindNames[i]);
  static constexpr struct {
    off_t start, size;
    bool held;
  } kRanges[]{{100, 100, true}, {0, 101, true},  {139, 1, true}, {150, 1, true},
              {140, 10, false}, {0, 100, false}, {200, 0, false}};
  while (!context.over()) {
    size_t i = context.random.below(3);
    auto& range = kRanges[context.random.below(7)];
    bool whole = kKinds[i] == Kind::kFlock;
    int type = !whole && context.random.one_in(2) ? F_RDLCK : F_WRLCK;
    uint64_t before = context.shared[i].load();
    int got = report.call(show("try lock", kKinds[i], range.start, range.size),
                          [&] { return set_lock(fds[i], kKinds[i], type, range.start, range.size, false); });
    bool steady = before == context.shared[i].load();
    bool excluded = whole || range.held;
    // Free is sure only where the holder never locks: its unlocking may not have begun.
    if (steady && before % 2 == 1)
      report.expect(excluded ? EAGAIN : 0, got);
    else if (!excluded)
      report.expect_that(got == 0 || got == EAGAIN, error_name(got));
    if (got == 0)
      report.expect(0, report.call("unlock", [&] {
        return set_lock(fds[i], kKinds[i], F_UNLCK, range.start, range.size, false);
      }));
    if (kKinds[i] == Kind::kPosix && context.random.one_in(3)) {
      struct flock lock {};
      lock.l_type = F_WRLCK;
      lock.l_start = 100;
      lock.l_len = 10;
      before = context.shared[i].load();
      got = report.call("F_GETLK", [&] { return fcntl(fds[i], F_GETLK, &lock); });
      report.expect(0, got);
      if (before % 2 == 1 && before == context.shared[i].load())
        report.expect_that(
            lock.l_type == F_WRLCK && static_cast<uint64_t>(lock.l_pid) == context.shared[kHolderPid].load(),
            "lock of type " + std::to_string(lock.l_type) + " by " + std::to_string(lock.l_pid));
    }
    sleep_ms(context.random.below(15));
  }
}

namespace {

void on_alarm(int) {}

constexpr size_t kInside = 40, kWritten = 41;

// One increment of the number in the file under its lock. False: the wait was interrupted.
bool count_once(Context& context, int fd) {
  Reporter& report = context.report;
  bool alarmed = context.random.one_in(4);
  itimerval timer{};
  timer.it_value.tv_usec = 1000 + static_cast<suseconds_t>(context.random.below(60'000));
  if (alarmed) setitimer(ITIMER_REAL, &timer, nullptr);
  int got = report.call("F_SETLKW(counter)", [&] { return set_lock(fd, Kind::kPosix, F_WRLCK, 0, 0, true); });
  timer.it_value.tv_usec = 0;
  if (alarmed) setitimer(ITIMER_REAL, &timer, nullptr);
  if (alarmed && got == EINTR) return false;
  if (!report.expect(0, got)) return false;
  report.expect_that(context.shared[kInside].exchange(1) == 0, "two hold the lock");
  uint64_t value = 0;
  ssize_t n = -1;
  report.expect(0, report.call("pread(counter)", [&] { return n = pread(fd, &value, sizeof value, 0); }));
  report.expect_that(value == context.shared[kWritten].load(),
                     std::to_string(n) + " bytes, " + std::to_string(value) + ", expected " +
                         std::to_string(context.shared[kWritten].load()));
  if (context.random.one_in(10)) sleep_ms(context.random.below(500));
  value++;
  report.expect(0, report.call("pwrite(counter)", [&] { return n = pwrite(fd, &value, sizeof value, 0); }));
  report.expect_that(n == sizeof value, "wrote only " + std::to_string(n));
  context.shared[kWritten].store(value);
  context.shared[context.index].fetch_add(1);
  context.shared[kInside].store(0);
  report.expect(
      0, report.call("unlock(counter)", [&] { return set_lock(fd, Kind::kPosix, F_UNLCK, 0, 0, false); }));
  return true;
}

}  // namespace

void run_counter(Context& context) {
  struct sigaction action {};
  action.sa_handler = on_alarm;  // without SA_RESTART, so that it ends the wait
  sigaction(SIGALRM, &action, nullptr);
  int fd = open_locked_file(context, "counter");
  if (fd < 0) return;
  while (!context.over()) {
    (void)count_once(context, fd);
    if (context.random.one_in(3)) sleep_ms(context.random.below(10));
  }
  close(fd);
}

void verify_counter(Context& context) {
  uint64_t value = 0, wanted = 0;
  int fd = open((context.common + "/counter").c_str(), O_RDONLY | O_CLOEXEC);
  if (!context.report.expect_that(pread(fd, &value, sizeof value, 0) == sizeof value, "no counter")) return;
  close(fd);
  for (size_t i = 0; i < kInside; i++) wanted += context.shared[i].load();
  context.report.expect_that(value == wanted, std::to_string(value) + ", expected " + std::to_string(wanted));
}

}  // namespace faults
