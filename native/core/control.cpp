#include "native/core/control.hpp"

#include <bit>
#include <charconv>
#include <cstdio>

namespace poly {
namespace {

constexpr std::string_view kPrefix = ".poly-";

// SipHash-2-4 of one 8-byte block (Aumasson and Bernstein, 2012).
uint64_t siphash(const ControlSecret& key, uint64_t block) {
  uint64_t a = key[0] ^ 0x736f6d6570736575, b = key[1] ^ 0x646f72616e646f6d;
  uint64_t c = key[0] ^ 0x6c7967656e657261, d = key[1] ^ 0x7465646279746573;
  auto rounds = [&](int n) {
    while (n--) {
      a += b, b = std::rotl(b, 13) ^ a, a = std::rotl(a, 32);
      c += d, d = std::rotl(d, 16) ^ c;
      a += d, d = std::rotl(d, 21) ^ a;
      c += b, b = std::rotl(b, 17) ^ c, c = std::rotl(c, 32);
    }
  };
  for (uint64_t word : {block, uint64_t{8} << 56}) {  // the last word holds the length
    d ^= word;
    rounds(2);
    a ^= word;
  }
  c ^= 0xff;
  rounds(4);
  return a ^ b ^ c ^ d;
}

void write_name(const ControlSecret& secret, uint32_t tag, char (&out)[32]) {
  std::snprintf(out, sizeof out, ".poly-%08x%016llx", tag,
                static_cast<unsigned long long>(siphash(secret, tag)));
}

}  // namespace

void control_name(const ControlSecret& secret, uint64_t key, char (&out)[32]) {
  write_name(secret, client_tag(key), out);
}

uint32_t tag_of_control_name(const ControlSecret& secret, std::string_view name) {
  if (name.size() != kControlNameSize || !name.starts_with(kPrefix)) return 0;
  if (secret[0] == 0 && secret[1] == 0) return 0;
  uint32_t tag = 0;
  const char* digits = name.data() + kPrefix.size();
  if (auto [end, error] = std::from_chars(digits, digits + 8, tag, 16); end != digits + 8 || !(tag >> 31))
    return 0;
  char expected[32];
  write_name(secret, tag, expected);
  return name == expected ? tag : 0;
}

Attr control_attributes(uint32_t tag) {
  Attr attr{};
  attr.stx_mask = STATX_BASIC_STATS;
  attr.stx_blksize = 4096;
  attr.stx_nlink = 2;
  attr.stx_mode = S_IFDIR | 0777;
  attr.stx_ino = control_node(tag);
  return attr;
}

}  // namespace poly
