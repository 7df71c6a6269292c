// The copy engine: how data cross between an application's memory and a filesystem service's (paper, "Data
// Transfer"). They cross twice through the request buffer, which both sides map: once on the side that has
// them, once on the side that wants them.
//   SMC            memcpy(3) on both sides, one after the other
//   pipelined SMC  the same in chunks: one side copies chunk n out while the other copies chunk n + 1 in
//   SMO            the paper's two-stage pipeline of non-temporal prefetches and stores, on both sides
//   CMA            process_vm_writev(2): the kernel copies once, between the two memories
// Which is best depends on the size and the machine: kAuto asks a table of measured costs
// (copy_calibration.hpp).
//
// No allocation, no exceptions, libc only: the preload library links it. Everything is thread safe but
// ChunkReader, which is one thread's. Memory that is copied must not overlap.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace poly {

// The first four from the simplest to the least simple; numbers are in calibration files.
enum class CopyMethod : uint8_t { kSmc, kSmcPipelined, kSmo, kCma, kAuto };
inline constexpr uint32_t kCopyMethods = 4;  // kAuto stands for one of them

// "smc", "smc-pipelined", "smo", "cma", "auto"
[[nodiscard]] const char* copy_method_name(CopyMethod);

// Sets of methods, bits 1 << method. SMC and SMO always work; pipelined SMC asks for the two sides to be on
// different CPUs, CMA for a probe that succeeded.
using CopyMethods = uint32_t;
constexpr CopyMethods copy_bit(CopyMethod method) {
  return 1u << static_cast<uint32_t>(method);
}
inline constexpr CopyMethods kAllCopyMethods = (1u << kCopyMethods) - 1;

// ---- One crossing, between private and shared memory in either direction ----

// SMO where the method says so, else memcpy. All that is written is ordered before a later release store.
void copy_crossing(CopyMethod method, void* to, const void* from, size_t size);

// The forms of SMO: the widest that CPU and kernel support (CPUID and XGETBV) is the one copy_crossing()
// uses.
enum class SmoForm : uint8_t { kSse2, kAvx2, kAvx512 };
[[nodiscard]] SmoForm smo_form();
void smo_copy(SmoForm form, void* to, const void* from, size_t size);

// ---- Pipelined SMC ----

inline constexpr size_t kCopyChunk = 32 * 1024;
// Chunks of a transfer: the full size from 256 KiB on; below, smaller ones overlap better (a tenth at 16 to
// 64 KiB, measured), down to where handing over costs as much as it saves.
constexpr size_t copy_chunk(size_t size) {
  return std::clamp<size_t>(size / 8 & ~size_t{4095}, 8 * 1024, kCopyChunk);
}

// In shared memory, next to the data: how much of them is there. Sequence of the call in the upper half, so
// that what an earlier call left behind says nothing about this one; bytes in the lower half.
struct CopyProgress {
  std::atomic<uint64_t> word;

  // By the side that has the data, after it has written that many. Release.
  void publish(uint32_t sequence, size_t bytes) {
    word.store(uint64_t{sequence} << 32 | static_cast<uint32_t>(bytes), std::memory_order_release);
  }
  // Bytes that are there; whatever the other side wrote, no more than `size`. Acquire.
  [[nodiscard]] size_t published(uint32_t sequence, size_t size) const {
    const uint64_t seen = word.load(std::memory_order_acquire);
    return seen >> 32 == sequence ? std::min<size_t>(static_cast<uint32_t>(seen), size) : 0;
  }
};
static_assert(sizeof(CopyProgress) == 8 && std::atomic<uint64_t>::is_always_lock_free);

// Who has the data of a call, and how he says how much of them is there; nothing: nobody looks before the
// end.
struct CopyTeller {
  CopyProgress* progress = nullptr;
  uint32_t sequence = 0;

  explicit operator bool() const { return progress != nullptr; }
  void tell(size_t bytes) const { progress->publish(sequence, bytes); }
};

// The whole of one side: copies `size` bytes (below 4 GiB) into shared memory and publishes each chunk. Who
// gets data from elsewhere, by pread(2) for one, calls publish() himself.
void copy_chunks(CopyProgress& progress, uint32_t sequence, void* shared, const void* from, size_t size);

// The other side: copies out what is there and never waits. How to wait between steps, and for how long, is
// the caller's business: the other side may be slow, dead or lying.
class ChunkReader {
 public:
  ChunkReader(const CopyProgress& progress, uint32_t sequence, void* to, const void* shared, size_t size)
      : progress_(progress), sequence_(sequence), to_(to), shared_(shared), size_(size) {}

  // Bytes copied out so far: all of them when it returns `size`. A chunk at most per call, so that a caller
  // who counts patience by steps counts evenly.
  size_t step();
  [[nodiscard]] size_t done() const { return done_; }

 private:
  const CopyProgress& progress_;
  uint32_t sequence_;
  void* to_;
  const void* shared_;
  size_t size_;
  size_t done_ = 0;
};

// ---- CMA ----
// By the service only: it is never the client who may look into the other's memory. Two warnings.
// - The kernel compares the caller's credentials with the target's at every call (ptrace(2), "Ptrace access
//   mode checking", PTRACE_MODE_ATTACH_REALCREDS), unless the caller has CAP_SYS_PTRACE. With that capability
//   a client that executes a set-user-ID program in the middle of its call, or whose pid is used again, would
//   have us write into a stranger's memory. So cma_probe() says no to such a caller.
// - The target's pages are faulted in on the caller's time: a page of a userfaultfd(2) or of the client's own
//   FUSE filesystem holds the thread as long as the client likes. Without the capability that client is of
//   the caller's own uid.

// Whether this thread may copy to and from process `pid`: 0, or -EPERM, -ESRCH, -ENOSYS. To be asked once per
// client; holds for threads of the same credentials.
[[nodiscard]] int cma_probe(pid_t pid);
// Bytes copied; fewer than `size` when memory ends in between; or -errno when none: EFAULT, EPERM,
// ESRCH, ENOMEM.
[[nodiscard]] ssize_t cma_write(pid_t pid, void* remote, const void* from, size_t size);
[[nodiscard]] ssize_t cma_read(pid_t pid, void* to, const void* remote, size_t size);

// ---- kAuto ----

// Class 0 is sizes below 4 KiB, which cross by SMC: nothing else can pay there. Class n is [4 KiB << (n - 1),
// twice that), the last one is 1 MiB and more.
inline constexpr uint32_t kCopyClasses = 10;
constexpr uint32_t copy_class(size_t size) {
  return std::min<uint32_t>(static_cast<uint32_t>(std::bit_width(size >> 12)), kCopyClasses - 1);
}
constexpr size_t copy_class_size(uint32_t size_class) {
  return size_t{2048} << size_class;
}

// What a transfer of the class's smallest size costs by each method, in nanoseconds; 0: not known.
struct CopyCosts {
  uint32_t ns[kCopyClasses][kCopyMethods] = {};
};

// A method has to be better than a simpler one by this much before it is preferred: costs vary by as much
// from one measurement to the next.
inline constexpr uint32_t kCopyPreferencePercent = 5;

// The answers, ready: best method by allowed methods and class. Plain bytes, so that a service may show its
// table to its clients in shared memory: one that lies leads to SMC or to another of the allowed methods.
struct CopyTable {
  uint8_t best[1u << kCopyMethods][kCopyClasses] = {};

  [[nodiscard]] constexpr CopyMethod choose(size_t size, CopyMethods allowed) const {
    const uint8_t method = best[allowed & kAllCopyMethods][copy_class(size)];
    return method < kCopyMethods && (allowed >> method & 1) != 0 ? static_cast<CopyMethod>(method)
                                                                 : CopyMethod::kSmc;
  }
  // What somebody asked for, if it is allowed here, else SMC.
  [[nodiscard]] constexpr CopyMethod resolve(CopyMethod wanted, size_t size, CopyMethods allowed) const {
    if (wanted == CopyMethod::kAuto) return choose(size, allowed);
    return (allowed & copy_bit(wanted)) != 0 ? wanted : CopyMethod::kSmc;
  }
};

constexpr uint8_t cheapest_copy(const uint32_t (&ns)[kCopyMethods], CopyMethods allowed) {
  uint32_t best = UINT32_MAX;
  for (uint32_t method = 0; method < kCopyMethods; ++method)
    if ((allowed >> method & 1) != 0 && ns[method] != 0) best = std::min(best, ns[method]);
  const uint64_t enough = uint64_t{best} * (100 + kCopyPreferencePercent);
  for (uint32_t method = 0; method < kCopyMethods; ++method)
    if ((allowed >> method & 1) != 0 && ns[method] != 0 && uint64_t{ns[method]} * 100 <= enough)
      return static_cast<uint8_t>(method);
  return static_cast<uint8_t>(CopyMethod::kSmc);
}

constexpr CopyTable make_copy_table(const CopyCosts& costs) {
  CopyTable table;
  for (CopyMethods allowed = 0; allowed <= kAllCopyMethods; ++allowed)
    for (uint32_t size_class = 1; size_class < kCopyClasses; ++size_class)
      table.best[allowed][size_class] = cheapest_copy(costs.ns[size_class], allowed);
  return table;
}

// Without a calibration: measured on an AMD EPYC 9005 (Zen 5), Linux 6.18, two CPUs of a virtual machine.
inline constexpr CopyCosts kDefaultCopyCosts = {{
    {0, 0, 0, 0},
    {910, 910, 1250, 2100},
    {1460, 1460, 2100, 2830},
    {2310, 2090, 3400, 4150},
    {3220, 2960, 5130, 6500},
    {5680, 5000, 9300, 11150},
    {10000, 8550, 16200, 19700},
    {17300, 14100, 29400, 36000},
    {32800, 27000, 57000, 68000},
    {68000, 57000, 92000, 126000},
}};
inline constexpr CopyTable kDefaultCopyTable = make_copy_table(kDefaultCopyCosts);

}  // namespace poly
