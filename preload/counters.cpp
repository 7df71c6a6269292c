#include "preload/counters.hpp"

#include <sys/mman.h>
#include <sys/stat.h>

#include "preload/real.hpp"
#include "preload/sys.hpp"

namespace poly {

namespace {

constinit PreloadCounters own{sizeof(PreloadCounters), static_cast<uint32_t>(Decline::kCount), 0, {}};

PreloadCounters* map_counters(int fd) {
  struct statx st;
  if (sys::statx(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_SIZE, &st) < 0) return nullptr;
  if (!S_ISREG(st.stx_mode) || st.stx_size < sizeof(PreloadCounters)) return nullptr;
  const long at = sys::call(SYS_mmap, 0, sizeof(PreloadCounters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return at < 0 ? nullptr : reinterpret_cast<PreloadCounters*>(at);
}

}  // namespace

constinit PreloadCounters* counters = &own;
constinit bool counters_are_shared = false;

void count_in(const char* file) {
  const int fd = sys::openat(AT_FDCWD, file, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0) return;
  PreloadCounters* shared = map_counters(fd);
  sys::close(fd);
  if (shared == nullptr) return;
  shared->size = own.size;
  shared->count = own.count;
  counters = shared;
  counters_are_shared = true;
}

namespace {

constexpr const char* kNames[]{
#define X(name, meaning) #name,
    POLY_DECLINES(X)
#undef X
};

}  // namespace
}  // namespace poly

POLY_HOOK const poly::PreloadCounters* poly_preload_counters() {
  return poly::counters;
}

POLY_HOOK const char* poly_preload_decline_name(uint32_t index) {
  return index < poly::counters->count ? poly::kNames[index] : nullptr;
}
