// The cases of the FUSE experiments.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <string_view>
#include <vector>

#include "workload.hpp"

namespace poly_bench {
namespace {

constexpr size_t kFileSize = 64u << 20;

class Read4kDirect : public Case {
 public:
  using Case::Case;
  void prepare(int) override {
    fill(home() + "/data", kFileSize);
    fd_ = Fd(home() + "/data", O_RDONLY | O_DIRECT);
  }
  void run(int) override {
    auto at = static_cast<off_t>(random_() % (kFileSize / kSmall) * kSmall);
    check(pread(fd_.get(), buffer_.get(), kSmall, at) == static_cast<ssize_t>(kSmall), "pread");
  }

 private:
  Fd fd_;
  Buffer buffer_ = aligned(kSmall);
};

class Write4k : public Case {
 public:
  using Case::Case;
  void prepare(int) override {
    fill(home() + "/data", kFileSize);
    fd_ = Fd(home() + "/data", O_RDWR);
  }
  void run(int) override {
    auto at = static_cast<off_t>(random_() % (kFileSize / kSmall) * kSmall);
    check(pwrite(fd_.get(), buffer_.get(), kSmall, at) == static_cast<ssize_t>(kSmall), "pwrite");
  }

 private:
  Fd fd_;
  Buffer buffer_ = aligned(kSmall);
};

class Sequential : public Case {
 public:
  Sequential(std::string home, bool write) : Case(std::move(home)), write_(write) {}
  int default_ops() const override { return 256; }
  void prepare(int) override {
    fill(home() + "/data", kFileSize);
    fd_ = Fd(home() + "/data", O_RDWR);
  }
  // A pass over the file starts with its pages out of the cache: the second would measure the page cache.
  void before(int i) override {
    if (!write_ && offset(i) == 0) check(posix_fadvise(fd_.get(), 0, 0, POSIX_FADV_DONTNEED) == 0, "fadvise");
  }
  void run(int i) override {
    ssize_t done = write_ ? pwrite(fd_.get(), buffer_.get(), kLarge, offset(i))
                          : pread(fd_.get(), buffer_.get(), kLarge, offset(i));
    check(done == static_cast<ssize_t>(kLarge), "1 MiB transfer");
  }

 private:
  static off_t offset(int i) {
    return static_cast<off_t>(static_cast<size_t>(i) % (kFileSize / kLarge) * kLarge);
  }
  bool write_;
  Fd fd_;
  Buffer buffer_ = aligned(kLarge);
};

class OpenClose : public Case {
 public:
  using Case::Case;
  void prepare(int) override { Fd(home() + "/small", O_WRONLY | O_CREAT); }
  void run(int) override { Fd(home() + "/small", O_RDONLY); }
};

class CreateUnlink : public Case {
 public:
  using Case::Case;
  int default_ops() const override { return 10000; }
  void prepare(int) override {}
  void run(int i) override {
    std::string path = home() + "/new-" + std::to_string(i);
    Fd(path, O_WRONLY | O_CREAT | O_EXCL);
    check(unlink(path.c_str()) == 0, path);
  }
};

void walk(const std::string& dir) {
  DIR* handle = opendir(dir.c_str());
  check(handle != nullptr, dir);
  while (dirent* entry = readdir(handle)) {
    std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    std::string path = dir + "/" + entry->d_name;
    struct stat st;
    if (lstat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) walk(path);
  }
  closedir(handle);
}

class StatUncached : public Case {
 public:
  StatUncached(std::string home, std::string backing) : Case(std::move(home)), backing_(std::move(backing)) {}
  int default_ops() const override { return 8000; }
  bool warms() const override { return false; }  // it would cache the names
  void prepare(int ops) override {
    for (int i = 0; i < ops; i++) Fd(name(i), O_WRONLY | O_CREAT);
    order_.resize(static_cast<size_t>(ops));
    std::iota(order_.begin(), order_.end(), 0);
    std::shuffle(order_.begin(), order_.end(), random_);
  }
  void settle() override {
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "2", 1) != 1) {
      fprintf(stderr, "poly-bench-workload: not root, names are stale rather than uncached\n");
      usleep(1'300'000);
    }
    if (fd >= 0) close(fd);
    if (!backing_.empty()) walk(backing_);
    usleep(200'000);  // the server works off the FORGETs
  }
  void start() override {
    struct stat st;
    check(lstat(home().c_str(), &st) == 0, home());
  }
  void run(int i) override {
    struct stat st;
    check(lstat(name(order_[static_cast<size_t>(i)]).c_str(), &st) == 0, "lstat");
  }
  void clean() override {
    for (int i : order_) unlink(name(i).c_str());
  }

 private:
  std::string name(int i) const { return home() + "/name-" + std::to_string(i); }
  std::string backing_;
  std::vector<int> order_;
};

}  // namespace

std::unique_ptr<Case> make_stat_case(const Settings& settings, const std::string& home) {
  return std::make_unique<StatUncached>(home, settings.backing);
}

std::unique_ptr<Case> make_case(const Settings& settings, const std::string& home) {
  const std::string& name = settings.name;
  if (name == "read4k-direct") return std::make_unique<Read4kDirect>(home);
  if (name == "write4k") return std::make_unique<Write4k>(home);
  if (name == "read1m") return std::make_unique<Sequential>(home, false);
  if (name == "write1m") return std::make_unique<Sequential>(home, true);
  if (name == "open-close") return std::make_unique<OpenClose>(home);
  if (name == "create-unlink") return std::make_unique<CreateUnlink>(home);
  if (name == "stat-uncached") return make_stat_case(settings, home);
  if (auto fast = make_fast_case(settings, home)) return fast;
  fprintf(stderr, "poly-bench-workload: no case named %s\n", name.c_str());
  exit(1);
}

}  // namespace poly_bench
