#include "test/conformance/suite/deviations.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

namespace suite {
namespace {

constexpr const char* kSeparator = " :: ";
constexpr const char* kSometimes = "sometimes ";

// Takes what is before the next separator off the front of `rest`; false when there is none.
bool take(std::string& rest, std::string& part) {
  const std::size_t end = rest.find(kSeparator);
  if (end == std::string::npos) return false;
  part = rest.substr(0, end);
  rest.erase(0, end + strlen(kSeparator));
  return !part.empty();
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

bool Deviations::read(const std::string& path, std::string& error) {
  std::ifstream file(path);
  if (!file) {
    error = path + ": " + strerror(errno);
    return false;
  }
  std::string rest;
  for (int number = 1; std::getline(file, rest); ++number) {
    if (rest.empty() || rest[0] == '#') continue;
    Line line;
    if (!take(rest, line.title) || !take(rest, line.text) || rest.empty()) {
      error = path + ":" + std::to_string(number) + ": not AREA/CASE :: TEXT :: WHY";
      return false;
    }
    line.why = rest;
    if (line.title.rfind(kSometimes, 0) == 0) {
      line.always = false;
      line.title.erase(0, strlen(kSometimes));
    }
    lines_.push_back(line);
  }
  return true;
}

std::string Deviations::unknown_case(const std::vector<Case>& cases) const {
  for (const Line& line : lines_) {
    const auto same = [&](const Case& test) { return test.title() == line.title; };
    if (std::none_of(cases.begin(), cases.end(), same)) return line.title;
  }
  return "";
}

void Deviations::judge(const Case& test, Verdict& verdict) const {
  std::vector<const Line*> expected;
  for (const Line& line : lines_)
    if (line.title == test.title()) expected.push_back(&line);
  if (expected.empty() || verdict.status == Status::skipped) return;
  for (const Line* line : expected) {
    const auto says_so = [&](const std::string& reason) { return contains(reason, line->text); };
    if (!line->always || std::any_of(verdict.reasons.begin(), verdict.reasons.end(), says_so)) continue;
    verdict.status = Status::failed;
    verdict.reasons.push_back("a known deviation is gone, take it off the list: " + line->text);
    return;
  }
  if (verdict.reasons.empty()) return;
  for (const std::string& reason : verdict.reasons) {
    // The first place where the transcripts part follows from the failures, where there are any.
    if (verdict.reasons.size() > 1 && reason.rfind("differs from the reference", 0) == 0) continue;
    const auto covers = [&](const Line* line) { return contains(reason, line->text); };
    if (std::none_of(expected.begin(), expected.end(), covers)) return;
  }
  verdict.status = Status::deviates;
  verdict.reasons.insert(verdict.reasons.begin(), expected[0]->why);
}

}  // namespace suite
