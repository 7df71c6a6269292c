// poly-mixed: random operations on one tree by several processes in turn, some of them by the fast path, and
// the same on a reference tree of the kernel's own, which is the model: every result must be the same.
//
//   poly-mixed [--seed N] [--operations N] [--seconds N] DIRECTORY REFERENCE [WORD...]
//
// WORD...: what the processes on the fast path are run by ("poly run --"). Without: all are alike.
// Exit status: 0 no difference, 1 a difference, 2 it cannot be run.
#include <getopt.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "test/fast/mixed/compare.hpp"
#include "test/fast/mixed/perform.hpp"
#include "test/fast/mixed/random_requests.hpp"
#include "test/fast/mixed/worker.hpp"

namespace {

using namespace mixed;  // NOLINT

constexpr size_t kHistory = 400000;
constexpr size_t kWorkers = 4;  // even ones by FUSE, odd ones by the fast path
// Some symbolic links lead upwards and out of the tree: there is room above it, the same in both.
constexpr const char* kDepth = "/1/2/3/4/5/6/7/8";

struct Options {
  uint64_t seed = 0;
  uint64_t operations = 20'000;
  double seconds = 1e9;
  std::string directory, reference;
  std::vector<std::string> words;
};

int64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

std::string make_root(const std::string& top) {
  std::string made = top;
  for (const char* at = kDepth; *at != '\0'; at += 2) {
    made.append(at, 2);
    if (mkdir(made.c_str(), 0755) != 0) {
      perror(made.c_str());
      exit(2);
    }
  }
  return made;
}

class Driver {
 public:
  explicit Driver(const Options& options) : options_(options), random_(options.seed) {
    const std::string root = make_root(options.directory), reference = make_root(options.reference);
    if (chdir(reference.c_str()) != 0) exit(2);
    for (size_t i = 0; i < kWorkers; ++i) {
      const bool fast = i % 2 != 0;
      workers_.push_back(std::make_unique<Worker>(fast ? options.words : std::vector<std::string>(), root));
      model_.push_back(std::make_unique<Performer>(reference));
    }
  }

  // False: a difference, which has been printed.
  bool run() {
    const int64_t begin = now_ns();
    for (; done_ < options_.operations; ++done_) {
      if (static_cast<double>(now_ns() - begin) / 1e9 > options_.seconds) break;
      if (!step(random_.below(kWorkers), random_.next())) return false;
    }
    printf("%llu operations, no difference, %.1f s\n", static_cast<unsigned long long>(done_),
           static_cast<double>(now_ns() - begin) / 1e9);
    print_counts();
    return true;
  }

 private:
  bool step(size_t worker, const Request& request) {
    Result got{};
    const int64_t begin = now_ns();
    const bool answered = workers_[worker]->ask(request, got);
    const Result expected = model_[worker]->perform(request);
    comparison_.observe_delay(now_ns() - begin);
    history_.push_back(who(worker) + describe(request, got));
    if (history_.size() > kHistory) history_.pop_front();
    auto& counts = counts_[static_cast<size_t>(request.operation)];
    ++(expected.value < 0 ? counts.failed : counts.succeeded);
    const std::string how = answered ? comparison_.difference(request, expected, got) : "no answer";
    if (how.empty()) return true;
    for (const std::string& line : history_) printf("  %s\n", line.c_str());
    printf("expected: %s\n", describe(request, expected).c_str());
    printf("DIFFERENCE at operation %llu, seed %llu: %s\n", static_cast<unsigned long long>(done_),
           static_cast<unsigned long long>(options_.seed), how.c_str());
    return false;
  }

  static std::string who(size_t worker) {
    return std::to_string(worker) + (worker % 2 != 0 ? " fast " : " fuse ");
  }

  void print_counts() const {
    for (size_t i = 0; i < static_cast<size_t>(Operation::kCount); ++i)
      printf("%s %llu+%llu%s", name_of(static_cast<Operation>(i)),
             static_cast<unsigned long long>(counts_[i].succeeded),
             static_cast<unsigned long long>(counts_[i].failed), i % 8 == 7 ? "\n" : ", ");
    printf("(succeeded + failed)\n");
  }

  struct Counts {
    uint64_t succeeded = 0, failed = 0;
  };

  const Options options_;
  RandomRequests random_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::unique_ptr<Performer>> model_;
  Comparison comparison_;
  std::deque<std::string> history_;
  Counts counts_[static_cast<size_t>(Operation::kCount)];
  uint64_t done_ = 0;
};

bool parse(int argc, char** argv, Options& options) {
  static const option kLong[] = {{"seed", required_argument, nullptr, 's'},
                                 {"operations", required_argument, nullptr, 'n'},
                                 {"seconds", required_argument, nullptr, 't'},
                                 {nullptr, 0, nullptr, 0}};
  for (int c; (c = getopt_long(argc, argv, "+", kLong, nullptr)) != -1;) {
    if (c == 's')
      options.seed = strtoull(optarg, nullptr, 0);
    else if (c == 'n')
      options.operations = strtoull(optarg, nullptr, 0);
    else if (c == 't')
      options.seconds = strtod(optarg, nullptr);
    else
      return false;
  }
  if (optind + 2 > argc) return false;
  options.directory = argv[optind];
  options.reference = argv[optind + 1];
  options.words.assign(argv + optind + 2, argv + argc);
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "--worker") return serve(argv[2]);
  Options options;
  options.seed = std::random_device{}();
  if (!parse(argc, argv, options)) {
    fputs("usage: poly-mixed [--seed N] [--operations N] [--seconds N] DIRECTORY REFERENCE [WORD...]\n",
          stderr);
    return 2;
  }
  setvbuf(stdout, nullptr, _IOLBF, 0);
  umask(022);
  signal(SIGXFSZ, SIG_IGN);
  printf("seed %llu\n", static_cast<unsigned long long>(options.seed));
  return Driver(options).run() ? 0 : 1;
}
