// Deviations that are known and cannot be helped, from a file: what a filesystem below is known to do
// otherwise. A line per failure,
//   AREA/CASE :: TEXT :: WHY
// where TEXT is part of the failure's text. It excuses that failure and no other: a case deviates when each
// of its failures is covered by one of its lines and each of its lines covers one; otherwise it fails.
//   sometimes AREA/CASE :: TEXT :: WHY
// is a race below: that failure may be there or not.
#pragma once

#include <string>
#include <vector>

#include "test/conformance/suite/case.hpp"
#include "test/conformance/suite/runner.hpp"

namespace suite {

class Deviations {
 public:
  // False, and `error` says why, when the file cannot be read or a line not be understood.
  bool read(const std::string& path, std::string& error);

  // The first line's case that is none of these; empty when there is no such.
  [[nodiscard]] std::string unknown_case(const std::vector<Case>& cases) const;

  // Makes a failure a deviation, and a pass where a deviation was expected a failure.
  void judge(const Case& test, Verdict& verdict) const;

 private:
  struct Line {
    std::string title;
    bool always = true;
    std::string text;
    std::string why;
  };
  std::vector<Line> lines_;
};

}  // namespace suite
