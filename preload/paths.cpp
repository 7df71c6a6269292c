#include "preload/paths.hpp"

#include <fcntl.h>
#include <string.h>

#include "preload/counters.hpp"
#include "preload/directories.hpp"
#include "preload/fd_table.hpp"
#include "preload/path_text.hpp"
#include "preload/process.hpp"
#include "preload/promote.hpp"

namespace poly {
namespace {

bool locate_absolute(const char* path, Place& out) {
  const size_t size = strnlen(path, kMaxPathLength + 1);
  if (size > kMaxPathLength) return false;
  const std::string_view head = before_dotdot(path, size);
  uint32_t prefix = 0;
  out.mount = mounts::find(head, prefix);
  if (out.mount == nullptr) {
    if (head.size() != size) count(Decline::dotdot);
    return false;
  }
  out.text = skip_components(path, prefix);
  out.size = static_cast<uint32_t>(path + size - out.text);
  return true;
}

bool locate_relative(int directory, const char* path, Place& out) {
  const size_t size = strnlen(path, kMaxPathLength + 1);
  if (size > kMaxPathLength) return false;
  out.directory = directories::handle_of(directory);
  if (!out.directory) return false;
  out.mount = out.directory->mount;
  out.text = path;
  out.size = static_cast<uint32_t>(size);
  return true;
}

}  // namespace

bool may_be_ours(int directory, const char* path) {
  if (!process::on() || is_wild(path)) return false;
  if (path[0] == '\0') return fds::is_library(directory);  // AT_EMPTY_PATH
  if (path[0] != '/') return !directories::is_foreign(directory);
  if (mounts::may_match(path)) return true;
  if (fds::highest.load(std::memory_order_relaxed) >= 0) promote_named(path);
  return false;
}

bool locate(int directory, const char* path, uint16_t walk, Place& out) {
  if (!may_be_ours(directory, path)) return false;
  process::notice_fork();
  const bool found = path[0] == '/' ? locate_absolute(path, out) : locate_relative(directory, path, out);
  if (!found) return false;
  if (process::thread_is_other()) {
    count(Decline::identity);
    return false;
  }
  out.walk = walk;
  if (out.size > 0 && out.text[out.size - 1] == '/') out.walk |= kWalkDirectory;
  if (out.mount->mounts_below.load(std::memory_order_relaxed)) out.walk |= kWalkNoLinks;
  return true;
}

bool locate_name(int directory, const char* path, Place& out) {
  return locate(directory, path, 0, out) && !out.is_root();
}

void promote_named(const char* path) {
  const int fd = named_descriptor(path);
  if (fd >= 0) (void)promote::descriptor(fd);
}

}  // namespace poly
