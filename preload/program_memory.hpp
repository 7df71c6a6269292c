// Whether the program's pointers can be followed: where the kernel answers EFAULT, this library must not
// crash.
#pragma once

#include <atomic>
#include <cstdint>

namespace poly {

// Pages that were readable when last asked about, direct mapped. One that has been unmapped since is believed
// still: then a bad pointer into it ends the program, as it would in most of libc.
extern std::atomic<uintptr_t> readable_pages[64];

// Asks the kernel.
[[nodiscard]] bool is_unreadable(uintptr_t address);

// Nothing can be read there: the kernel's to judge. One nanosecond for what is used again and again.
inline bool is_wild(const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  const uintptr_t page = address >> 12;
  if (page == 0) return true;
  return readable_pages[page % 64].load(std::memory_order_relaxed) != page && is_unreadable(address);
}

}  // namespace poly
