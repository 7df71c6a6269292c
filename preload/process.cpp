#include "preload/process.hpp"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "preload/counters.hpp"
#include "preload/directories.hpp"
#include "preload/directory_streams.hpp"
#include "preload/fd_table.hpp"
#include "preload/mounts.hpp"
#include "preload/posix_locks.hpp"
#include "preload/promote.hpp"
#include "preload/real.hpp"
#include "preload/session.hpp"
#include "preload/sys.hpp"

namespace poly::process {

std::atomic<bool> enabled{false};
char attach_directory[kMaxAttach + 1];
std::atomic<uint32_t> credentials{1};
std::atomic<uint32_t> places{1};

namespace {

[[gnu::tls_model("initial-exec")]] thread_local bool other_thread = false;

std::atomic<int> mask{-1};
constexpr uint64_t kUnknown = ~uint64_t{0} - 1;
std::atomic<uint64_t> size_limit{kUnknown};
std::atomic<uint32_t> equal_ids_at{0};  // value of `credentials` for which they were found equal

// One word in a page that the kernel empties in every child (madvise(2), MADV_WIPEONFORK; Linux 4.14),
// however it was forked.
std::atomic<std::atomic<uint32_t>*> same_process{nullptr};

int read_creation_mask() {
  const int fd = sys::openat(AT_FDCWD, "/proc/self/status", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  char text[256];  // Name, Umask: the second line (proc(5), Linux 4.7)
  const ssize_t size = sys::read(fd, text, sizeof(text) - 1);
  sys::close(fd);
  if (size <= 0) return -1;
  text[size] = '\0';
  const char* at = strstr(text, "\nUmask:\t");
  return at == nullptr ? -1 : static_cast<int>(strtol(at + 8, nullptr, 8));
}

void before_fork() {
  if (on()) promote::all_and_hold();
}

void after_fork_in_parent() {
  if (on()) promote::release_hold();
}

void after_fork_in_child() {
  if (on()) forget_parent();
}

// Reads the environment and nothing else: what a process does not need is not made.
__attribute__((constructor)) void start() {
  const char* directory = getenv("POLY_ATTACH");
  if (directory == nullptr || directory[0] != '/') return;
  size_t size = strlen(directory);
  while (size > 1 && directory[size - 1] == '/') --size;
  if (size > static_cast<size_t>(kMaxAttach)) return;
  memcpy(attach_directory, directory, size);
  if (const char* file = getenv("POLY_COUNTERS")) count_in(file);
  pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
  enabled.store(true);
}

}  // namespace

void switch_off() {
  if (!on()) return;
  promote::all();
  enabled.store(false);
}

bool thread_is_other() {
  return other_thread;
}

void set_thread_is_other(bool other) {
  other_thread = other;
}

int creation_mask() {
  int known = mask.load(std::memory_order_relaxed);
  if (known >= 0) return known;
  const int found = read_creation_mask();
  // A umask(2) of another thread has the last word.
  if (found >= 0) mask.compare_exchange_strong(known, found);
  return mask.load(std::memory_order_relaxed);
}

void set_creation_mask(mode_t value) {
  mask.store(static_cast<int>(value & 0777), std::memory_order_relaxed);
}

uint64_t file_size_limit() {
  uint64_t known = size_limit.load(std::memory_order_relaxed);
  if (known != kUnknown) return known;
  struct rlimit limit {};
  sys::call(SYS_prlimit64, 0, RLIMIT_FSIZE, 0, sys::word(&limit));
  size_limit.store(limit.rlim_cur, std::memory_order_relaxed);
  return limit.rlim_cur;
}

void forget_file_size_limit() {
  size_limit.store(kUnknown, std::memory_order_relaxed);
}

bool ids_are_equal() {
  const uint32_t now = credentials.load(std::memory_order_relaxed);
  if (equal_ids_at.load(std::memory_order_relaxed) == now) return true;
  if (sys::call(SYS_getuid) != sys::call(SYS_geteuid) || sys::call(SYS_getgid) != sys::call(SYS_getegid))
    return false;
  equal_ids_at.store(now, std::memory_order_relaxed);
  return true;
}

bool watch_forks() {
  if (same_process.load(std::memory_order_acquire) != nullptr) return true;
  const long page = sys::call(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page < 0) return false;
  if (sys::call(SYS_madvise, page, 4096, MADV_WIPEONFORK) < 0) {
    sys::call(SYS_munmap, page, 4096);
    return false;
  }
  auto* flag = reinterpret_cast<std::atomic<uint32_t>*>(page);
  flag->store(1);
  std::atomic<uint32_t>* none = nullptr;
  if (!same_process.compare_exchange_strong(none, flag)) sys::call(SYS_munmap, page, 4096);
  return true;
}

void notice_fork() {
  const auto* flag = same_process.load(std::memory_order_acquire);
  if (flag != nullptr && flag->load(std::memory_order_relaxed) == 0) forget_parent();
}

void forget_parent() {
  forget_thread_id();
  fds::forget_all();
  directories::forget_all();
  streams::forget_all();
  open_files::forget_all();
  mounts::forget_all();
  sessions::forget_all();
  posix_locks::forget_all();
  if (auto* flag = same_process.load()) flag->store(1);
}

}  // namespace poly::process
