#include "test/fast/mixed/random_requests.hpp"

#include <fcntl.h>

#include <cstdio>
#include <cstring>
#include <string>

namespace mixed {

Operation RandomRequests::operation() {
  static constexpr uint32_t kWeights[]{
#define X(name, weight) weight,
      MIXED_OPERATIONS(X)
#undef X
  };
  static constexpr uint32_t kTotal = [] {
    uint32_t sum = 0;
    for (const uint32_t weight : kWeights) sum += weight;
    return sum;
  }();
  uint32_t left = below(kTotal);
  uint32_t index = 0;
  while (left >= kWeights[index]) left -= kWeights[index++];
  return static_cast<Operation>(index);
}

bool RandomRequests::is_about_directories(Operation operation) {
  return operation == Operation::mkdir || operation == Operation::rmdir || operation == Operation::list;
}

int RandomRequests::base() {
  const uint32_t dice = below(10);
  if (dice < 6) return kHere;
  return dice < 8 ? kAbsolute : static_cast<int>(one_in(10) ? below(kSlots) : directory_slot());
}

// Mostly directories are in the way, and something else at the end.
void RandomRequests::path(char* to, bool directory) {
  static constexpr const char *kAny[]{"a", "b", "c", "d", "e"}, *kDirectories[]{"d", "e"};
  const uint32_t depth = 1 + below(2) + (one_in(4) ? 1 : 0);
  std::string text;
  for (uint32_t i = 0; i < depth; ++i) {
    if (i > 0) text += one_in(50) ? "//" : "/";
    if (one_in(60)) text += i > 0 ? "../" : "./";
    const bool likely = i + 1 < depth || directory;
    text += likely && !one_in(8) ? kDirectories[below(2)] : kAny[below(one_in(4) ? 5 : 3)];
  }
  if (one_in(directory ? 10 : 80)) text += "/";
  if (one_in(120)) text += "/.";
  if (one_in(500)) text.clear();
  snprintf(to, kPath, "%s", text.c_str());
}

int RandomRequests::open_flags() {
  constexpr int kModes[]{O_RDONLY, O_WRONLY, O_RDWR, O_RDWR};
  int flags = kModes[below(4)];
  if (!one_in(3)) flags |= O_CREAT;
  if (one_in(15)) flags |= O_EXCL;
  if (one_in(8)) flags |= O_TRUNC;
  if (one_in(8)) flags |= O_APPEND;
  if (one_in(15)) flags |= O_NOFOLLOW;
  if (one_in(8)) flags = O_RDONLY | O_DIRECTORY;
  return flags;
}

uint32_t RandomRequests::mode() {
  constexpr uint32_t kModes[]{0644, 0644, 0600, 0755, 0755, 0700, 0444, 0555, 0666, 02755, 04711, 01777, 0};
  return kModes[below(sizeof kModes / sizeof *kModes)];
}

int64_t RandomRequests::size() {
  return one_in(30) ? below(200'000) : one_in(3) ? below(9000) : below(200);
}

int64_t RandomRequests::offset() {
  return one_in(40) ? below(kLargest) : one_in(3) ? below(20'000) : below(500);
}

Request RandomRequests::next() {
  Request r;
  memset(&r, 0, sizeof r);
  r.operation = operation();
  r.slot = static_cast<int>(below(one_in(20) ? kSlots : kSlots - 2));
  r.slot2 = static_cast<int>(below(one_in(20) ? kSlots : kSlots - 2));
  r.base = base();
  r.base2 = base();
  r.flags = r.operation == Operation::open ? open_flags() : static_cast<int>(below(64));
  r.mode = mode();
  r.seed = below(1u << 30);
  r.offset = offset();
  r.size = size();
  if (r.operation == Operation::seek && one_in(20)) r.offset = -r.offset;
  const bool opens_directory = r.operation == Operation::open && (r.flags & O_DIRECTORY) != 0;
  if (opens_directory) r.slot = directory_slot();
  const bool directory = opens_directory || is_about_directories(r.operation) || one_in(12);
  path(r.path, directory);
  path(r.path2, directory && !one_in(8));
  return r;
}

}  // namespace mixed
