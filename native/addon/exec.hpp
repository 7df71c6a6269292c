// execve(2) out of a Node process, leaving as little of Node behind as can be.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>

namespace poly {

// Becomes the program that the last `count` words of this process's command line name, as execvp(3) finds it,
// with these variables set. Words and environment are taken as bytes from the process itself, since
// JavaScript strings would not keep what is no UTF-8. Returns -errno when there is no such program or it
// cannot be run; -EINVAL when there are fewer words.
//
// Undone of what Node did at its start (node.cc, PlatformInit and uv_disable_stdio_inheritance): ignored
// SIGPIPE and SIGXFSZ, the signal mask, close-on-exec on inherited descriptors, the raised RLIMIT_NOFILE.
// Lost to Node are which signals were ignored or blocked before.
[[nodiscard]] int exec_last_words(std::size_t count,
                                  std::span<const std::pair<std::string, std::string>> variables);

}  // namespace poly
