// What has no name any more but is still used: open files and directories, and the current directory. They
// rest for a while before and after they lose their names, so that services die in each state.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vector>

#include "test/faults/workload/areas.hpp"

namespace faults {
namespace {

struct Kept {
  int fd;
  std::string path;  // empty: no name any more
  std::string data;
  bool directory;
  unsigned looks = 0;
};

class RemovedArea {
 public:
  explicit RemovedArea(Context& context)
      : context_(context), report_(context.report), random_(context.random) {}
  ~RemovedArea() {
    for (auto& item : items_) close(item.fd);
  }

  void step() {
    if (items_.size() < 12) return make();
    size_t i = random_.below(items_.size());
    if (!items_[i].path.empty()) return take_name(items_[i]);
    look(items_[i]);
    if (++items_[i].looks < 4) return;
    report_.expect(0, report_.call("close(removed)", [&] { return close(items_[i].fd); }));
    items_.erase(items_.begin() + static_cast<ptrdiff_t>(i));
  }

  void look_at_all() {
    for (auto& item : items_) look(item);
  }

 private:
  void make() {
    Kept item{-1, context_.directory + "/r" + std::to_string(next_++), "", random_.one_in(4)};
    if (item.directory) {
      report_.expect(
          0, report_.call("mkdir(" + item.path + ")", [&] { return mkdir(item.path.c_str(), 0755); }));
      int got = report_.call("open(" + item.path + ")", [&] {
        return item.fd = open(item.path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      });
      if (report_.expect(0, got)) items_.push_back(item);
      return;
    }
    int got = report_.call("open(" + item.path + ")", [&] {
      return item.fd = open(item.path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    });
    if (!report_.expect(0, got)) return;
    write_more(item);
    items_.push_back(item);
  }

  void write_more(Kept& item) {
    std::string data = random_.bytes(1 + random_.below(30'000));
    auto offset = static_cast<off_t>(item.data.size());
    ssize_t n = -1;
    int got = report_.call("pwrite(" + item.path + ")",
                           [&] { return n = pwrite(item.fd, data.data(), data.size(), offset); });
    if (report_.expect(0, got) && report_.expect_that(n == static_cast<ssize_t>(data.size()), "short"))
      item.data += data;
  }

  // By unlink, by a rename over it, or with a second name gone first.
  void take_name(Kept& item) {
    if (item.directory) {
      report_.expect(0, report_.call("rmdir(" + item.path + ")", [&] { return rmdir(item.path.c_str()); }));
    } else if (random_.one_in(3)) {
      std::string other = context_.directory + "/over";
      int fd = -1;
      int got = report_.call("open(" + other + ")",
                             [&] { return fd = open(other.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0644); });
      report_.expect(0, got);
      close(fd);
      got = report_.call("rename(" + other + ", " + item.path + ")",
                         [&] { return rename(other.c_str(), item.path.c_str()); });
      report_.expect(0, got);
      report_.expect(0, report_.call("unlink(" + item.path + ")", [&] { return unlink(item.path.c_str()); }));
    } else {
      std::string second = item.path + "-second";
      bool two = random_.one_in(2);
      if (two) {
        report_.expect(0, report_.call("link(" + item.path + ")",
                                       [&] { return link(item.path.c_str(), second.c_str()); }));
        report_.expect(0, report_.call("unlink(" + second + ")", [&] { return unlink(second.c_str()); }));
      }
      report_.expect(0, report_.call("unlink(" + item.path + ")", [&] { return unlink(item.path.c_str()); }));
    }
    item.path.clear();
  }

  void look(Kept& item) {
    struct stat st {};
    report_.expect(0, report_.call("fstat(removed)", [&] { return fstat(item.fd, &st); }));
    if (item.directory) {
      int fd = -1;
      int got = report_.call("openat(removed directory, new, O_CREAT)",
                             [&] { return fd = openat(item.fd, "new", O_WRONLY | O_CREAT, 0644); });
      if (item.path.empty()) report_.expect(ENOENT, got);
      if (fd >= 0) close(fd);
      return;
    }
    if (item.path.empty()) report_.expect_that(st.st_nlink == 0, std::to_string(st.st_nlink) + " links");
    (void)posix_fadvise(item.fd, 0, 0, POSIX_FADV_DONTNEED);
    std::string found(item.data.size() + 1, '\0');
    ssize_t n = -1;
    int got = report_.call("pread(removed " + item.path + ")",
                           [&] { return n = pread(item.fd, found.data(), found.size(), 0); });
    if (!report_.expect(0, got)) return;
    found.resize(static_cast<size_t>(n));
    report_.expect_that(found == item.data,
                        "other contents: " + std::to_string(n) + " of " + std::to_string(item.data.size()));
    if (item.data.size() < 200'000) write_more(item);
  }

  Context& context_;
  Reporter& report_;
  Random& random_;
  std::vector<Kept> items_;
  unsigned next_ = 0;
};

// rmdir of the directory one stands in.
void stand_in_removed(Context& context, unsigned n) {
  Reporter& report = context.report;
  std::string path = context.directory + "/cwd" + std::to_string(n);
  report.expect(0, report.call("mkdir(" + path + ")", [&] { return mkdir(path.c_str(), 0755); }));
  report.expect(0, report.call("chdir(" + path + ")", [&] { return chdir(path.c_str()); }));
  if (context.random.one_in(2)) sleep_ms(context.random.below(500));
  report.expect(0, report.call("rmdir(" + path + ")", [&] { return rmdir(path.c_str()); }));
  // Longer than attributes are cached, at times.
  sleep_ms(context.random.below(1500));
  struct stat st {};
  report.expect(0, report.call("stat(.) in a removed directory", [&] { return stat(".", &st); }));
  report.expect(ENOENT,
                report.call("open(./x, O_CREAT) there", [&] { return open("x", O_WRONLY | O_CREAT, 0644); }));
  report.expect(ENOENT, report.call("mkdir(./y) there", [&] { return mkdir("y", 0755); }));
  report.expect(ENOENT, report.call("stat(./z) there", [&] { return stat("z", &st); }));
  char buffer[4096];
  report.expect(ENOENT, report.call("getcwd there", [&] { return getcwd(buffer, sizeof buffer) ? 0 : -1; }));
  int fd = -1;
  if (report.expect(0, report.call("open(.) there",
                                   [&] { return fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); })))
    close(fd);
  report.expect(0, report.call("chdir back", [&] { return chdir("/"); }));
}

}  // namespace

void run_removed(Context& context) {
  if (context.index == 1) {
    for (unsigned n = 0; !context.over(); n++) stand_in_removed(context, n);
    return;
  }
  RemovedArea area(context);
  while (!context.over()) {
    area.step();
    sleep_ms(context.random.below(60));
  }
  area.look_at_all();
}

}  // namespace faults
