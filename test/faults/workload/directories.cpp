// Listings that last longer than a service: every entry that is there all the time is seen exactly once.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "test/faults/workload/areas.hpp"

namespace faults {
namespace {

constexpr unsigned kStable = 300;

struct HostDirent {  // linux_dirent64 of getdents64(2)
  uint64_t ino;
  int64_t next;
  uint16_t size;
  uint8_t type;
  char name[];
};

std::string stable_name(const std::string& directory, unsigned n) {
  return directory + "/stable-" + std::to_string(n);
}

bool make_stable(Context& context) {
  for (unsigned n = 0; n < kStable; n++) {
    std::string path = stable_name(context.directory, n);
    int fd = -1;
    int got = context.report.call("open(" + path + ")",
                                  [&] { return fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0644); });
    if (!context.report.expect(0, got)) return false;
    close(fd);
  }
  return true;
}

// Something that comes and goes beside what stays.
void churn(Context& context, std::vector<unsigned>& there, unsigned& next) {
  if (there.empty() || context.random.one_in(2)) {
    std::string path = context.directory + "/churn-" + std::to_string(next);
    context.report.expect(
        0, context.report.call("mkdir(" + path + ")", [&] { return mkdir(path.c_str(), 0755); }));
    there.push_back(next++);
  } else {
    size_t i = context.random.below(there.size());
    std::string path = context.directory + "/churn-" + std::to_string(there[i]);
    context.report.expect(0, context.report.call("rmdir(" + path + ")", [&] { return rmdir(path.c_str()); }));
    there.erase(there.begin() + static_cast<ptrdiff_t>(i));
  }
}

void list_slowly(Context& context, int fd, std::vector<unsigned>& there, unsigned& next) {
  alignas(8) char buffer[2048];
  std::vector<unsigned> seen(kStable);
  unsigned others = 0;
  Reporter& report = context.report;
  report.expect(0, report.call("lseek(directory, 0)", [&] { return lseek(fd, 0, SEEK_SET); }));
  for (;;) {
    long n = -1;
    if (!report.expect(0, report.call("getdents64", [&] {
          return n = syscall(SYS_getdents64, fd, buffer, sizeof buffer);
        })))
      return;
    if (n == 0) break;
    for (long at = 0; at < n;) {
      auto* entry = reinterpret_cast<HostDirent*>(buffer + at);
      unsigned number;
      if (sscanf(entry->name, "stable-%u", &number) == 1 && number < kStable)
        seen[number]++;
      else
        others++;
      at += entry->size;
    }
    if (context.random.one_in(2)) churn(context, there, next);
    sleep_ms(context.random.below(60));
  }
  for (unsigned i = 0; i < kStable; i++)
    report.expect_that(seen[i] == 1, "stable-" + std::to_string(i) + " seen " + std::to_string(seen[i]) +
                                         " times, " + std::to_string(others) + " others");
}

}  // namespace

void run_readdir(Context& context) {
  if (!make_stable(context)) return;
  int fd = -1;
  int got = context.report.call("open(directory)", [&] {
    return fd = open(context.directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  });
  if (!context.report.expect(0, got)) return;
  std::vector<unsigned> there;
  unsigned next = 0;
  while (!context.over()) list_slowly(context, fd, there, next);
  close(fd);
}

}  // namespace faults
