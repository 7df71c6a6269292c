// The reading side of the mount table's seqlock, shared by mount_table.cpp and mount_table_writer.cpp.
#pragma once

#include "fastpath/mount_table.hpp"
#include "fastpath/mount_table_layout.hpp"
#include "fastpath/waiting.hpp"

namespace poly {

// About 10 us of waiting on today's CPUs: longer than a change takes, shorter than a scheduler's slice, so a
// writer that was preempted or killed in its section costs a reader this and a system call.
inline constexpr int kReadAttempts = 256;

// Acquire, so that the re-read of the sequence stays behind every payload load. With a release store on the
// writer's side that needs no fence (which ThreadSanitizer does not model) and costs nothing on x86.
inline std::uint64_t load(const SharedWord& word) {
  return word.load(std::memory_order_acquire);
}

template <class Read>
int MountTable::read_consistently(Read&& read) const {
  if (header_ == nullptr) return -EBADF;
  for (int attempt = 0; attempt < kReadAttempts; ++attempt) {
    const std::uint64_t before = header_->sequence.load(std::memory_order_acquire);
    if (before % 2 == 0) {
      const int rc = read();
      if (header_->sequence.load(std::memory_order_relaxed) == before) return rc;
    }
    cpu_relax();
  }
  return -EAGAIN;
}

}  // namespace poly
