#include "test/faults/workload/report.hpp"

#include <cstdio>
#include <cstring>
#include <ctime>

namespace faults {

uint64_t now_us() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

std::string error_name(int error) {
  const char* name = error ? strerrorname_np(error) : "0";
  return name ? name : std::to_string(error);
}

void Reporter::begin(const std::string& what) {
  size_t size = std::min(what.size(), sizeof slot_.doing - 1);
  std::memcpy(slot_.doing, what.data(), size);
  slot_.doing[size] = '\0';
  started_us_ = now_us();
}

void Reporter::end() {
  int saved = errno;
  uint64_t took = now_us() - started_us_;
  if (took > slot_.longest_us.load(std::memory_order_relaxed)) {
    slot_.longest_us.store(took, std::memory_order_relaxed);
    std::memcpy(slot_.slowest, slot_.doing, sizeof slot_.doing);
  }
  slot_.calls.fetch_add(1, std::memory_order_relaxed);
  errno = saved;
}

bool Reporter::expect(int expected, int got) {
  if (expected == got) return true;
  fail(error_name(got) + ", expected " + error_name(expected));
  return false;
}

bool Reporter::expect_that(bool holds, const std::string& otherwise) {
  if (!holds) fail(otherwise);
  return holds;
}

void Reporter::fail(const std::string& text) {
  if (slot_.failures.fetch_add(1) >= kMostPrinted) return;
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  // One write(2): lines of several processes stay whole.
  std::string line = "FAIL " + std::string(slot_.who) + " call " + std::to_string(slot_.calls.load()) +
                     " at " + std::to_string(now.tv_sec % 100'000) + "." +
                     std::to_string(now.tv_nsec / 1'000'000) + ": " + slot_.doing + " = " + text + "\n";
  std::fputs(line.c_str(), stdout);
  std::fflush(stdout);
}

}  // namespace faults
