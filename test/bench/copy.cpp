// poly-bench-copy: what it takes to bring data from one process into another by each copy method, from a
// source that is in no cache, and how long one local memcpy(3) of the same size takes, which is the limit.
//
//   poly-bench-copy [--area MIB] [--rounds N] [--cache DIR]
//
// The child is the service, the parent the client, each on a CPU of its own. Methods take turns at every
// single transfer. Each transfer reads a new place of the area, far from the last one. `auto` is what the
// calibration (made now; with --cache the cached one) chooses. Prints one JSON document: medians of each
// round, in us.
#include <linux/capability.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "fastpath/copy_calibration.hpp"
#include "fastpath/copy_trial.hpp"

namespace {

using namespace poly;

struct Options {
  size_t area = size_t{1} << 30;  // bytes, a power of two
  uint32_t rounds = 5;
  std::string cache;
};

[[noreturn]] void die(const char* what, int error) {
  std::fprintf(stderr, "poly-bench-copy: %s: %s\n", what, std::strerror(error));
  std::exit(1);
}

[[noreturn]] void usage() {
  std::fprintf(stderr, "usage: poly-bench-copy [--area MIB] [--rounds N] [--cache DIR]\n");
  std::exit(1);
}

size_t number(const char* text) {
  char* end = nullptr;
  const auto value = std::strtoul(text, &end, 10);
  if (end == text || *end != '\0' || value == 0 || value > 65536) usage();
  return value;
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 == argc) usage();
    const std::string name = argv[i];
    if (name == "--area") {
      options.area = std::bit_floor(number(argv[i + 1])) << 20;
    } else if (name == "--rounds") {
      options.rounds = static_cast<uint32_t>(number(argv[i + 1]));
    } else if (name == "--cache") {
      options.cache = argv[i + 1];
    } else {
      usage();
    }
  }
  return options;
}

std::byte* map_touched(size_t size, int flags) {
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) die("mmap", errno);
  std::memset(memory, 1, size);
  return static_cast<std::byte*>(memory);
}

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) die("sched_setaffinity", errno);
}

// The first two CPUs we may use.
void two_cpus(int (&out)[2]) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) die("sched_getaffinity", errno);
  int found = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; ++cpu)
    if (CPU_ISSET(cpu, &set)) out[found++] = cpu;
  if (found < 2) die("two CPUs are needed", ENODEV);
}

// A service that uses CMA has no CAP_SYS_PTRACE (copy.hpp): the kernel decides by credentials.
void drop_trace_capability() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  if (syscall(SYS_capget, &header, data) != 0) die("capget", errno);
  data[0].effective &= ~(1u << CAP_SYS_PTRACE);
  if (syscall(SYS_capset, &header, data) != 0) die("capset", errno);
}

pid_t start_service(TrialMemory& memory, int cpu, bool& cma) {
  int answer[2];
  if (pipe(answer) != 0) die("pipe", errno);
  const pid_t client = getpid();
  const pid_t pid = fork();
  if (pid < 0) die("fork", errno);
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != client) _exit(1);
    pin(cpu);
    drop_trace_capability();
    const char allowed = cma_probe(client) == 0 ? 1 : 0;
    if (::write(answer[1], &allowed, 1) != 1) _exit(1);
    trial_produce(memory);
    _exit(0);
  }
  char allowed = 0;
  if (::read(answer[0], &allowed, 1) != 1) die("the service's side", EPIPE);
  close(answer[0]);
  close(answer[1]);
  cma = allowed != 0;
  return pid;
}

double median(std::vector<double> values) {
  if (values.empty()) die("no measurements", EAGAIN);
  const auto at = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

enum Case : uint32_t { kAutoCase = kCopyMethods, kLimitCase, kCases };

const char* case_name(uint32_t which) {
  if (which == kLimitCase) return "limit";
  return copy_method_name(which == kAutoCase ? CopyMethod::kAuto : static_cast<CopyMethod>(which));
}

class Bench {
 public:
  Bench(const Options& options, const CopyTable& table)
      : options_(options),
        table_(table),
        area_(map_touched(options.area, MAP_PRIVATE)),
        target_(map_touched(kTrialSize, MAP_PRIVATE)),
        memory_(*new (map_touched(sizeof(TrialMemory), MAP_SHARED)) TrialMemory{}),
        consumer_(memory_) {}

  void run(std::string& json) {
    int cpus[2];
    two_cpus(cpus);
    bool cma = false;
    const pid_t service = start_service(memory_, cpus[1], cma);
    if (!cma) allowed_ &= ~copy_bit(CopyMethod::kCma);
    pin(cpus[0]);
    json += "\"cma\":" + std::string(cma ? "true" : "false") + ",\"sizes\":[";
    for (uint32_t size_class = 1; size_class < kCopyClasses; ++size_class) {
      if (size_class > 1) json += ',';
      json += measure(copy_class_size(size_class));
    }
    json += ']';
    consumer_.stop();
    int status = 0;
    if (waitpid(service, &status, 0) != service || status != 0) die("the service's side", ECHILD);
  }

 private:
  const std::byte* next_source(size_t size) {
    // An odd factor visits every place of a power of two once before the first one again.
    const size_t places = options_.area / size;
    return area_ + (turn_++ * 0x9e3779b1u % places) * size;
  }

  double one(uint32_t which, size_t size) {
    const std::byte* source = next_source(size);
    if (which == kLimitCase) {
      const int64_t begin = monotonic_ns();
      std::memcpy(target_, source, size);
      __asm__ volatile("" : : "r"(target_) : "memory");
      return static_cast<double>(monotonic_ns() - begin) / 1000;
    }
    const auto method = which == kAutoCase ? table_.choose(size, allowed_) : static_cast<CopyMethod>(which);
    const int64_t ns = consumer_.read(method, target_, source, size);
    if (ns < 0) die(copy_method_name(method), static_cast<int>(-ns));
    return static_cast<double>(ns) / 1000;
  }

  std::string measure(size_t size) {
    const size_t turns = std::clamp<size_t>((size_t{16} << 20) / size, 50, 400);
    std::vector<double> medians[kCases];
    for (uint32_t round = 0; round < options_.rounds; ++round) {
      std::vector<double> values[kCases];
      for (size_t i = 0; i < turns; ++i) {
        std::shuffle(std::begin(order_), std::end(order_), random_);
        for (const uint32_t which : order_)
          if (which >= kCopyMethods || (allowed_ >> which & 1) != 0)
            values[which].push_back(one(which, size));
      }
      for (uint32_t which = 0; which < kCases; ++which)
        if (!values[which].empty()) medians[which].push_back(median(values[which]));
    }
    std::string json = "{\"size\":" + std::to_string(size) + ",\"auto\":\"" +
                       copy_method_name(table_.choose(size, allowed_)) + "\",\"us\":{";
    for (uint32_t which = 0; which < kCases; ++which) {
      if (medians[which].empty()) continue;
      if (json.back() != '{') json += ',';
      json += '"' + std::string(case_name(which)) + "\":[";
      for (size_t i = 0; i < medians[which].size(); ++i)
        json += (i == 0 ? "" : ",") + std::to_string(medians[which][i]);
      json += ']';
    }
    return json + "}}";
  }

  const Options& options_;
  const CopyTable& table_;
  std::byte* area_;
  std::byte* target_;
  TrialMemory& memory_;
  TrialConsumer consumer_;
  CopyMethods allowed_ = kAllCopyMethods;
  size_t turn_ = 0;
  uint32_t order_[kCases] = {0, 1, 2, 3, kAutoCase, kLimitCase};
  std::minstd_rand random_;
};

CopyTable calibrate(const Options& options, double& ms) {
  const int64_t begin = monotonic_ns();
  CopyTable table;
  if (options.cache.empty()) {
    CopyCosts costs;
    if (const int error = measure_copy_costs(costs); error != 0) die("calibration", -error);
    table = make_copy_table(costs);
  } else {
    table = calibrate_copy(options.cache).table;
  }
  ms = static_cast<double>(monotonic_ns() - begin) / 1e6;
  return table;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  double ms = 0;
  const CopyTable table = calibrate(options, ms);
  static constexpr const char* kForms[] = {"sse2", "avx2", "avx512"};
  std::string json = "{\"smo\":\"" + std::string(kForms[static_cast<int>(smo_form())]) +
                     "\",\"calibrationMs\":" + std::to_string(ms) + ',';
  Bench(options, table).run(json);
  std::printf("%s}\n", json.c_str());
  return 0;
}
