#include "fastpath/copy_calibration.hpp"

#include <cpuid.h>
#include <fcntl.h>
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "fastpath/copy_trial.hpp"
#include "fastpath/fd.hpp"

namespace poly {
namespace {

// ---- Measuring ----

constexpr int64_t kTimeLimitNs = 150'000'000;  // with starting and ending below 200 ms
constexpr size_t kSourceSize = 16u << 20;  // no matter if it fits a cache: lines are flushed before each use
constexpr uint32_t kRounds = 15, kSmallRounds = 45;  // small transfers are cheap, and their costs close
constexpr size_t kSmallSize = 64 * 1024;
constexpr uint32_t kMaxNs = 999'999'999;  // nine digits in the file

struct Unmap {
  void operator()(void* memory) const { munmap(memory, bytes); }
  size_t bytes = 0;
};
using Mapping = std::unique_ptr<void, Unmap>;

Mapping map_memory(size_t bytes) {
  void* memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  return Mapping(memory == MAP_FAILED ? nullptr : memory, {bytes});
}

// Puts the calling thread on one CPU and another thread on another one, as long as it lives.
class Placed {
 public:
  Placed() { valid_ = sched_getaffinity(0, sizeof before_, &before_) == 0 && CPU_COUNT(&before_) > 1; }
  Placed(const Placed&) = delete;
  Placed& operator=(const Placed&) = delete;
  ~Placed() {
    if (valid_) (void)sched_setaffinity(0, sizeof before_, &before_);
  }
  explicit operator bool() const { return valid_; }

  void apart(pthread_t other) const {
    const int here = sched_getcpu();
    cpu_set_t mine, others = before_;
    CPU_ZERO(&mine);
    CPU_SET(here, &mine);
    CPU_CLR(here, &others);
    (void)sched_setaffinity(0, sizeof mine, &mine);
    (void)pthread_setaffinity_np(other, sizeof others, &others);
  }

 private:
  cpu_set_t before_;
  bool valid_;
};

void* producer_thread(void* memory) {
  trial_produce(*static_cast<TrialMemory*>(memory));
  return nullptr;
}

void flush(const std::byte* from, size_t size) {
  for (size_t i = 0; i < size; i += 64) _mm_clflush(from + i);
  _mm_mfence();
}

uint32_t middle(std::vector<int64_t>& values) {
  const auto at = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), at, values.end());
  return static_cast<uint32_t>(std::clamp<int64_t>(*at, 1, kMaxNs));
}

// Methods take turns, so that what disturbs the machine disturbs all of them, and in a new order each time:
// each leaves the caches in another state for the next one.
int measure_class(TrialConsumer& consumer, std::byte* target, const std::byte* source, uint32_t size_class,
                  int64_t deadline, uint32_t (&out)[kCopyMethods]) {
  const size_t size = copy_class_size(size_class);
  std::vector<int64_t> values[kCopyMethods];
  size_t place = 0;
  uint32_t order[kCopyMethods] = {0, 1, 2, 3};
  std::minstd_rand random;
  const uint32_t rounds = size <= kSmallSize ? kSmallRounds : kRounds;
  for (uint32_t round = 0; round < rounds; ++round) {
    std::shuffle(std::begin(order), std::end(order), random);
    for (const uint32_t method : order) {
      place = (place + 5 * size) % kSourceSize;  // out of the hardware prefetchers' reach
      flush(source + place, size);
      const int64_t ns = consumer.read(static_cast<CopyMethod>(method), target, source + place, size);
      if (ns >= 0) values[method].push_back(ns);  // CMA: a kernel without it costs nothing but itself
      if (monotonic_ns() > deadline) return -EAGAIN;
    }
  }
  for (uint32_t method = 0; method < kCopyMethods; ++method)
    out[method] = values[method].empty() ? 0 : middle(values[method]);
  return 0;
}

// ---- The file ----

constexpr int kVersion = 1;
constexpr size_t kMaxFile = 4096;

uint64_t fnv1a(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char byte : text) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
  return hash;
}

std::string hex(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016" PRIx64, value);
  return text;
}

std::string head_of(const std::string& machine) {
  return "polytropon copy costs " + std::to_string(kVersion) + "\nmachine " + machine + "\n";
}

std::string file_text(const std::string& machine, const CopyCosts& costs) {
  std::string text = head_of(machine);
  for (uint32_t size_class = 1; size_class < kCopyClasses; ++size_class) {
    text += std::to_string(copy_class_size(size_class));
    for (const uint32_t ns : costs.ns[size_class]) text += ' ' + std::to_string(ns);
    text += '\n';
  }
  return text + "sum " + hex(fnv1a(text)) + '\n';
}

// A file is good when it is, byte for byte, what we would write for what we have read.
int parse(const std::string& text, const std::string& machine, CopyCosts& out) {
  const std::string head = head_of(machine);
  if (text.compare(0, head.size(), head) != 0) return -EBADMSG;
  CopyCosts costs;
  const char* at = text.c_str() + head.size();
  for (uint32_t size_class = 1; size_class < kCopyClasses; ++size_class) {
    auto& ns = costs.ns[size_class];
    int used = 0;
    static_assert(kCopyMethods == 4);
    if (std::sscanf(at, "%*u %9u %9u %9u %9u\n%n", &ns[0], &ns[1], &ns[2], &ns[3], &used) != 4)
      return -EBADMSG;
    at += used;
  }
  if (file_text(machine, costs) != text) return -EBADMSG;
  out = costs;
  return 0;
}

int write_all(int fd, const std::string& text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t written = ::write(fd, text.data() + done, text.size() - done);
    if (written < 0 && errno != EINTR) return -errno;
    if (written > 0) done += static_cast<size_t>(written);
  }
  return 0;
}

std::string cpu_brand() {
  uint32_t words[13] = {};
  for (uint32_t leaf = 0; leaf < 3; ++leaf) {
    uint32_t* out = words + 4 * leaf;
    if (__get_cpuid(0x80000002 + leaf, &out[0], &out[1], &out[2], &out[3]) == 0) return "unknown";
  }
  std::string brand(reinterpret_cast<const char*>(words));
  for (char& c : brand)
    if (c < ' ' || c > '~') c = '?';
  return brand;
}

}  // namespace

std::string copy_machine() {
  uint32_t signature = 0, ignored = 0;
  (void)__get_cpuid(1, &signature, &ignored, &ignored, &ignored);
  cpu_set_t cpus;
  const int count = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 0;
  utsname system = {};
  (void)uname(&system);
  return cpu_brand() + "; " + hex(signature).substr(8) + "; " + std::to_string(count) + " cpus; Linux " +
         system.release;
}

std::string copy_calibration_path(const std::string& directory, const std::string& machine) {
  return directory + "/copy-costs-" + hex(fnv1a(machine));
}

int measure_copy_costs(CopyCosts& out) {
  const int64_t deadline = monotonic_ns() + kTimeLimitNs;
  const Placed placed;
  if (!placed) return -EOPNOTSUPP;
  const Mapping shared = map_memory(sizeof(TrialMemory));
  const Mapping source = map_memory(kSourceSize), target = map_memory(kTrialSize);
  if (!shared || !source || !target) return -ENOMEM;
  auto& memory = *new (shared.get()) TrialMemory{};
  pthread_t producer;
  if (const int error = pthread_create(&producer, nullptr, producer_thread, &memory); error != 0)
    return -error;
  placed.apart(producer);

  TrialConsumer consumer(memory);
  CopyCosts costs;
  int result = 0;
  for (uint32_t size_class = 1; size_class < kCopyClasses && result == 0; ++size_class)
    result = measure_class(consumer, static_cast<std::byte*>(target.get()),
                           static_cast<const std::byte*>(source.get()), size_class, deadline,
                           costs.ns[size_class]);
  consumer.stop();
  pthread_join(producer, nullptr);
  if (result == 0) out = costs;
  return result;
}

int load_copy_costs(const std::string& directory, const std::string& machine, CopyCosts& out) {
  // O_NONBLOCK: whoever put a fifo there must not make us wait.
  const Fd fd(::open(copy_calibration_path(directory, machine).c_str(),
                     O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd) return -errno;
  char text[kMaxFile];
  const ssize_t size = ::read(fd.get(), text, sizeof text);
  if (size < 0) return -errno;
  return parse(std::string(text, static_cast<size_t>(size)), machine, out);
}

int store_copy_costs(const std::string& directory, const std::string& machine, const CopyCosts& costs) {
  const std::string path = copy_calibration_path(directory, machine);
  // No fsync(2): what a crash of the machine leaves behind is a damaged file at worst.
  std::string temporary = path + ".XXXXXX";
  const Fd fd(mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) return -errno;
  int result = write_all(fd.get(), file_text(machine, costs));
  if (result == 0 && fchmod(fd.get(), 0644) != 0) result = -errno;
  if (result == 0 && rename(temporary.c_str(), path.c_str()) != 0) result = -errno;
  if (result != 0) ::unlink(temporary.c_str());
  return result;
}

CopyCalibration calibrate_copy(const std::string& directory) {
  const std::string machine = copy_machine();
  CopyCosts costs;
  const int missing = load_copy_costs(directory, machine, costs);
  if (missing == 0) return {make_copy_table(costs), CopyCalibration::kLoaded, 0};
  if (const int error = measure_copy_costs(costs); error != 0)
    return {kDefaultCopyTable, CopyCalibration::kDefault, error};
  return {make_copy_table(costs), CopyCalibration::kMeasured, store_copy_costs(directory, machine, costs)};
}

std::string copy_cache_directory() {
  if (geteuid() == 0) return "/var/cache/polytropon";
  if (const char* cache = getenv("XDG_CACHE_HOME"); cache && *cache == '/')
    return std::string(cache) + "/polytropon";
  const char* home = getenv("HOME");
  return home && *home == '/' ? std::string(home) + "/.cache/polytropon" : "";
}

CopyTable cached_copy_table() {
  CopyCosts costs;
  if (load_copy_costs(copy_cache_directory(), copy_machine(), costs) != 0) return kDefaultCopyTable;
  return make_copy_table(costs);
}

void calibrate_copy_in_background() {
  const std::string directory = copy_cache_directory();
  if (directory.empty() || (mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) ||
      access(directory.c_str(), W_OK) != 0)
    return;  // each start would measure anew
  std::thread([directory] { (void)calibrate_copy(directory); }).detach();
}

}  // namespace poly
