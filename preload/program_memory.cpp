#include "preload/program_memory.hpp"

#include "preload/sys.hpp"

namespace poly {

std::atomic<uintptr_t> readable_pages[64];

// A system call that reads eight bytes and then fails because of its other argument: rt_sigprocmask(2) copies
// the set before it looks at what is to be done with it.
bool is_unreadable(uintptr_t address) {
  constexpr long kNoSuchThing = 99;
  const auto at = static_cast<long>(address & ~uintptr_t{7});
  if (sys::call(SYS_rt_sigprocmask, kNoSuchThing, at, 0, 8) == -EFAULT) return true;
  readable_pages[(address >> 12) % 64].store(address >> 12, std::memory_order_relaxed);
  return false;
}

}  // namespace poly
