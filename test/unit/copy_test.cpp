// The copy engine: every method, size and alignment; pipelining and CMA between processes; the table of kAuto
// and its calibration file.
#include "fastpath/copy.hpp"

#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "fastpath/copy_chooser.hpp"
#include "test/unit/check.hpp"

namespace {

using namespace poly;

constexpr size_t kGuard = 192;  // more than a step of SMO
constexpr std::byte kUntouched{0xa5};

std::vector<std::byte> noise(size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(check::random()());
  return bytes;
}

std::byte* map_shared(size_t size) {
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  return static_cast<std::byte*>(memory);
}

// Runs `body` in a child, which leaves with its result; it dies with us, and after a minute at the latest.
pid_t start_child(const std::function<int()>& body) {
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(60);
    _exit(body());
  }
  return pid;
}

int exit_status(pid_t pid) {
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int in_child(const std::function<int()>& body) {
  return exit_status(start_child(body));
}

using Copy = std::function<void(void* to, const void* from, size_t size)>;

// 64-byte aligned, so that the offsets are the alignments.
struct Arena {
  explicit Arena(size_t size) : storage(size + 2 * kGuard + 128) {
    base = storage.data() + -reinterpret_cast<uintptr_t>(storage.data()) % 64;
  }
  std::vector<std::byte> storage;
  std::byte* base;
};

bool all_untouched(const std::byte* from, size_t size) {
  return std::all_of(from, from + size, [](std::byte byte) { return byte == kUntouched; });
}

// Copies from `from + from_offset` to an arena, and looks at what is there and around it.
bool copies_exactly(const Copy& copy, const std::byte* from, Arena& arena, size_t to_offset, size_t size) {
  std::byte* to = arena.base + kGuard + to_offset;
  std::memset(to - kGuard, static_cast<int>(kUntouched), size + 2 * kGuard);
  copy(to, from, size);
  return std::memcmp(to, from, size) == 0 && all_untouched(to - kGuard, kGuard) &&
         all_untouched(to + size, kGuard);
}

struct NamedCopy {
  const char* name;
  Copy copy;
};

std::vector<NamedCopy> every_copy() {
  std::vector<NamedCopy> copies;
  for (const auto method : {CopyMethod::kSmc, CopyMethod::kSmo})
    copies.push_back({copy_method_name(method), [=](void* to, const void* from, size_t size) {
                        copy_crossing(method, to, from, size);
                      }});
  for (const auto form : {SmoForm::kSse2, SmoForm::kAvx2, SmoForm::kAvx512}) {
    if (form > smo_form()) continue;  // this CPU cannot
    copies.push_back(
        {"smo form", [=](void* to, const void* from, size_t size) { smo_copy(form, to, from, size); }});
  }
  copies.push_back({"chunks", [](void* to, const void* from, size_t size) {
                      CopyProgress progress{};
                      std::vector<std::byte> shared(size);
                      copy_chunks(progress, 7, shared.data(), from, size);
                      ChunkReader reader(progress, 7, to, shared.data(), size);
                      for (size_t steps = 0; steps < size / kCopyChunk; ++steps) (void)reader.step();
                      CHECK_EQ(reader.step(), size);
                    }});
  copies.push_back({"cma", [](void* to, const void* from, size_t size) {
                      CHECK_EQ(cma_write(getpid(), to, from, size), size);
                    }});
  copies.push_back({"cma read", [](void* to, const void* from, size_t size) {
                      CHECK_EQ(cma_read(getpid(), to, from, size), size);
                    }});
  return copies;
}

TEST(every_size_and_alignment) {
  constexpr size_t kMaxSize = 4100;
  constexpr struct { size_t to, from; } kOffsets[] = {{0, 0}, {1, 0}, {0, 1}, {63, 1}, {17, 33}, {8, 56}};
  const std::vector<std::byte> source = noise(kMaxSize + 64);
  Arena arena(kMaxSize + 64);
  for (const auto& [name, copy] : every_copy()) {
    for (size_t size = 0; size <= kMaxSize; ++size)
      for (const auto [to, from] : kOffsets)
        if (!copies_exactly(copy, source.data() + from, arena, to, size))
          check::fail(__FILE__, __LINE__, std::string(name) + ", size " + std::to_string(size));
    CHECK(check::failures == 0);
  }
}

TEST(large_sizes) {
  constexpr size_t kMaxSize = (4u << 20) + 333;
  const std::vector<std::byte> source = noise(kMaxSize + 64);
  Arena arena(kMaxSize + 64);
  for (const auto& [name, copy] : every_copy()) {
    for (const size_t size : {kCopyChunk - 1, kCopyChunk, kCopyChunk + 1, size_t{1} << 20, kMaxSize})
      CHECK(copies_exactly(copy, source.data(), arena, 0, size));
    for (int i = 0; i < 20; ++i) {
      const size_t size = check::random()() % kMaxSize, to = check::random()() % 64;
      CHECK(copies_exactly(copy, source.data() + check::random()() % 64, arena, to, size));
    }
  }
}

TEST(names) {
  CHECK_EQ(std::string(copy_method_name(CopyMethod::kSmcPipelined)), "smc-pipelined");
  CHECK_EQ(std::string(copy_method_name(CopyMethod::kAuto)), "auto");
  CHECK_EQ(std::string(copy_method_name(static_cast<CopyMethod>(9))), "?");
}

// ---- Pipelined SMC ----

TEST(progress_of_another_call_or_a_liar) {
  CopyProgress progress{};
  progress.publish(4, 100);
  CHECK_EQ(progress.published(4, 1000), 100);
  CHECK_EQ(progress.published(5, 1000), 0);
  CHECK_EQ(progress.published(4, 60), 60);
  progress.publish(4, UINT32_MAX);
  CHECK_EQ(progress.published(4, 1000), 1000);

  std::byte shared[64] = {}, to[64] = {};
  ChunkReader reader(progress, 6, to, shared, 40);
  CHECK_EQ(reader.step(), 0);
  progress.publish(6, 30);
  CHECK_EQ(reader.step(), 30);
  progress.publish(6, 10);  // back
  CHECK_EQ(reader.step(), 30);
  progress.publish(6, 1 << 30);  // beyond the end
  CHECK_EQ(reader.step(), 40);
  CHECK_EQ(reader.step(), 40);
  ChunkReader nothing(progress, 7, to, shared, 0);
  CHECK_EQ(nothing.step(), 0);
}

// What transfer n carries, and how much of it.
size_t transfer_size(uint32_t n) {
  return n * 7919u % (4 * kCopyChunk);
}
uint64_t transfer_word(uint32_t n, size_t at) {
  return n * 0x9e3779b97f4a7c15u + at;
}

void fill(std::vector<uint64_t>& words, uint32_t n) {
  for (size_t i = 0; i < words.size(); ++i) words[i] = transfer_word(n, i);
}

constexpr size_t kPipeSize = 4 * kCopyChunk;

struct Pipe {
  CopyProgress progress;
  std::atomic<uint32_t> taken;
  alignas(64) std::byte data[kPipeSize];
};

int produce_transfers(Pipe& pipe, uint32_t count) {
  std::vector<uint64_t> words(kPipeSize / sizeof(uint64_t));
  for (uint32_t n = 1; n <= count; ++n) {
    fill(words, n);
    copy_chunks(pipe.progress, n, pipe.data, words.data(), transfer_size(n));
    while (pipe.taken.load(std::memory_order_acquire) != n) usleep(1);
  }
  return 0;
}

// Number of transfers that arrived wrong.
uint32_t consume_transfers(Pipe& pipe, uint32_t count) {
  uint32_t wrong = 0;
  std::vector<uint64_t> expected(kPipeSize / sizeof(uint64_t));
  std::vector<std::byte> got(kPipeSize);
  for (uint32_t n = 1; n <= count; ++n) {
    fill(expected, n);
    ChunkReader reader(pipe.progress, n, got.data(), pipe.data, transfer_size(n));
    for (size_t before = 0; before < transfer_size(n);) {
      const size_t now = reader.step();
      if (now == before) usleep(1);
      before = now;
    }
    if (std::memcmp(got.data(), expected.data(), transfer_size(n)) != 0) ++wrong;
    pipe.taken.store(n, std::memory_order_release);
  }
  return wrong;
}

constexpr uint32_t kTransfers = 500;

TEST(pipelined_between_processes) {
  auto& pipe = *new (map_shared(sizeof(Pipe))) Pipe{};
  const pid_t child = start_child([&] { return produce_transfers(pipe, kTransfers); });
  CHECK_EQ(consume_transfers(pipe, kTransfers), 0);
  CHECK_EQ(exit_status(child), 0);
  munmap(&pipe, sizeof(Pipe));
}

TEST(pipelined_between_threads) {  // where TSan can see both sides
  auto pipe = std::make_unique<Pipe>();
  std::thread producer([&] { CHECK_EQ(produce_transfers(*pipe, kTransfers), 0); });
  CHECK_EQ(consume_transfers(*pipe, kTransfers), 0);
  producer.join();
}

// ---- CMA ----

bool capabilities(__user_cap_data_struct (&data)[_LINUX_CAPABILITY_U32S_3]) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  return syscall(SYS_capget, &header, data) == 0;
}

bool may_trace_anybody() {
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  REQUIRE(capabilities(data));
  return (data[0].effective >> CAP_SYS_PTRACE & 1) != 0;
}

// As a service that wants to use CMA would: without the capability that overrides the kernel's decision.
bool drop_trace_capability() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  if (!capabilities(data)) return false;
  data[0].effective &= ~(1u << CAP_SYS_PTRACE);
  return syscall(SYS_capset, &header, data) == 0;
}

TEST(cma_between_parent_and_child) {
  constexpr size_t kSize = 300'000;
  std::vector<std::byte> source = noise(kSize), target(kSize);
  const pid_t parent = getpid();
  CHECK_EQ(in_child([&] {
             if (!drop_trace_capability() || cma_probe(parent) != 0) return 1;
             if (cma_write(parent, target.data() + 1, source.data(), kSize - 1) != ssize_t{kSize - 1})
               return 2;
             std::memset(source.data(), 0, kSize);  // the child's copy; the parent's is read
             std::vector<std::byte> read(kSize);
             if (cma_read(parent, read.data(), source.data(), kSize) != ssize_t{kSize}) return 3;
             return std::memcmp(read.data(), target.data(), 1) == 0 && read[1] != std::byte{} ? 4 : 0;
           }),
           0);
  CHECK(std::memcmp(target.data() + 1, source.data(), kSize - 1) == 0);
  CHECK(target[0] == std::byte{});
}

TEST(cma_at_the_end_of_memory) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::byte* memory = map_shared(3 * page);
  REQUIRE(munmap(memory + 2 * page, page) == 0);
  const std::vector<std::byte> source = noise(3 * page);
  CHECK_EQ(cma_write(getpid(), memory, source.data(), 3 * page), 2 * page);
  CHECK(std::memcmp(memory, source.data(), 2 * page) == 0);
  CHECK_EQ(cma_write(getpid(), memory + 2 * page, source.data(), 1), -EFAULT);
  CHECK_EQ(cma_write(getpid(), nullptr, source.data(), 1), -EFAULT);
  munmap(memory, 2 * page);
}

TEST(cma_refused) {
  // pid 1 is root's, and not of an ordinary user's uid.
  CHECK_EQ(in_child([] {
             if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) return 1;
             return -cma_probe(1);
           }),
           EPERM);
  // A process that is no more.
  CHECK_EQ(in_child([] {
             if (!drop_trace_capability()) return 1;
             const pid_t gone = start_child([] { return 0; });
             (void)exit_status(gone);
             return -cma_probe(gone);
           }),
           ESRCH);
}

// The probe refuses who would be allowed anything: the target may turn into a stranger by exec or by pid
// reuse.
TEST(cma_not_with_the_power_to_trace_anybody) {
  const bool able = may_trace_anybody();
  CHECK_EQ(cma_probe(getpid()), able ? -EPERM : 0);
}

// It follows what transfers cost, also when that changes; small ones go by the calibration.
TEST(chooser_follows_the_clock) {
  static CopyChooser chooser;
  constexpr CopyMethods kBoth = copy_bit(CopyMethod::kSmc) | copy_bit(CopyMethod::kSmcPipelined);
  constexpr size_t kSize = 1 << 20;
  const auto share_of_smc = [&](uint64_t smc_ns, uint64_t pipelined_ns) {
    int smc = 0;
    for (int i = 0; i < 1000; ++i) {
      const CopyMethod method = chooser.choose(kSize, kBoth, kDefaultCopyTable);
      if (!CHECK((kBoth & copy_bit(method)) != 0)) break;
      const bool is_smc = method == CopyMethod::kSmc;
      // Somebody comes between now and then.
      chooser.took(method, kSize, (i % 50 == 49 ? 30 : 1) * (is_smc ? smc_ns : pipelined_ns));
      smc += is_smc;
    }
    return smc;
  };
  CHECK(share_of_smc(200'000, 100'000) < 100);
  CHECK(share_of_smc(200'000, 900'000) > 800);
  CHECK(share_of_smc(200'000, 100'000) < 500);
  CHECK(chooser.choose(4096, kBoth, kDefaultCopyTable) == CopyMethod::kSmc);
}

}  // namespace

CHECK_MAIN()
