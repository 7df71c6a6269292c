// The text of paths, where the library looks at it: up to the mount point, and for paths that name
// descriptors. No state, no system calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace poly {

// The part of an absolute path before its first ".." component; all of it when there is none.
[[nodiscard]] std::string_view before_dotdot(const char* path, size_t size);

// What follows the first `components` components ("" and "." are none) and the slashes after them. The path
// has that many, and no ".." among them.
[[nodiscard]] const char* skip_components(const char* path, uint32_t components);

// 7 for /proc/self/fd/7, /proc/PID/task/TID/fd/7, /dev/fd/7 and the like; -1 for other paths. /dev/stdin and
// its brothers need no looking at: what stdio uses is never the library's.
[[nodiscard]] int named_descriptor(const char* path);

}  // namespace poly
