// poly-bench-preload: what the preload library costs programs that have nothing to do with a poly mount.
//
//   poly-bench-preload start N LIBRARY ATTACH    /bin/true from posix_spawn(3) to its end, N times each way
//   poly-bench-preload calls N DIR               N calls of each kind on a file in DIR, by this very process
//
// Prints "NAME NANOSECONDS" lines, medians. `start`: without, again without (the noise), and with the
// library, in turn. `calls`: whoever starts it sets LD_PRELOAD, or does not.
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

namespace {

void check(bool ok, const char* what) {
  if (ok) return;
  perror(what);
  exit(1);
}

double now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

void print_median(const char* name, std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  printf("%s %.1f\n", name, values[values.size() / 2]);
}

double start_true(const std::vector<std::string>& variables) {
  std::vector<char*> environment;
  for (const std::string& one : variables) environment.push_back(const_cast<char*>(one.c_str()));
  environment.push_back(nullptr);
  char name[] = "/bin/true";
  char* arguments[]{name, nullptr};
  pid_t pid;
  const double from = now_ns();
  check(posix_spawn(&pid, name, nullptr, nullptr, arguments, environment.data()) == 0, name);
  int status = 0;
  check(waitpid(pid, &status, 0) == pid && status == 0, name);
  return now_ns() - from;
}

void measure_start(int count, const char* library, const char* attach) {
  const std::vector<std::string> plain{"PATH=/usr/bin:/bin"};
  const std::vector<std::string> preloaded{plain[0], std::string("LD_PRELOAD=") + library,
                                           std::string("POLY_ATTACH=") + attach};
  std::vector<double> without, again, with;
  for (int i = 0; i < count; i++) {
    without.push_back(start_true(plain));
    with.push_back(start_true(preloaded));
    again.push_back(start_true(plain));
  }
  print_median("without", without);
  print_median("again", again);
  print_median("with", with);
}

// In batches, so that the clock is no part of it.
template <typename Call>
void measure_calls(const char* name, int count, Call call) {
  constexpr int kBatch = 200;
  std::vector<double> each;
  for (int i = 0; i < count; i += kBatch) {
    const double from = now_ns();
    for (int k = 0; k < kBatch; k++) call();
    each.push_back((now_ns() - from) / kBatch);
  }
  print_median(name, each);
}

void measure_calls(int count, const std::string& dir) {
  const std::string path = dir + "/file";
  char block[4096] = {};
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  check(fd >= 0 && pwrite(fd, block, sizeof block, 0) == sizeof block, path.c_str());
  struct stat st;
  measure_calls("stat", count, [&] { check(stat(path.c_str(), &st) == 0, "stat"); });
  measure_calls("open+close", count, [&] { check(close(open(path.c_str(), O_RDONLY)) == 0, "open"); });
  measure_calls("read", count, [&] { check(pread(fd, block, sizeof block, 0) == sizeof block, "read"); });
  close(fd);
}

}  // namespace

int main(int argc, char** argv) {
  const int count = argc > 2 ? atoi(argv[2]) : 0;
  if (argc == 5 && count > 0 && strcmp(argv[1], "start") == 0) {
    measure_start(count, argv[3], argv[4]);
  } else if (argc == 4 && count > 0 && strcmp(argv[1], "calls") == 0) {
    measure_calls(count, argv[3]);
  } else {
    fprintf(stderr, "usage: poly-bench-preload start N LIBRARY ATTACH | calls N DIR\n");
    return 1;
  }
  return 0;
}
