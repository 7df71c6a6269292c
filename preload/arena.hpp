// The library's large tables, in one mapping that is made when the process first meets one of our mounts: a
// process that never does pays nothing for them. Never unmapped; pages that are not used cost nothing.
//
// Not .bss: where transparent huge pages are always on, the first touch there would clear 2 MiB.
#pragma once

#include <atomic>
#include <cstdint>

#include "preload/directory_streams.hpp"
#include "preload/open_file.hpp"

namespace poly {

struct Arena {
  static constexpr int kMaxFd = 1 << 20;
  static constexpr uint32_t kMaxFiles = 1u << 16;

  std::atomic<uint32_t> descriptors[kMaxFd];  // fd_table.hpp
  std::atomic<uint32_t> foreign[kMaxFd];      // directories.cpp
  OpenFile files[kMaxFiles];                  // open_file.cpp
  DirectoryStreams streams;                   // directory_streams.cpp

  // False: no memory.
  [[nodiscard]] static bool make();
};

inline constinit Arena* arena = nullptr;
// Descriptor numbers from here on are in no table; 0 until there is an arena.
inline constinit std::atomic<int> fd_limit{0};

}  // namespace poly
