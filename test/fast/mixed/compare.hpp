// What it means that two trees gave the same result.
#pragma once

#include <map>
#include <string>

#include "test/fast/mixed/request.hpp"

namespace mixed {

class Comparison {
 public:
  // Of one request: what the reference says, and what came. How they differ; empty: they do not.
  // Time stamps may differ by what passed between the two, as observed so far.
  std::string difference(const Request& request, const Result& expected, const Result& got);
  void observe_delay(int64_t ns);

 private:
  std::string attributes(const Attributes& expected, const Attributes& got);
  std::string times(const Attributes& expected, const Attributes& got) const;

  // Time stamps move in ticks of up to 10 ms (time(7), CONFIG_HZ=100).
  int64_t tolerance_ns_ = 30'000'000;
  std::map<uint64_t, uint64_t> inodes_;  // of the reference, and what stands for it
};

std::string describe(const Request& request);
std::string describe(const Request& request, const Result& result);

}  // namespace mixed
