#include "test/conformance/suite/case.hpp"

#include <algorithm>
#include <utility>

namespace suite {
namespace {

// A function's static, because registrations run in an unspecified order across files.
std::vector<Case>& registry() {
  static std::vector<Case> cases;
  return cases;
}

}  // namespace

Registration::Registration(std::string area, std::string name, std::function<void()> run,
                           CaseOptions options) {
  registry().push_back({std::move(area), std::move(name), std::move(run), options});
}

std::vector<Case> all_cases() {
  std::vector<Case> cases = registry();
  std::sort(cases.begin(), cases.end(), [](const Case& a, const Case& b) { return a.title() < b.title(); });
  return cases;
}

}  // namespace suite
