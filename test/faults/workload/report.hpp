// What a process of the workload is doing, and what went wrong.
//
// The slot lives in memory shared with the parent, so that a process that hangs or dies can still be asked
// for its call.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <string>

namespace faults {

struct Slot {
  std::atomic<uint64_t> calls;
  std::atomic<uint64_t> failures;
  std::atomic<uint64_t> longest_us;  // the slowest call: as long as a recovery, if it met one
  char who[32];
  char doing[256];
  char slowest[256];
};

class Reporter {
 public:
  static constexpr uint64_t kMostPrinted = 10;

  explicit Reporter(Slot& slot) : slot_(slot) {}

  // Runs `body` (a system call that returns < 0 and sets errno), having said what it is. 0 or errno.
  template <typename Body>
  int call(const std::string& what, Body body) {
    begin(what);
    int error = body() < 0 ? errno : 0;
    end();
    return error;
  }
  // Counts a failure unless the last call's errno is the one the model says.
  bool expect(int expected, int got);
  bool expect_that(bool holds, const std::string& otherwise);
  void fail(const std::string& text);

 private:
  void begin(const std::string& what);
  void end();

  Slot& slot_;
  uint64_t started_us_ = 0;
};

uint64_t now_us();
std::string error_name(int error);  // "0", "ENOENT"

}  // namespace faults
