// What the library did not serve itself, and why. One struct per process, read through
// poly_preload_counters(); or one for many processes, in the file that POLY_COUNTERS names: it must exist,
// hold a PreloadCounters' worth of bytes (zeros at first), and be writable for whoever is to count. Processes
// inherit it.
#pragma once

#include <atomic>
#include <cstdint>

namespace poly {

// name, meaning
#define POLY_DECLINES(X)                                                                       \
  X(no_table, "the mount table could not be had")                                              \
  X(no_service, "no service to attach to, or it refused this process")                         \
  X(not_proven, "the mount point is not the instance's mount as this process sees it")         \
  X(open_flags, "open with flags that only the kernel serves")                                 \
  X(standard_fd, "an open that gives 0, 1 or 2, where stdio lives")                            \
  X(no_room, "too many open files, mounts or directories for the library's tables")            \
  X(busy, "all request buffers in use")                                                        \
  X(dotdot, "`..` before the mount point")                                                     \
  X(relative, "relative path from a directory that is not known, or with mounts below")        \
  X(two_places, "two paths that are not of one instance")                                      \
  X(arguments, "arguments that are the kernel's to judge")                                     \
  X(identity, "access(2) with other real than effective ids, or a thread with ids of its own") \
  X(service, "the service leaves it to the kernel")                                            \
  X(promoted, "open files that became kernel descriptors")                                     \
  X(not_promoted, "open files that could not become kernel descriptors")

enum class Decline : uint32_t {
#define X(name, meaning) name,
  POLY_DECLINES(X)
#undef X
      kCount
};

struct PreloadCounters {
  uint32_t size;  // of this struct: later versions append
  uint32_t count;
  // Calls that the service has served. Only counted in a file: of one process the service tells.
  std::atomic<uint64_t> served;
  std::atomic<uint64_t> declines[static_cast<size_t>(Decline::kCount)];
};

// Set before main(), then constant. `shared`: in a file.
extern PreloadCounters* counters;
extern bool counters_are_shared;

inline void count(Decline reason) {
  counters->declines[static_cast<size_t>(reason)].fetch_add(1, std::memory_order_relaxed);
}

inline void count_served() {
  if (counters_are_shared) [[unlikely]]
    counters->served.fetch_add(1, std::memory_order_relaxed);
}

// From now on in the file of this name, if it will do.
void count_in(const char* file);

}  // namespace poly

extern "C" {
// Counters of this process, for as long as it lives.
const poly::PreloadCounters* poly_preload_counters();
// The name of reason `index`, or null.
const char* poly_preload_decline_name(uint32_t index);
}
