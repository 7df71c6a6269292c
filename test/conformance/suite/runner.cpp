#include "test/conformance/suite/runner.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "test/conformance/suite/actors.hpp"
#include "test/conformance/suite/expect.hpp"
#include "test/conformance/suite/files.hpp"

namespace suite {
namespace {

constexpr double kKillSeconds = 3;  // a killed process that needs longer is stuck in the kernel
constexpr double kCleanupSeconds = 20;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// A case that can never be killed must not hold the runner's output open: whoever reads it would wait for
// ever.
void let_go_of_output() {
  const int null = open("/dev/null", O_RDWR);
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(null, fd);
  if (null > STDERR_FILENO) close(null);
}

// A child in a process group of its own.
class Job {
 public:
  explicit Job(const std::function<void()>& work) : pid_(fork()) {
    if (pid_ == 0) {
      setpgid(0, 0);
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      let_go_of_output();
      work();
      _exit(0);
    }
    if (pid_ < 0) return;
    setpgid(pid_, pid_);  // both sides set it: neither can be too late
    pidfd_ = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
  }
  ~Job() {
    if (pidfd_ >= 0) close(pidfd_);
  }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  // True when it has ended; its wait status is then in status().
  bool wait(double seconds) {
    if (pid_ < 0) return true;
    pollfd wanted{pidfd_, POLLIN, 0};
    const double end = now() + seconds;
    do {
      const double left = end - now();
      if (poll(&wanted, 1, left > 0 ? static_cast<int>(left * 1000) + 1 : 0) > 0) {
        waitpid(pid_, &status_, 0);
        return true;
      }
    } while (now() < end);
    return false;
  }

  void kill_group() const {
    if (pid_ > 0) kill(-pid_, SIGKILL);
  }
  [[nodiscard]] int status() const { return pid_ < 0 ? -1 : status_; }

 private:
  pid_t pid_;
  int pidfd_ = -1;
  int status_ = 0;
};

// By descriptor, so that no path gets too long; opens up directories that a case closed to their owner.
bool remove_tree(int parent, const char* name) {
  if (unlinkat(parent, name, 0) == 0) return true;
  if (errno != EISDIR && errno != EPERM && errno != EACCES) return false;
  fchmodat(parent, name, 0700, 0);
  const Fd fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  DIR* dir = fd < 0 ? nullptr : fdopendir(dup(fd));
  if (!dir) return false;
  bool clean = true;
  while (const dirent* entry = readdir(dir)) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    clean = remove_tree(fd, entry->d_name) && clean;
  }
  closedir(dir);
  return unlinkat(parent, name, AT_REMOVEDIR) == 0 && clean;
}

bool fresh_directory(const std::string& path) {
  if (mkdir(path.c_str(), 0755) != 0 && errno == EEXIST) {
    remove_tree(AT_FDCWD, path.c_str());
    errno = 0;
    if (mkdir(path.c_str(), 0755) != 0) return false;
  }
  return chdir(path.c_str()) == 0;
}

// The child's side of a trial.
void perform(const Case& test, const std::string& path) {
  umask(022);
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  report().begin_call("making the case's directory");
  if (!fresh_directory(path)) {
    report().append(LineKind::failure, "cannot make the case's directory " + path + ": " + error_name(errno));
  } else {
    test.run();
  }
  report().finish();
}

std::string text_of_limit(const Case& test, double patience) {
  return std::to_string(static_cast<int>(test.options.seconds * patience)) + " s";
}

// Waits for the case; says in the report how it ended when it did not end by itself.
bool supervise(Job& job, Report& report, const Case& test, double patience) {
  if (job.wait(test.options.seconds * patience)) {
    job.kill_group();  // whatever it left behind
    const int status = job.status();
    if (!report.finished() && WIFSIGNALED(status)) {
      report.append(LineKind::failure, "died of signal " + std::to_string(WTERMSIG(status)) + " in " +
                                           report.call_in_progress());
    } else if (!report.finished()) {
      report.append(LineKind::failure, "exited early in " + report.call_in_progress());
    }
    return true;
  }
  const std::string call = report.call_in_progress();
  job.kill_group();
  const bool ended = job.wait(kKillSeconds);
  report.append(LineKind::failure,
                "timed out after " + text_of_limit(test, patience) + " in " + call +
                    (ended ? "" : " (and cannot be killed: the filesystem does not answer)"));
  return ended;
}

// First line that differs, told with both sides.
std::string difference(const std::vector<std::string>& target, const std::vector<std::string>& reference) {
  const std::string nothing = "(nothing)";
  for (std::size_t i = 0; i < target.size() || i < reference.size(); ++i) {
    const std::string& ours = i < target.size() ? target[i] : nothing;
    const std::string& theirs = i < reference.size() ? reference[i] : nothing;
    if (ours != theirs) return "differs from the reference: `" + ours + "` there: `" + theirs + "`";
  }
  return "";
}

void compare(Verdict& verdict, const Trial& target, const Trial& reference) {
  const std::string line = difference(target.lines.transcript, reference.lines.transcript);
  for (const std::string& reason : reference.lines.failures)
    verdict.reasons.push_back("on the reference: " + reason);
  if (!line.empty() && !target.lines.skip_is_optional) verdict.reasons.push_back(line);
}

}  // namespace

bool run_bounded(const std::function<bool()>& work, double seconds) {
  Job job([&] { _exit(work() ? 0 : 1); });
  if (job.wait(seconds)) return WIFEXITED(job.status()) && WEXITSTATUS(job.status()) == 0;
  job.kill_group();
  (void)job.wait(kKillSeconds);
  return false;
}

Trial run_trial(const Case& test, const std::string& directory, double patience) {
  Trial trial;
  Report* memory = Report::create();
  if (!memory) {
    trial.lines.failures.push_back("no memory for a report");
    return trial;
  }
  const std::string path = directory + "/" + test.area + "." + test.name;
  const double start = now();
  set_report(memory);
  {
    Job job([&] { perform(test, path); });
    trial.stuck = !supervise(job, *memory, test, patience);
  }
  trial.seconds = now() - start;
  trial.lines = memory->lines();
  if (!trial.stuck) {
    const bool clean = run_bounded([&] { return remove_tree(AT_FDCWD, path.c_str()); }, kCleanupSeconds);
    if (!clean) trial.lines.failures.push_back("cannot remove what the case left in " + path);
    Report::destroy(memory);  // kept when stuck: that process may wake up and write to it
  }
  return trial;
}

Verdict run_case(const Case& test, const Place& place) {
  Verdict verdict;
  const Trial target = run_trial(test, place.target, place.patience);
  verdict.seconds = target.seconds;
  verdict.transcript = target.lines.transcript;
  verdict.reasons = target.lines.failures;
  verdict.stuck = target.stuck;
  const bool target_skips = !target.lines.skip.empty();
  if (target_skips && target.lines.skip_is_optional && verdict.reasons.empty()) {
    verdict.status = Status::skipped;
    verdict.reasons = {target.lines.skip};
    return verdict;
  }
  const Trial reference = run_trial(test, place.reference, place.patience);
  const bool reference_skips = !reference.lines.skip.empty();
  if (reference_skips && verdict.reasons.empty()) {
    verdict.status = Status::skipped;
    verdict.reasons = {reference.lines.skip + " (reference)"};
    return verdict;
  }
  if (target_skips && !reference_skips) {
    verdict.reasons.push_back("the target lacks what the reference has: " + target.lines.skip);
  }
  compare(verdict, target, reference);
  if (!verdict.reasons.empty()) verdict.status = Status::failed;
  return verdict;
}

}  // namespace suite
