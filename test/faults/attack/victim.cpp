// poly-fast-victim: an ordinary program that checks what it reads, and how long it takes.
//
//   poly-fast-victim DIRECTORY SECONDS
//
// Prints "N calls, W wrong, median M us, p99 P us"; one call is a write, a read, or a stat. Exit status 1
// when one was wrong.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "test/faults/workload/random.hpp"

namespace {

constexpr size_t kBlock = 4096, kBlocks = 64;

double now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) / 1e3;
}

class Victim {
 public:
  explicit Victim(const std::string& path)
      : path_(path), fd_(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)), model_(kBlocks) {
    for (auto& block : model_) block = random_.bytes(kBlock);
    for (size_t i = 0; i < kBlocks; i++) write(i);
  }

  void one() {
    const size_t i = random_.below(kBlocks);
    const double start = now();
    if (random_.one_in(3)) {
      model_[i] = random_.bytes(kBlock);
      write(i);
    } else if (random_.one_in(2)) {
      char text[kBlock];
      expect(pread(fd_, text, kBlock, static_cast<off_t>(i * kBlock)) == kBlock &&
             std::equal(text, text + kBlock, model_[i].data()));
    } else {
      struct stat st {};
      expect(stat(path_.c_str(), &st) == 0 && st.st_size == kBlock * kBlocks);
    }
    times_.push_back(now() - start);
  }

  int report() {
    std::sort(times_.begin(), times_.end());
    printf("%zu calls, %zu wrong, median %.1f us, p99 %.1f us\n", times_.size(), wrong_,
           times_[times_.size() / 2], times_[times_.size() * 99 / 100]);
    return wrong_ ? 1 : 0;
  }

 private:
  void write(size_t i) {
    expect(pwrite(fd_, model_[i].data(), kBlock, static_cast<off_t>(i * kBlock)) == kBlock);
  }
  void expect(bool right) { wrong_ += !right; }

  const std::string path_;
  const int fd_;
  faults::Random random_{1};
  std::vector<std::string> model_;
  std::vector<double> times_;
  size_t wrong_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  Victim victim(std::string(argv[1]) + "/victim");
  for (const double end = now() + atof(argv[2]) * 1e6; now() < end;) {
    victim.one();
    usleep(50);
  }
  return victim.report();
}
