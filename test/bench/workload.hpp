// What the cases of poly-bench-workload are made of: one Case object is one client's part of an experiment.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>

namespace poly_bench {

constexpr size_t kSmall = 4096;
constexpr size_t kLarge = 1u << 20;

[[noreturn]] inline void die(const std::string& what) {
  fprintf(stderr, "poly-bench-workload: %s: %s\n", what.c_str(), strerror(errno));
  exit(1);
}

inline void check(bool ok, const std::string& what) {
  if (!ok) die(what);
}

struct Settings {
  std::string name;
  std::string dir;
  std::string backing;
  int clients = 1;
  int ops = 0;
  int warmup = -1;
  int hogs = 0;
  bool direct = false;
  bool gate = false;
};

class Fd {
 public:
  Fd() = default;
  Fd(const std::string& path, int flags) : fd_(open(path.c_str(), flags | O_CLOEXEC, 0644)) {
    check(fd_ >= 0, path);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

struct FreeDeleter {
  void operator()(char* p) const { free(p); }
};
using Buffer = std::unique_ptr<char, FreeDeleter>;

inline Buffer aligned(size_t size) {
  auto* p = static_cast<char*>(aligned_alloc(kSmall, size));
  check(p != nullptr, "aligned_alloc");
  memset(p, 0x5a, size);
  return Buffer(p);
}

// Makes the file with `size` bytes of data, unless it is there.
inline void fill(const std::string& path, size_t size) {
  struct stat st;
  if (stat(path.c_str(), &st) == 0 && static_cast<size_t>(st.st_size) == size) return;
  Fd fd(path, O_WRONLY | O_CREAT | O_TRUNC);
  Buffer block = aligned(kLarge);
  for (size_t at = 0; at < size; at += kLarge) {
    check(pwrite(fd.get(), block.get(), kLarge, static_cast<off_t>(at)) == static_cast<ssize_t>(kLarge),
          path);
  }
}

// `prepare` runs before the barrier, `run` is one timed operation.
class Case {
 public:
  explicit Case(std::string home) : home_(std::move(home)) {}
  virtual ~Case() = default;
  virtual int default_ops() const { return 20000; }
  virtual bool warms() const { return true; }
  virtual void prepare(int ops) = 0;
  virtual void settle() {}     // after every client has prepared and warmed up, once, in the parent
  virtual void start() {}      // in each client, after settle, just before the clock
  virtual void before(int) {}  // untimed, before each operation
  virtual void run(int i) = 0;
  virtual void clean() {}

 protected:
  const std::string& home() const { return home_; }
  std::mt19937_64 random_{42};

 private:
  std::string home_;
};

// The case that `settings` name, for a client whose files are in `home`; exits when there is none.
std::unique_ptr<Case> make_case(const Settings& settings, const std::string& home);

// The cases of the fast path's comparison with FUSE ("fast-..."), or null.
std::unique_ptr<Case> make_fast_case(const Settings& settings, const std::string& home);
// Names that the kernel does not know any more, as in `stat-uncached`.
std::unique_ptr<Case> make_stat_case(const Settings& settings, const std::string& home);

}  // namespace poly_bench
