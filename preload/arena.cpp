#include "preload/arena.hpp"

#include <sys/mman.h>

#include "preload/sys.hpp"

namespace poly {

// With sessions::lock held, or before there is a second thread that could look.
bool Arena::make() {
  if (arena != nullptr) return true;
  constexpr long kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  const long memory = sys::call(SYS_mmap, 0, sizeof(Arena), PROT_READ | PROT_WRITE, kFlags, -1, 0);
  if (memory < 0 && memory > -4096) return false;
  sys::call(SYS_madvise, memory, sizeof(Arena), MADV_NOHUGEPAGE);
  arena = reinterpret_cast<Arena*>(memory);
  fd_limit.store(kMaxFd, std::memory_order_release);
  return true;
}

}  // namespace poly
