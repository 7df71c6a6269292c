// Random requests: few names, few slots, so that operations meet on the same files all the time.
#pragma once

#include <random>

#include "test/fast/mixed/request.hpp"

namespace mixed {

class RandomRequests {
 public:
  explicit RandomRequests(uint64_t seed) : engine_(seed) {}

  Request next();
  // 0 ... bound - 1
  uint32_t below(uint32_t bound) { return static_cast<uint32_t>(engine_() % bound); }

 private:
  bool one_in(uint32_t n) { return below(n) == 0; }
  Operation operation();
  int base();
  // The last two slots are mostly directories.
  int directory_slot() { return kSlots - 2 + static_cast<int>(below(2)); }
  static bool is_about_directories(Operation operation);
  void path(char* to, bool directory);
  int open_flags();
  uint32_t mode();
  int64_t size();
  int64_t offset();

  std::mt19937_64 engine_;
};

}  // namespace mixed
