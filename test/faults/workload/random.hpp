// Random numbers that are the same for the same seed everywhere.
#pragma once

#include <cstdint>
#include <string>

namespace faults {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ull + 1) {}

  uint64_t next() {  // splitmix64
    uint64_t z = state_ += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
  }
  uint64_t below(uint64_t bound) { return next() % bound; }
  bool one_in(uint64_t n) { return below(n) == 0; }
  std::string bytes(size_t size) {
    std::string out(size, '\0');
    for (size_t i = 0; i < size; i += 8) {
      uint64_t word = next();
      for (size_t j = i; j < size && j < i + 8; j++) out[j] = static_cast<char>(word >> (j - i) * 8);
    }
    return out;
  }

 private:
  uint64_t state_;
};

}  // namespace faults
