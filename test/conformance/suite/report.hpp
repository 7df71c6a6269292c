// What a case said, in memory shared by the runner, the case and the case's own children: the transcript to
// be compared with the reference's, failed expectations, a reason to skip, and the call in progress. Shared
// memory rather than a pipe, so that everything said before a kill or a hang is still there afterwards.
//
// Writers append by advancing `used`. Transcript lines must come in one order: a child process collects its
// own in a second report, which its parent takes over when it waits for it (suite::Process). Failures and the
// call in progress go to the case's report at once. Threads must not write lines at all (see
// cases/concurrency.cpp).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace suite {

enum class LineKind : char { transcript = 'T', failure = 'F', skip = 'S', optional_skip = 'O' };

struct Lines {
  std::vector<std::string> transcript;
  std::vector<std::string> failures;
  std::string skip;               // reason; empty when the case was not skipped
  bool skip_is_optional = false;  // POSIX or Linux leaves the feature to the filesystem
};

class Report {
 public:
  static Report* create();  // shared anonymous mapping; nullptr when out of memory
  static void destroy(Report* report);

  void append(LineKind kind, std::string_view text);
  void begin_call(std::string_view text);  // names the call a hang or a death will be blamed on
  void finish() { finished_.store(true, std::memory_order_release); }

  [[nodiscard]] bool finished() const { return finished_.load(std::memory_order_acquire); }
  [[nodiscard]] std::string call_in_progress() const;
  [[nodiscard]] Lines lines() const;

 private:
  static constexpr std::size_t kTextBytes = 4u << 20;  // touched only as far as it is used

  std::atomic<std::uint32_t> used_;
  std::atomic<bool> finished_;
  char call_[512];
  char text_[kTextBytes];
};

// The report of the case this process works for; set by the runner right after fork.
Report& report();
void set_report(Report* report);

// Where this process's transcript lines go: the case's report, or a child's own.
Report& transcript();
void set_transcript(Report* report);

}  // namespace suite
