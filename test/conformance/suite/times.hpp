// Time stamps, compared by order and never by value.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace suite {

struct Stamps {
  std::int64_t atime = 0;  // ns since the epoch
  std::int64_t mtime = 0;
  std::int64_t ctime = 0;
};

Stamps stamps(const std::string& path);  // by lstat; zeros when that fails
Stamps stamps(int fd);
std::string text_of(std::int64_t nanoseconds);  // "seconds.nanoseconds"

// Longer than a tick of the kernel's coarse clock (10 ms at HZ=100): what happens next gets a later stamp.
void tick();

// Which of mtime and ctime each path's file had moved forward by `operation`: "f:mc d:-"; a stamp that went
// back shows as "<m". atime is left out: relatime, noatime and page caches may each rightly keep it.
std::string moved(const std::vector<std::string>& paths, const std::function<void()>& operation);

}  // namespace suite
