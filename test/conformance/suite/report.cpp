#include "test/conformance/suite/report.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace suite {
namespace {

Report* current = nullptr;
Report* current_transcript = nullptr;

// One line per entry, printable: a name with a newline or an odd byte must not break the report.
std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c >= ' ' && c < 0x7f) {
      out += c;
    } else {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\x%02x", static_cast<unsigned char>(c));
      out += escape;
    }
  }
  return out;
}

}  // namespace

Report* Report::create() {
  void* memory = mmap(nullptr, sizeof(Report), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  return static_cast<Report*>(memory);  // zero bytes are a valid empty report
}

void Report::destroy(Report* report) {
  munmap(report, sizeof(Report));
}

void Report::append(LineKind kind, std::string_view text) {
  const std::string line = static_cast<char>(kind) + printable(text) + '\n';
  const std::uint32_t at = used_.fetch_add(static_cast<std::uint32_t>(line.size()));
  if (at + line.size() <= kTextBytes) std::memcpy(text_ + at, line.data(), line.size());
}

void Report::begin_call(std::string_view text) {
  const std::size_t length = std::min(text.size(), sizeof call_ - 1);
  std::memcpy(call_, text.data(), length);
  call_[length] = '\0';
}

std::string Report::call_in_progress() const {
  return {call_, strnlen(call_, sizeof call_)};
}

Lines Report::lines() const {
  Lines result;
  const std::uint32_t used = used_.load();
  if (used > kTextBytes) result.failures.push_back("the transcript is longer than the report can hold");
  std::string_view rest(text_, std::min<std::size_t>(used, kTextBytes));
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos) break;  // cut short by a kill
    const std::string text(rest.substr(1, end - 1));
    switch (static_cast<LineKind>(rest[0])) {
      case LineKind::transcript:
        result.transcript.push_back(text);
        break;
      case LineKind::failure:
        result.failures.push_back(text);
        break;
      case LineKind::optional_skip:
        result.skip_is_optional = true;
        [[fallthrough]];
      case LineKind::skip:
        result.skip = text;
        break;
    }
    rest.remove_prefix(end + 1);
  }
  return result;
}

Report& report() {
  return *current;
}
void set_report(Report* report) {
  current = current_transcript = report;
}
Report& transcript() {
  return *current_transcript;
}
void set_transcript(Report* report) {
  current_transcript = report;
}

}  // namespace suite
