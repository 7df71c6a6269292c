#include "test/conformance/suite/times.hpp"

#include <unistd.h>

#include <cstdio>

namespace suite {
namespace {

std::int64_t nanoseconds(const timespec& time) {
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

Stamps stamps_of(const struct stat& st) {
  return {nanoseconds(st.st_atim), nanoseconds(st.st_mtim), nanoseconds(st.st_ctim)};
}

std::string change(char letter, std::int64_t before, std::int64_t after) {
  if (after > before) return {letter};
  return after < before ? std::string("<") + letter : "";
}

}  // namespace

Stamps stamps(const std::string& path) {
  struct stat st {};
  return lstat(path.c_str(), &st) == 0 ? stamps_of(st) : Stamps{};
}

Stamps stamps(int fd) {
  struct stat st {};
  return fstat(fd, &st) == 0 ? stamps_of(st) : Stamps{};
}

std::string text_of(std::int64_t time) {
  std::int64_t seconds = time / 1000000000;
  std::int64_t rest = time % 1000000000;
  if (rest < 0) {
    rest += 1000000000;
    --seconds;
  }
  char text[64];
  std::snprintf(text, sizeof text, "%lld.%09lld", static_cast<long long>(seconds),
                static_cast<long long>(rest));
  return text;
}

void tick() {
  usleep(15000);
}

std::string moved(const std::vector<std::string>& paths, const std::function<void()>& operation) {
  std::vector<Stamps> before;
  for (const std::string& path : paths) before.push_back(stamps(path));
  tick();
  operation();
  std::string text;
  for (std::size_t i = 0; i < paths.size(); ++i) {
    const Stamps after = stamps(paths[i]);
    const std::string letters =
        change('m', before[i].mtime, after.mtime) + change('c', before[i].ctime, after.ctime);
    text += (i ? " " : "") + paths[i] + ":" + (letters.empty() ? "-" : letters);
  }
  return text;
}

}  // namespace suite
