#include "test/faults/workload/probe.hpp"

#include <sys/vfs.h>

#include <cstdio>
#include <string>

#include "test/faults/workload/report.hpp"

namespace faults {

int run_probe(const std::string& directory) {
  char line[16];
  while (fgets(line, sizeof line, stdin)) {
    struct statfs found {};
    uint64_t start = now_us();
    int error = statfs(directory.c_str(), &found) == 0 ? 0 : errno;
    printf("%s %lu\n", error_name(error).c_str(), now_us() - start);
    fflush(stdout);
  }
  return 0;
}

}  // namespace faults
