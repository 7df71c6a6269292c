// Clients killed in the middle of whatever they do: what they had done before is there, once and whole; their
// locks are free, and their files can be removed.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "test/faults/workload/areas.hpp"
#include "test/faults/workload/lock_kinds.hpp"

namespace faults {
namespace {

// shared[2 * index]: victims killed; the next word: steps that the present one has done.
constexpr uint64_t kSteps = 4;  // of each file: made, written, directory made, moved there
constexpr uint64_t kMostOpen = 200;

size_t size_of(uint64_t seed, uint64_t n) {
  return Random(seed + n).below(50'000);
}
std::string name_of(const std::string& directory, uint64_t n) {
  return directory + "/v" + std::to_string(n);
}

// Each step would fail if it was done twice. Exits with the number of one that did.
[[noreturn]] void be_victim(const std::string& directory, uint64_t seed, std::atomic<uint64_t>& steps) {
  Random random(seed);
  int lock = open((directory + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  for (uint64_t n = 0;; n++) {
    const std::string name = name_of(directory, n);
    const Kind kind = n % 2 ? Kind::kPosix : Kind::kFlock;
    (void)set_lock(lock, kind, F_WRLCK, 0, 0, true);
    int fd = open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
    const std::string data = random.bytes(size_of(seed, n));
    if (fd < 0) _exit(1);
    steps.store(kSteps * n + 1);
    if (write(fd, data.data(), data.size()) != static_cast<ssize_t>(data.size())) _exit(2);
    steps.store(kSteps * n + 2);
    if (mkdir((name + "d").c_str(), 0755) != 0) _exit(3);
    steps.store(kSteps * n + 3);
    if (rename(name.c_str(), (name + "d/f").c_str()) != 0) _exit(4);
    steps.store(kSteps * n + 4);
    (void)set_lock(lock, kind, F_UNLCK, 0, 0, false);
    if (random.one_in(2))
      close(fd);
    else if (fd > static_cast<int>(kMostOpen))
      _exit(0);
  }
}

// Of each file that the victim had begun; it may have done one step more than it could say.
void check_left(Reporter& report, const std::string& directory, uint64_t seed, uint64_t steps) {
  for (uint64_t n = 0; kSteps * n < steps; n++) {
    const uint64_t done = std::min(steps - kSteps * n, kSteps);
    struct stat st {};
    const std::string name = name_of(directory, n), moved = name + "d/f";
    int got = report.call("stat(" + moved + ")", [&] { return stat(moved.c_str(), &st); });
    if (done < kSteps && got != 0)
      got = report.call("stat(" + name + ")", [&] { return stat(name.c_str(), &st); });
    if (!report.expect(0, got)) continue;
    const auto size = static_cast<size_t>(st.st_size);
    report.expect_that(done < 2 ? size <= size_of(seed, n) : size == size_of(seed, n),
                       std::to_string(size) + " bytes, expected " + std::to_string(size_of(seed, n)));
  }
}

void check_locks_free(Reporter& report, const std::string& directory) {
  int fd = open((directory + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  for (Kind kind : {Kind::kPosix, Kind::kFlock}) {
    int got = EAGAIN;
    // The last close of a killed process is asynchronous.
    for (uint64_t end = now_us() + 10'000'000; got == EAGAIN && now_us() < end; sleep_ms(10))
      got = report.call(show("lock after the victim's end", kind, 0, 0),
                        [&] { return set_lock(fd, kind, F_WRLCK, 0, 0, false); });
    report.expect(0, got);
  }
  close(fd);
}

bool remove_all(Reporter& report, const std::string& directory) {
  for (int round = 0; round < 2; round++) {
    std::string command = "rm -rf '" + directory + "'";
    if (report.call(command, [&] { return system(command.c_str()) == 0 ? 0 : (errno = EIO, -1); }) == 0)
      return true;
  }
  report.fail("the victim's files cannot be removed");
  return false;
}

}  // namespace

void run_victims(Context& context) {
  Reporter& report = context.report;
  std::atomic<uint64_t>&killed = context.shared[2 * context.index], &steps = (&killed)[1];
  for (unsigned n = 0; !context.over(); n++) {
    std::string directory = context.directory + "/v" + std::to_string(n);
    report.expect(0, report.call("mkdir(" + directory + ")", [&] { return mkdir(directory.c_str(), 0755); }));
    const uint64_t seed = context.random.next();
    steps.store(0);
    pid_t child = fork();
    if (child == 0) be_victim(directory, seed, steps);
    sleep_ms(5 + context.random.below(context.random.one_in(4) ? 300 : 60));
    kill(child, SIGKILL);
    int status = 0;
    report.call("waitpid(victim)", [&] { return waitpid(child, &status, 0); });
    report.expect_that(WIFSIGNALED(status) || WEXITSTATUS(status) == 0,
                       "the victim failed at step " + std::to_string(WEXITSTATUS(status)));
    if (WIFSIGNALED(status)) killed.fetch_add(1);
    printf("%s: %lu victims killed\n", context.who.c_str(), killed.load());
    fflush(stdout);
    check_left(report, directory, seed, steps.load());
    check_locks_free(report, directory);
    if (!remove_all(report, directory)) break;
  }
}

}  // namespace faults
