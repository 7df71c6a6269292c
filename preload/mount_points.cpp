#include "preload/mount_points.hpp"

#include <string.h>

#include <atomic>
#include <cstdint>
#include <iterator>

#include "preload/process.hpp"
#include "preload/session.hpp"
#include "preload/sys.hpp"

namespace poly::mount_points {
namespace {

constexpr char kName[] = "/mount-points";

// Paths, each with its NUL.
char list[4096];
struct Point {
  const char* path;
  size_t size;
};
Point points[64];
uint32_t count = 0;

enum State : uint32_t { kUnread, kKnown, kUnknown };
std::atomic<uint32_t> state{kUnread};

// False: more than there is room for.
bool find_points(size_t size) {
  for (const char* at = list; at < list + size;) {
    if (count == std::size(points)) return false;
    const size_t length = strlen(at);
    points[count++] = {at, length};
    at += length + 1;
  }
  return true;
}

bool read_list() {
  char path[process::kMaxAttach + sizeof(kName)];
  const size_t size = strlen(process::attach_directory);
  memcpy(path, process::attach_directory, size);
  memcpy(path + size, kName, sizeof(kName));
  const int fd = sys::openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return false;
  const ssize_t got = sys::read(fd, list, sizeof(list));
  sys::close(fd);
  if (got < 0 || static_cast<size_t>(got) == sizeof(list)) return false;
  return find_points(static_cast<size_t>(got));
}

}  // namespace

bool known() {
  const uint32_t now = state.load(std::memory_order_acquire);
  if (now != kUnread) return now == kKnown;
  const SignalsBlocked blocked;
  const ThreadLockHold hold(sessions::lock);
  if (state.load() == kUnread) state.store(read_list() ? kKnown : kUnknown, std::memory_order_release);
  return state.load() == kKnown;
}

bool may_lead_to(const char* path) {
  for (const Point *point = points, *end = points + count; point != end; ++point) {
    if (point->size == 1) return true;
    size_t same = 1;
    while (same < point->size && path[same] == point->path[same]) ++same;
    if (same == point->size && (path[same] == '/' || path[same] == '\0')) return true;
  }
  return false;
}

}  // namespace poly::mount_points
