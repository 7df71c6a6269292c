#include "test/conformance/suite/actors.hpp"

#include <grp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <string>

#include "test/conformance/suite/expect.hpp"
#include "test/conformance/suite/report.hpp"

namespace suite {
namespace {

constexpr Site kNoSite{"child", 0, "process"};

void become(const User& user) {
  if (setgroups(user.groups.size(), user.groups.data()) != 0 ||
      setresgid(user.gid, user.gid, user.gid) != 0 || setresuid(user.uid, user.uid, user.uid) != 0) {
    fail(kNoSite, "cannot become user " + std::to_string(user.uid) + ": " + error_name(errno));
    _exit(0);
  }
  // A change of ids clears the dumpable flag, and /proc/self would then belong to root.
  prctl(PR_SET_DUMPABLE, 1);
  set_speaker("[" + std::to_string(user.uid) + "] ");
}

[[noreturn]] void run_and_exit(const std::function<void()>& work) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  work();
  _exit(0);
}

void await(pid_t pid, bool may_be_killed) {
  int status = 0;
  pid_t got;
  do {
    got = waitpid(pid, &status, 0);
  } while (got < 0 && errno == EINTR);
  if (got != pid) return;
  if (WIFSIGNALED(status) && !may_be_killed) {
    fail(kNoSite,
         "died of signal " + std::to_string(WTERMSIG(status)) + " in " + report().call_in_progress());
  }
}

}  // namespace

bool is_root() {
  return geteuid() == 0;
}

void in_child(const std::function<void()>& work) {
  Process child(work);
}

void as(const User& user, const std::function<void()>& work) {
  in_child([&] {
    become(user);
    work();
  });
}

void unprivileged(const std::function<void()>& work) {
  if (is_root()) {
    as(kAlice, work);
  } else {
    work();
  }
}

Process::Process(const std::function<void()>& work) : transcript_(Report::create()), pid_(fork()) {
  if (pid_ == 0) {
    if (transcript_) set_transcript(transcript_);
    run_and_exit(work);
  }
  if (pid_ < 0) fail(kNoSite, "fork: " + error_name(errno));
}

Process::~Process() {
  wait();
}

void Process::wait() {
  if (pid_ > 0) await(pid_, killed_);
  pid_ = -1;
  if (!transcript_) return;
  if (!killed_) {
    for (const std::string& line : transcript_->lines().transcript)
      transcript().append(LineKind::transcript, line);
  }
  Report::destroy(transcript_);
  transcript_ = nullptr;
}

void Process::kill(int signal) {
  killed_ = true;
  ::kill(pid_, signal);
}

SharedCounter::SharedCounter() {
  void* memory = mmap(nullptr, sizeof *value_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  value_ = static_cast<std::atomic<long>*>(memory);
}

SharedCounter::~SharedCounter() {
  munmap(value_, sizeof *value_);
}

void SharedCounter::wait_for(long value) const {
  while (get() < value) usleep(500);
}

bool SharedCounter::reaches(long value, int milliseconds) const {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
  while (get() < value) {
    if (std::chrono::steady_clock::now() > end) return false;
    usleep(500);
  }
  return true;
}

}  // namespace suite
