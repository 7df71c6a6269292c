// The cases of the fast path's comparison with FUSE. Every operation reaches the server: with --direct files
// are opened O_DIRECT, so that FUSE's page cache is not asked; the fast path has no cache to go around, and
// leaves O_DIRECT to the kernel, so it is measured without. Names are stat'ed as in `stat-uncached`.
#include <fcntl.h>

#include "workload.hpp"

namespace poly_bench {
namespace {

constexpr size_t kFileSize = 16u << 20;

// One transfer of a fixed size at a random multiple of it.
class Transfer : public Case {
 public:
  Transfer(std::string home, size_t size, bool write, bool direct)
      : Case(std::move(home)), size_(size), write_(write), direct_(direct), buffer_(aligned(size)) {}
  void prepare(int) override {
    const std::string path = home() + "/data-16m";
    fill(path, kFileSize);
    fd_ = Fd(path, O_RDWR | (direct_ ? O_DIRECT : 0));
    // Or every direct write would have cached pages to drop first.
    check(posix_fadvise(fd_.get(), 0, 0, POSIX_FADV_DONTNEED) == 0, "fadvise");
  }
  void run(int) override {
    const auto at = static_cast<off_t>(random_() % (kFileSize / size_) * size_);
    const ssize_t done =
        write_ ? pwrite(fd_.get(), buffer_.get(), size_, at) : pread(fd_.get(), buffer_.get(), size_, at);
    check(done == static_cast<ssize_t>(size_), "transfer");
  }

 private:
  size_t size_;
  bool write_, direct_;
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
  for (const auto& transfer : kTransfers) {
    if (name == transfer.name)
      return std::make_unique<Transfer>(home, transfer.size, transfer.write, settings.direct);
  }
  return nullptr;
}

}  // namespace poly_bench
