// Runs one case in one directory, or in two to compare them. Every case runs in a child of its own with its
// own process group, time limit and directory; a filesystem that hangs costs the time limit, never the run.
#pragma once

#include <string>
#include <vector>

#include "test/conformance/suite/case.hpp"
#include "test/conformance/suite/report.hpp"

namespace suite {

// One case in one directory.
struct Trial {
  Lines lines;
  bool stuck = false;  // a process in it could not even be killed: the filesystem does not answer
  double seconds = 0;
};

// deviates: failed as a list says it would (suite/deviations.hpp).
enum class Status { passed, failed, skipped, deviates };

// One case in the target and, for comparison, in the reference.
struct Verdict {
  Status status = Status::passed;
  std::vector<std::string> reasons;  // of a failure, the one of a skip, or why it deviates and how
  std::vector<std::string> transcript;
  bool stuck = false;
  double seconds = 0;
};

struct Place {
  std::string target;
  std::string reference;
  double patience = 1;  // factor on every case's time limit
};

Trial run_trial(const Case& test, const std::string& directory, double patience);
Verdict run_case(const Case& test, const Place& place);

// Runs `work` in a child for at most `seconds`. False: it failed, was killed or is stuck.
bool run_bounded(const std::function<bool()>& work, double seconds);

}  // namespace suite
