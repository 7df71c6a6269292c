// Other processes and other users, for cases that need more than one party.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <vector>

namespace suite {

class Report;

struct User {
  uid_t uid;
  gid_t gid;
  std::vector<gid_t> groups = {};  // supplementary groups
};

// Nobody that a Debian system gives files to by default.
inline const User kAlice{65534, 65534};
inline const User kBob{65533, 65533};

[[nodiscard]] bool is_root();

// Runs `work` in a child with the user's ids and waits for it. Expectations inside count. Needs root.
void as(const User& user, const std::function<void()>& work);

// The same work without privileges: as alice for root, in this process for anybody else.
void unprivileged(const std::function<void()>& work);

// Runs `work` in a child process and waits.
void in_child(const std::function<void()>& work);

// A child that runs at the same time. The destructor waits: a case never leaves one behind. What it says
// joins the transcript when it is waited for, so that the order is the same in every run.
class Process {
 public:
  explicit Process(const std::function<void()>& work);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void wait();  // a death by signal other than `kill`'s is a failure; what a killed one said is dropped
  void kill(int signal);
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  Report* transcript_;
  pid_t pid_;
  bool killed_ = false;
};

// A counter that parent and children share.
class SharedCounter {
 public:
  SharedCounter();
  ~SharedCounter();
  SharedCounter(const SharedCounter&) = delete;
  SharedCounter& operator=(const SharedCounter&) = delete;

  void add(long amount = 1) { value_->fetch_add(amount); }
  [[nodiscard]] long get() const { return value_->load(); }
  void wait_for(long value) const;  // until at least `value`; the case's timeout ends a wait that never does
  // False if the counter stays below `value` for this long: used to see that somebody is (still) blocked.
  [[nodiscard]] bool reaches(long value, int milliseconds) const;

 private:
  std::atomic<long>* value_;
};

}  // namespace suite
