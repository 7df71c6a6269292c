// Results for people (one line per case that needs attention) or for programs (one JSON document).
#pragma once

#include <string>
#include <vector>

#include "test/conformance/suite/case.hpp"
#include "test/conformance/suite/runner.hpp"

namespace suite {

class Output {
 public:
  Output(bool json, bool verbose) : json_(json), verbose_(verbose) {}

  void add(const Case& test, const Verdict& verdict);
  bool finish();  // prints the total; true when nothing failed

 private:
  void add_line(const Case& test, const Verdict& verdict) const;
  void add_json(const Case& test, const Verdict& verdict);

  bool json_;
  bool verbose_;
  int counts_[4] = {0, 0, 0, 0};  // by Status
  std::string document_;
};

}  // namespace suite
