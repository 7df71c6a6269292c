#include "test/conformance/suite/output.hpp"

#include <cstdio>

namespace suite {
namespace {

constexpr const char* kStatusNames[] = {"passed", "failed", "skipped", "deviates"};

// Reports hold printable ASCII only (see Report::append), so quotes and backslashes are all there is to
// escape.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::string quoted(const std::vector<std::string>& texts) {
  std::string out = "[";
  for (const std::string& text : texts) out += (out.size() > 1 ? "," : "") + quoted(text);
  return out + "]";
}

}  // namespace

void Output::add(const Case& test, const Verdict& verdict) {
  ++counts_[static_cast<int>(verdict.status)];
  if (json_) {
    add_json(test, verdict);
  } else {
    add_line(test, verdict);
  }
}

void Output::add_line(const Case& test, const Verdict& verdict) const {
  static constexpr const char* kWords[] = {"ok  ", "FAIL", "skip", "deviates"};
  if (verdict.status == Status::passed && !verbose_) return;
  std::string line = std::string(kWords[static_cast<int>(verdict.status)]) + " " + test.title();
  if (!verdict.reasons.empty()) line += ": " + verdict.reasons[0];
  if (verbose_) line += " [" + std::to_string(static_cast<int>(verdict.seconds * 1000)) + " ms]";
  std::puts(line.c_str());
  for (std::size_t i = 1; i < verdict.reasons.size(); ++i)
    std::printf("     ! %s\n", verdict.reasons[i].c_str());
  if (verbose_) {
    for (const std::string& text : verdict.transcript) std::printf("     %s\n", text.c_str());
  }
  std::fflush(stdout);
}

void Output::add_json(const Case& test, const Verdict& verdict) {
  char seconds[32];
  std::snprintf(seconds, sizeof seconds, "%.3f", verdict.seconds);
  document_ += (document_.empty() ? "\n  " : ",\n  ");
  document_ += "{\"area\":" + quoted(test.area) + ",\"case\":" + quoted(test.name) +
               ",\"status\":" + quoted(std::string(kStatusNames[static_cast<int>(verdict.status)])) +
               ",\"seconds\":" + seconds + ",\"reasons\":" + quoted(verdict.reasons) + "}";
}

bool Output::finish() {
  const char* format =
      json_ ? "{\"passed\":%d,\"failed\":%d,\"skipped\":%d,\"cases\":[" : "%d passed, %d failed, %d skipped";
  const int deviating = counts_[static_cast<int>(Status::deviates)];
  std::printf(format, counts_[0], counts_[1], counts_[2] + deviating);  // NOLINT: both are literals
  if (!json_)
    std::puts(deviating == 0 ? ""
                             : (" (" + std::to_string(deviating) + " of them deviate as known)").c_str());
  if (json_) std::printf("%s\n]}\n", document_.c_str());
  std::fflush(stdout);
  return counts_[1] == 0;
}

}  // namespace suite
