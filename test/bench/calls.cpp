// poly-bench-calls: what fast-path calls cost in the service itself, without transport or library: run_call()
// on a `memory` instance, beside the system call of the same meaning on such a tmpfs.
//
//   poly-bench-calls [--calls N] [--only NAME]
//
// Prints "NAME OURS KERNEL" lines: nanoseconds, the median over batches. --only: that call alone, for a
// profiler.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "fastpath/waiting.hpp"
#include "libservices/identity.hpp"
#include "libservices/local/local.hpp"
#include "libservices/memory/memory.hpp"
#include "native/fast/calls.hpp"

using namespace poly;

namespace {

constexpr uint32_t kInstance = 1;
constexpr int kBatch = 100;
constexpr int kNames = 1000;
constexpr uint64_t kFileSize = 16u << 20;

size_t calls = 20000;
const char* only = nullptr;

void check(bool ok, const char* what) {
  if (ok) return;
  fprintf(stderr, "poly-bench-calls: %s: %s\n", what, strerror(errno));
  exit(1);
}

// The host's side: the same tree for both.
Fd make_tree() {
  Fd root;
  check(make_memory({}, root) == 0, "tmpfs");
  check(mkdirat(root.get(), "a", 0755) == 0 && mkdirat(root.get(), "a/b", 0755) == 0, "mkdir");
  Fd file(openat(root.get(), "a/b/file", O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  const std::vector<char> block(kFileSize, 'x');
  check(pwrite(file.get(), block.data(), kFileSize, 0) == static_cast<ssize_t>(kFileSize), "file");
  for (int i = 0; i < kNames; i++) {
    const std::string name = "a/b/name-" + std::to_string(i);
    Fd one(openat(root.get(), name.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    check(static_cast<bool>(one), name.c_str());
  }
  return root;
}

class Service {
 public:
  explicit Service(Fd root) : data_(kDataSize) {
    check(PoolMemory::create(memfd_) == 0 && pool_.map(memfd_.get()) == 0, "pool memory");
    dispatcher_ = std::make_unique<Dispatcher>(pool_);
    auto host = std::make_shared<LibserviceHost>();
    host->private_backend = true;
    std::unique_ptr<Local> local;
    check(Local::create(std::move(root), {}, local) == 0, "memory");
    host->libservice = std::move(local);
    instance_ = std::make_unique<Instance>(kInstance, host);
    check(dispatcher_->add_instance(*instance_, "", false) == 0, "instance");
    client_.set_credentials(geteuid(), getegid(), {}, getpid());
    client_.prove(kInstance, {});
    record_ = dispatcher_->replays().reserve();
    prepare_thread_identity();
  }
  ~Service() { dispatcher_->detach_instance(*instance_); }

  WireAnswer& run(const WireCall& call, std::string_view path = {}) {
    const int32_t result =
        run_call(*dispatcher_, client_, 0, ++sequence_, call, path, {}, data_, answer_, 0, record_);
    check(result == 0, path.empty() ? "call" : std::string(path).c_str());
    return answer_;
  }
  static WireCall call(Op op) {
    WireCall call{};
    call.op = static_cast<uint16_t>(op);
    call.instance = kInstance;
    call.walk = kWalkFollow;
    return call;
  }
  static WireCall call(Op op, uint32_t file) {
    WireCall call{};
    call.op = static_cast<uint16_t>(op);
    call.walk = kWalkHandle;
    call.file = file;
    return call;
  }
  uint32_t open(std::string_view path, uint32_t flags) {
    WireCall asked = call(Op::open);
    asked.flags = flags;
    return run(asked, path).file;
  }

 private:
  Fd memfd_;
  PoolMemory pool_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::unique_ptr<Instance> instance_;
  FastClient client_{1};
  ReplayRecord* record_ = nullptr;
  std::vector<std::byte> data_;
  WireAnswer answer_{};
  uint32_t sequence_ = 0;
};

template <typename Call>
double median_ns(Call call, size_t share) {
  std::vector<double> each;
  for (size_t i = 0; i < calls / share + 1; i += kBatch) {
    const uint64_t from = monotonic_now();
    for (int k = 0; k < kBatch; k++) call();
    each.push_back(static_cast<double>(monotonic_now() - from) / kBatch);
  }
  std::sort(each.begin(), each.end());
  return each[each.size() / 2];
}

// `share`: of the calls asked for, for what takes long.
template <typename Ours, typename Kernel>
void compare(const char* name, Ours ours, Kernel kernel, size_t share = 1) {
  if (only && strcmp(only, name) != 0) return;
  for (int i = 0; i < kBatch; i++) ours();
  const double our_ns = median_ns(ours, share);
  printf("%s %.0f %.0f\n", name, our_ns, median_ns(kernel, share));
}

// Names in an order that no cache of a few helps with.
class Names {
 public:
  const std::string& next() {
    at_ = (at_ + 7919) % kNames;
    text_ = "a/b/name-" + std::to_string(at_);
    return text_;
  }

 private:
  int at_ = 0;
  std::string text_;
};

void names(Service& service, int root) {
  struct stat st;
  Names ours, kernels;
  compare(
      "stat", [&] { service.run(Service::call(Op::getattr), ours.next()); },
      [&] { check(fstatat(root, kernels.next().c_str(), &st, 0) == 0, "stat"); });
  compare(
      "stat-again", [&] { service.run(Service::call(Op::getattr), "a/b/file"); },
      [&] { check(fstatat(root, "a/b/file", &st, 0) == 0, "stat"); });
  compare(
      "open-close", [&] { service.run(Service::call(Op::release, service.open("a/b/file", O_RDONLY))); },
      [&] { check(close(openat(root, "a/b/file", O_RDONLY | O_CLOEXEC)) == 0, "open"); });
}

void data(Service& service, int root) {
  static char block[1u << 20];
  const uint32_t file = service.open("a/b/file", O_RDWR);
  Fd fd(openat(root, "a/b/file", O_RDWR | O_CLOEXEC));
  uint64_t at = 0;
  const struct {
    const char* name;
    Op op;
    uint32_t size;
  } transfers[]{{"read4k", Op::read, 4096},     {"write4k", Op::write, 4096},
                {"read64k", Op::read, 65536},   {"write64k", Op::write, 65536},
                {"read1m", Op::read, 1u << 20}, {"write1m", Op::write, 1u << 20}};
  for (const auto& transfer : transfers) {
    at = 0;
    WireCall call = Service::call(transfer.op, file);
    call.size = transfer.size;
    auto next = [&] { return at = (at + 7919ull * transfer.size) % kFileSize; };
    compare(
        transfer.name,
        [&] {
          call.offset = next();
          service.run(call);
        },
        [&] {
          const auto offset = static_cast<off_t>(next());
          const ssize_t done = transfer.op == Op::read ? pread(fd.get(), block, transfer.size, offset)
                                                       : pwrite(fd.get(), block, transfer.size, offset);
          check(done == static_cast<ssize_t>(transfer.size), transfer.name);
        },
        transfer.size / 4096);
  }
  service.run(Service::call(Op::release, file));
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], "--calls") == 0) calls = strtoul(argv[i + 1], nullptr, 10);
    if (strcmp(argv[i], "--only") == 0) only = argv[i + 1];
  }
  Fd root = make_tree();
  Fd kernel_side(fcntl(root.get(), F_DUPFD_CLOEXEC, 0));
  Service service(std::move(root));
  names(service, kernel_side.get());
  data(service, kernel_side.get());
}
