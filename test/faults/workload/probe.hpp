// Measures how long a mount does not answer: for each line of standard input one statfs(2), which the kernel
// never answers by itself, and one line "ERRNO MICROSECONDS".
#pragma once

#include <string>

namespace faults {

int run_probe(const std::string& directory);

}  // namespace faults
