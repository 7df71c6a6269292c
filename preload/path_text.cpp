#include "preload/path_text.hpp"

#include <string.h>

namespace poly {
namespace {

bool take(const char*& at, const char* prefix) {
  const size_t size = strlen(prefix);
  if (strncmp(at, prefix, size) != 0) return false;
  at += size;
  return true;
}

const char* skip_digits(const char* at) {
  while (*at >= '0' && *at <= '9') ++at;
  return at;
}

}  // namespace

std::string_view before_dotdot(const char* path, size_t size) {
  for (const char* at = path; (at = strstr(at, "/..")) != nullptr; at += 3) {
    if (at[3] == '/' || at[3] == '\0') return {path, static_cast<size_t>(at + 1 - path)};
  }
  return {path, size};
}

const char* skip_components(const char* at, uint32_t components) {
  for (;;) {
    while (*at == '/') ++at;
    if (at[0] == '.' && (at[1] == '/' || at[1] == '\0')) {
      ++at;
      continue;
    }
    if (components == 0) return at;
    while (*at != '/' && *at != '\0') ++at;
    --components;
  }
}

int named_descriptor(const char* at) {
  constexpr int kMostDigits = 7;
  if (take(at, "/proc/")) {
    if (!take(at, "self") && !take(at, "thread-self")) at = skip_digits(at);
    if (take(at, "/task/")) at = skip_digits(at);
    if (!take(at, "/fd/")) return -1;
  } else if (!take(at, "/dev/fd/")) {
    return -1;
  }
  const char* end = skip_digits(at);
  if (end == at || end - at > kMostDigits) return -1;
  int fd = 0;
  for (; at < end; ++at) fd = fd * 10 + (*at - '0');
  return fd;
}

}  // namespace poly
