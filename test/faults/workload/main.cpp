// poly-fault-workload: programs that use a filesystem and check every answer, while somebody else kills its
// servers.
//
//   poly-fault-workload DIR [--also DIR2] [--processes N] [--seconds S] [--seed X] [--only AREA[,AREA]]
//   [--plain] poly-fault-workload --list | --probe DIR
//
// DIR2 is the same directory through another mount: every second process works there.
// Exit status: 0 every result was right; 1 failures were printed; 2 usage; 3 somebody hung.
// SIGTERM ends it early, as if the time were over.
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "test/faults/workload/areas.hpp"
#include "test/faults/workload/probe.hpp"

namespace faults {

const std::vector<Area>& areas() {
  static const std::vector<Area> all{
      {"tree", "names, contents and attributes against a model", 0, run_tree, nullptr},
      {"append", "records appended to one file", 3, run_append, verify_append},
      {"locks", "a held lock and who must be kept out", 2,
       [](Context& c) { c.index == 0 ? run_lock_holder(c) : run_lock_waiter(c); }, nullptr},
      {"counter", "a counter under blocking locks", 3, run_counter, verify_counter},
      {"victims", "clients killed at any moment", 1, run_victims, nullptr},
      {"readdir", "slow listings of a changing directory", 1, run_readdir, nullptr},
      {"removed", "open files, directories and a current directory without names", 2, run_removed, nullptr}};
  return all;
}

void sleep_ms(uint64_t ms) {
  timespec time{static_cast<time_t>(ms / 1000), static_cast<long>(ms % 1000) * 1'000'000};
  while (nanosleep(&time, &time) != 0 && errno == EINTR) {
  }
}

namespace {

constexpr unsigned kGraceSeconds = 30;
constexpr unsigned kMostProcesses = 64;

struct Options {
  std::string directory, also;
  unsigned processes = 2;
  double seconds = 10;
  uint64_t seed = 0;
  std::string only;
  bool plain = false;
};

struct Shared {
  std::atomic<bool> stop;
  std::atomic<uint64_t> words[16][kSharedWords];
  Slot slots[kMostProcesses];
};
Shared* shared;

struct Process {
  pid_t pid;
  Slot* slot;
};

bool parse(int argc, char** argv, Options& out) {
  for (int i = 1; i < argc; i++) {
    std::string word = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
    if (word.rfind("--", 0) != 0) {
      if (!out.directory.empty()) return false;
      out.directory = word;
      continue;
    }
    if (word == "--plain") {
      out.plain = true;
      continue;
    }
    if (!value) return false;
    if (word == "--processes")
      out.processes = static_cast<unsigned>(atoi(value));
    else if (word == "--seconds")
      out.seconds = atof(value);
    else if (word == "--seed")
      out.seed = strtoull(value, nullptr, 0);
    else if (word == "--also")
      out.also = value;
    else if (word == "--only")
      out.only = "," + std::string(value) + ",";
    else
      return false;
    i++;
  }
  return !out.directory.empty();
}

Context context_for(const Options& options, size_t area, unsigned index, Reporter& report, Random& random,
                    uint64_t end_us) {
  std::string name = areas()[area].name;
  std::string common = (index % 2 && !options.also.empty() ? options.also : options.directory) + "/" + name;
  std::string who = name + "-" + std::to_string(index);
  return {report,
          random,
          common + "/" + std::to_string(index),
          common,
          who,
          index,
          options.plain,
          [end_us] { return shared->stop.load() || now_us() >= end_us; },
          shared->words[area]};
}

Process start(const Options& options, size_t area, unsigned index, size_t slot_index, uint64_t end_us) {
  Slot& slot = shared->slots[slot_index];
  snprintf(slot.who, sizeof slot.who, "%s-%u", areas()[area].name, index);
  pid_t pid = fork();
  if (pid != 0) return {pid, &slot};
  signal(SIGTERM, SIG_IGN);
  Reporter report(slot);
  Random random(options.seed * 1000 + slot_index);
  Context context = context_for(options, area, index, report, random, end_us);
  if (report.expect(0, report.call("mkdir(" + context.directory + ")",
                                   [&] { return mkdir(context.directory.c_str(), 0755); })))
    areas()[area].run(context);
  fflush(stdout);
  _exit(slot.failures.load() ? 1 : 0);
}

// Waits for all until the time and its grace are over. False: some hung, and were killed.
bool wait_for(std::vector<Process>& processes, uint64_t end_us) {
  bool in_time = true;
  for (auto& process : processes) {
    int status = 0;
    while (waitpid(process.pid, &status, WNOHANG) == 0) {
      if (now_us() > end_us + kGraceSeconds * 1'000'000 && !shared->stop.load()) shared->stop.store(true);
      if (now_us() > end_us + kGraceSeconds * 1'000'000) {
        printf("HANG %s: %s\n", process.slot->who, process.slot->doing);
        fflush(stdout);
        kill(process.pid, SIGKILL);
        in_time = false;
        break;
      }
      sleep_ms(10);
    }
    if (WIFSIGNALED(status)) {
      printf("FAIL %s: ended by signal %d in %s\n", process.slot->who, WTERMSIG(status), process.slot->doing);
      process.slot->failures.fetch_add(1);
    }
  }
  return in_time;
}

void on_term(int) {
  shared->stop.store(true);
}

int run(const Options& options) {
  uint64_t end_us = now_us() + static_cast<uint64_t>(options.seconds * 1e6);
  std::vector<Process> processes;
  std::vector<size_t> chosen;
  for (size_t i = 0; i < areas().size(); i++) {
    const Area& area = areas()[i];
    if (!options.only.empty() && options.only.find("," + std::string(area.name) + ",") == std::string::npos)
      continue;
    std::string common = options.directory + "/" + area.name;
    if (mkdir(common.c_str(), 0755) != 0) {
      fprintf(stderr, "poly-fault-workload: %s: %s\n", common.c_str(), strerror(errno));
      return 2;
    }
    chosen.push_back(i);
    unsigned count = area.processes ? area.processes : options.processes;
    for (unsigned n = 0; n < count && processes.size() + 1 < kMostProcesses; n++)
      processes.push_back(start(options, i, n, processes.size(), end_us));
  }
  printf("seed %lu, %zu processes, %.0f s\n", options.seed, processes.size(), options.seconds);
  fflush(stdout);
  bool in_time = wait_for(processes, end_us);
  Slot& own = shared->slots[kMostProcesses - 1];
  for (size_t i : chosen) {
    if (!areas()[i].verify || !in_time) continue;
    snprintf(own.who, sizeof own.who, "%s", areas()[i].name);
    snprintf(own.doing, sizeof own.doing, "what is there at the end");
    Reporter report(own);
    Random random(0);
    Context context = context_for(options, i, 0, report, random, 0);
    areas()[i].verify(context);
  }
  uint64_t calls = 0, failures = own.failures.load(), longest = 0;
  const Slot* slowest = nullptr;
  for (auto& process : processes) {
    calls += process.slot->calls.load();
    failures += process.slot->failures.load();
    if (process.slot->longest_us.load() < longest) continue;
    longest = process.slot->longest_us.load();
    slowest = process.slot;
  }
  printf("%lu calls, %lu failures, seed %lu, longest %lu ms: %s: %s\n", calls, failures, options.seed,
         longest / 1000, slowest ? slowest->who : "", slowest ? slowest->slowest : "");
  return !in_time ? 3 : failures ? 1 : 0;
}

}  // namespace
}  // namespace faults

int main(int argc, char** argv) {
  using namespace faults;
  Options options;
  options.seed = now_us() ^ static_cast<uint64_t>(getpid());
  if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
    for (auto& area : areas()) printf("%-8s %s\n", area.name, area.what);
    return 0;
  }
  if (argc == 3 && std::strcmp(argv[1], "--probe") == 0) return run_probe(argv[2]);
  if (!parse(argc, argv, options)) {
    fprintf(stderr,
            "usage: poly-fault-workload DIR [--also DIR2] [--processes N] [--seconds S] [--seed X] [--only "
            "AREA,...] | --list | --probe DIR\n");
    return 2;
  }
  void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 2;
  shared = new (memory) Shared{};
  signal(SIGTERM, on_term);
  return run(options);
}
