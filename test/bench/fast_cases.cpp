// The cases of the fast path's comparison with FUSE. Every operation reaches the server: with --direct files
// are opened O_DIRECT, so that FUSE's page cache is not asked; the fast path has no cache to go around, and
// leaves O_DIRECT to the kernel, so it is measured without. Names are stat'ed as in `stat-uncached`.
#include <fcntl.h>

#include "workload.hpp"

namespace poly_bench {
namespace {

constexpr size_t kFileSize = 16u << 20;

// One transfer of a fixed size at a random multiple of it. `flags`: of open(2).
class Transfer : public Case {
 public:
  Transfer(std::string home, size_t size, bool write, int flags, size_t file_size = kFileSize)
      : Case(std::move(home)),
        size_(size),
        file_size_(file_size),
        write_(write),
        flags_(flags),
        buffer_(aligned(size)) {}
  void prepare(int) override {
    const std::string path = home() + "/data-" + std::to_string(file_size_ >> 20) + "m";
    fill(path, file_size_);
    fd_ = Fd(path, O_RDWR | flags_);
    // Or every direct write would have cached pages to drop first.
    check(posix_fadvise(fd_.get(), 0, 0, POSIX_FADV_DONTNEED) == 0, "fadvise");
  }
  void run(int) override {
    const auto at = static_cast<off_t>(random_() % (file_size_ / size_) * size_);
    const ssize_t done =
        write_ ? pwrite(fd_.get(), buffer_.get(), size_, at) : pread(fd_.get(), buffer_.get(), size_, at);
    check(done == static_cast<ssize_t>(size_), "transfer");
  }

 private:
  size_t size_, file_size_;
  bool write_;
  int flags_;
  Fd fd_;
  Buffer buffer_;
};

class OpenClose : public Case {
 public:
  using Case::Case;
  void prepare(int) override {
    path_ = home() + "/small";
    Fd(path_, O_WRONLY | O_CREAT);
  }
  void run(int) override { Fd(path_, O_RDONLY); }

 private:
  std::string path_;
};

}  // namespace

std::unique_ptr<Case> make_fast_case(const Settings& settings, const std::string& home) {
  const std::string& name = settings.name;
  if (name == "fast-stat") return make_stat_case(settings, home);
  if (name == "fast-open-close") return std::make_unique<OpenClose>(home);
  constexpr struct {
    const char* name;
    size_t size;
    bool write;
  } kTransfers[]{
      {"fast-read4k", kSmall, false},       {"fast-write4k", kSmall, true},
      {"fast-read64k", 16 * kSmall, false}, {"fast-write64k", 16 * kSmall, true},
      {"fast-read1m", kLarge, false},       {"fast-write1m", kLarge, true},
  };
  const int direct = settings.direct ? O_DIRECT : 0;
  // More than a backend's client caches; and what each write waits for the backend with.
  if (name == "read4k-large") return std::make_unique<Transfer>(home, kSmall, false, direct, 8 * kFileSize);
  if (name == "write4k-sync") return std::make_unique<Transfer>(home, kSmall, true, O_DSYNC);
  for (const auto& transfer : kTransfers) {
    if (name == transfer.name) return std::make_unique<Transfer>(home, transfer.size, transfer.write, direct);
  }
  return nullptr;
}

}  // namespace poly_bench
