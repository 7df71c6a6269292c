// poly-bench-workload: one measured experiment on one directory, as JSON on stdout.
//
//   poly-bench-workload CASE DIR [--clients N] [--ops N] [--warmup N] [--backing DIR] [--direct] [--hogs N]
//                       [--gate]
//
// Each client is a process with files and a directory of its own below DIR. Preparation and warm-up come
// first; then all clients pass one barrier and each times every operation with CLOCK_MONOTONIC (the two clock
// calls, about 50 ns, are part of each sample). Reported: nanoseconds over all samples, and operations per
// second of the slowest client. What a case does is in its class (workload_cases.cpp, fast_cases.cpp);
// `stat-uncached` drops the kernel's dentries (root only: without root it waits until the entry timeout is
// over and says so). With --backing the directory behind a pass-through file system is walked after the drop,
// so that the host's own dentries are warm for every peer. --hogs: so many processes compute meanwhile.
//
// --gate: before the measurement it says "ready PID..." of the clients and waits for a line on stdin; after
// it, for another one (or the end), with the clients alive: what they did in between can be asked elsewhere.
#include "workload.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <ctime>
#include <numeric>
#include <string_view>
#include <vector>

namespace poly_bench {
namespace {

constexpr int kMaxClients = 8;

uint64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(t.tv_nsec);
}

// A pipe whose readers wait until its writers have closed it, or for a byte.
class Pipe {
 public:
  Pipe() { check(pipe(ends_) == 0, "pipe"); }
  void close_writer() { close(std::exchange(ends_[1], -1)); }
  void close_reader() { close(std::exchange(ends_[0], -1)); }
  bool wait() const {
    char byte;
    return read(ends_[0], &byte, 1) == 1;
  }
  void tell() const { check(write(ends_[1], "", 1) == 1, "pipe"); }

 private:
  int ends_[2];
};

// Shared by the clients and the parent: two barriers, then the samples of every client.
struct Shared {
  std::atomic<int> ready;
  std::atomic<int> phase;
  uint64_t elapsed[kMaxClients];
  uint32_t samples[];
};

// A run: the clients, and where they wait for each other. Those that have measured sleep without a tick,
// because others still measure.
class Run {
 public:
  explicit Run(const Settings& settings) : settings_(settings) {}
  int operator()();

 private:
  size_t samples() const {
    return static_cast<size_t>(settings_.clients) * static_cast<size_t>(settings_.ops);
  }
  pid_t start(int index);
  pid_t start_hog() const;
  void client(int index);
  void measure(Case&, int index);
  void stage(int phase) const;
  void gate(const std::string& line) const;
  void report() const;

  const Settings& settings_;
  Shared* shared_ = nullptr;
  Pipe measured_;  // a byte from each client that has
  Pipe end_;       // closed when the clients may clean up
};

pid_t child() {
  fflush(stdout);
  const pid_t pid = fork();
  check(pid >= 0, "fork");
  if (pid == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
  return pid;
}

pid_t Run::start(int index) {
  const pid_t pid = child();
  if (pid == 0) {
    measured_.close_reader();
    end_.close_writer();
    client(index);
    _exit(0);
  }
  return pid;
}

pid_t Run::start_hog() const {
  const pid_t pid = child();
  if (pid == 0) {
    for (;;) asm volatile("");
  }
  return pid;
}

void wait_for(const std::atomic<int>& value, int wanted) {
  while (value.load() < wanted) usleep(200);
}

void Run::client(int index) {
  std::string home = settings_.dir + "/client-" + std::to_string(index);
  check(mkdir(home.c_str(), 0755) == 0 || errno == EEXIST, home);
  auto work = make_case(settings_, home);
  work->prepare(settings_.ops);
  if (work->warms()) {
    for (int i = 0; i < settings_.warmup; i++) {
      work->before(i);
      work->run(i);
    }
  }
  shared_->ready++;
  wait_for(shared_->phase, 1);
  work->start();
  shared_->ready++;
  while (shared_->phase.load() < 2) {
  }  // spin: the clients start within a microsecond of each other
  measure(*work, index);
  measured_.tell();
  measured_.close_writer();
  (void)end_.wait();
  work->clean();
}

void Run::measure(Case& work, int index) {
  uint32_t* samples = shared_->samples + static_cast<ptrdiff_t>(index) * settings_.ops;
  uint64_t begin = now_ns();
  for (int i = 0; i < settings_.ops; i++) {
    work.before(i);
    uint64_t from = now_ns();
    work.run(i);
    samples[i] = static_cast<uint32_t>(std::min<uint64_t>(now_ns() - from, UINT32_MAX));
  }
  shared_->elapsed[index] = now_ns() - begin;
}

void Run::report() const {
  const size_t count = samples();
  std::vector<uint32_t> sorted(shared_->samples, shared_->samples + count);
  std::sort(sorted.begin(), sorted.end());
  double mean = std::accumulate(sorted.begin(), sorted.end(), 0.0) / static_cast<double>(count);
  uint64_t slowest = *std::max_element(shared_->elapsed, shared_->elapsed + settings_.clients);
  printf(
      "{\"case\":\"%s\",\"clients\":%d,\"ops\":%d,\"medianNs\":%u,\"p99Ns\":%u,\"meanNs\":%.0f,"
      "\"opsPerSecond\":%.0f}\n",
      settings_.name.c_str(), settings_.clients, settings_.ops, sorted[count / 2], sorted[count * 99 / 100],
      mean, settings_.ops * 1e9 / static_cast<double>(slowest));
}

// Until every client has come as far; exits when one gave up, which has said why.
void Run::stage(int phase) const {
  while (shared_->ready.load() < settings_.clients * phase) {
    int status = 0;
    if (waitpid(-1, &status, WNOHANG) > 0) exit(1);
    usleep(200);
  }
}

void Run::gate(const std::string& line) const {
  if (!settings_.gate) return;
  fputs(line.c_str(), stdout);
  fflush(stdout);
  int c;
  do c = getchar();
  while (c != EOF && c != '\n');
}

int Run::operator()() {
  void* memory = mmap(nullptr, sizeof(Shared) + sizeof(uint32_t) * samples(), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  check(memory != MAP_FAILED, "mmap");
  shared_ = new (memory) Shared;
  std::string pids;
  for (int i = 0; i < settings_.clients; i++) pids += " " + std::to_string(start(i));
  measured_.close_writer();
  stage(1);
  make_case(settings_, settings_.dir)->settle();
  gate("ready" + pids + "\n");
  std::vector<pid_t> hogs;
  for (int i = 0; i < settings_.hogs; i++) hogs.push_back(start_hog());
  shared_->phase = 1;
  stage(2);
  shared_->phase = 2;
  for (int i = 0; i < settings_.clients; i++) {
    if (!measured_.wait()) exit(1);  // one ended before it had measured
  }
  for (pid_t hog : hogs) kill(hog, SIGKILL);
  for (pid_t hog : hogs) waitpid(hog, nullptr, 0);
  report();
  gate("");
  end_.close_writer();
  bool failed = false;
  int status = 0;
  while (wait(&status) > 0) failed |= status != 0;
  return failed ? 1 : 0;
}

int number(const char* text) {
  char* end = nullptr;
  long value = strtol(text, &end, 10);
  if (*end != 0 || value < 0 || value > 10'000'000) {
    fprintf(stderr, "poly-bench-workload: not a number: %s\n", text);
    exit(1);
  }
  return static_cast<int>(value);
}

Settings parse(int argc, char** argv) {
  Settings settings;
  std::vector<std::string> words;
  for (int i = 1; i < argc; i++) {
    std::string_view word = argv[i];
    bool value = i + 1 < argc;
    if (word == "--clients" && value) {
      settings.clients = std::clamp(number(argv[++i]), 1, kMaxClients);
    } else if (word == "--ops" && value) {
      settings.ops = number(argv[++i]);
    } else if (word == "--warmup" && value) {
      settings.warmup = number(argv[++i]);
    } else if (word == "--hogs" && value) {
      settings.hogs = number(argv[++i]);
    } else if (word == "--backing" && value) {
      settings.backing = argv[++i];
    } else if (word == "--direct") {
      settings.direct = true;
    } else if (word == "--gate") {
      settings.gate = true;
    } else {
      words.emplace_back(word);
    }
  }
  if (words.size() != 2) {
    fprintf(stderr,
            "usage: poly-bench-workload CASE DIR [--clients N] [--ops N] [--warmup N] [--backing DIR]\n"
            "                           [--direct] [--hogs N] [--gate]\n");
    exit(1);
  }
  settings.name = words[0];
  settings.dir = words[1];
  if (settings.ops == 0) settings.ops = make_case(settings, settings.dir)->default_ops();
  if (settings.warmup < 0) settings.warmup = settings.ops / 4;
  return settings;
}

}  // namespace
}  // namespace poly_bench

int main(int argc, char** argv) {
  const auto settings = poly_bench::parse(argc, argv);
  return poly_bench::Run(settings)();
}
