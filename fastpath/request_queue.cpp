#include "fastpath/request_queue.hpp"

#include <ctime>

namespace poly {

uint64_t SharedMemory::now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);  // of the vDSO: no system call
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

template class BasicRequestQueue<SharedMemory>;

}  // namespace poly
