// Where tests send paths that lead out of a directory: a child process whose root is a temporary directory,
// so that code which does follow them meets nothing of the machine. Needs root; elsewhere such tests are
// skipped.
#pragma once

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/unit/local_rig.hpp"

namespace rig {

// Only the jail's own root may be seen: checked, before anything hostile runs.
inline bool lock_in(const std::string& root) {
  if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return false;
  if (::mkdir((root + "/tmp").c_str(), 0777) != 0 || ::mkdir((root + "/proc").c_str(), 0755) != 0)
    return false;
  if (::mount("proc", (root + "/proc").c_str(), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0)
    return false;
  if (::chroot(root.c_str()) != 0 || ::chdir("/") != 0) return false;
  return ::access("/usr", F_OK) != 0 && ::access("/etc", F_OK) != 0 && ::access("/../usr", F_OK) != 0;
}

inline void in_jail(void (*body)()) {
  const TempDir root;
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (!lock_in(root.path)) ::_exit(77);
    body();
    std::fflush(nullptr);
    ::_exit(check::failures.load() == 0 ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
    std::printf("skipped: no jail without root\n");
    return;
  }
  CHECK_EQ(status, 0);
}

}  // namespace rig
