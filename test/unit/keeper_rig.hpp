// A poly-keeper under test: a real process that may not outlive the test, and a client of it. The program is
// $POLY_KEEPER, or native/poly-keeper in the build tree the test stands in.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "native/core/keeper_client.hpp"
#include "test/unit/check.hpp"

namespace poly {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

inline std::string keeper_program() {
  if (const char* given = std::getenv("POLY_KEEPER")) return given;
  return fs::read_symlink("/proc/self/exe").parent_path() / "../../native/poly-keeper";
}

inline bool wait_until(const std::function<bool()>& condition) {
  for (const auto end = Clock::now() + std::chrono::seconds(10); Clock::now() < end; ::usleep(2000)) {
    if (condition()) return true;
  }
  return condition();
}

inline int exit_status(pid_t pid) {
  int status = 0;
  if (::waitpid(pid, &status, 0) != pid) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// A child never outlives the test program.
inline pid_t fork_child() {
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) _exit(1);
  }
  return pid;
}

// Runs `body` in a child; its result is the child's exit status.
inline pid_t in_child(const std::function<int()>& body) {
  const pid_t pid = fork_child();
  if (pid == 0) _exit(body());
  return pid;
}

inline pid_t spawn_keeper(const std::vector<std::string>& arguments, rlim_t descriptors, bool quiet) {
  const pid_t pid = fork_child();
  if (pid != 0) return pid;
  if (descriptors != 0) {
    const rlimit limit{descriptors / 2, descriptors};
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  if (quiet) ::dup2(::open("/dev/null", O_WRONLY), STDERR_FILENO);
  std::vector<char*> argv;
  const std::string program = keeper_program();
  argv.push_back(const_cast<char*>(program.c_str()));
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  ::execv(program.c_str(), argv.data());
  _exit(127);
}

struct TemporaryDirectory {
  TemporaryDirectory() {
    char name[] = "/tmp/poly-keeper-test.XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    path = name;
  }
  ~TemporaryDirectory() { fs::remove_all(path); }
  std::string path;
};

// A running keeper and a client of it. It must have survived what the test did to it: the end asks.
class Keeper {
 public:
  explicit Keeper(rlim_t descriptors = 0)
      : socket(directory_.path + "/keeper.sock"), table_socket(directory_.path + "/table.sock") {
    REQUIRE(::chmod(directory_.path.c_str(), 0755) == 0);  // mkdtemp(3) makes it 0700
    int ready[2];
    REQUIRE(::pipe(ready) == 0);  // inherited on purpose
    pid = spawn_keeper(
        {"--socket", socket, "--table-socket", table_socket, "--ready-fd", std::to_string(ready[1])},
        descriptors, false);
    ::close(ready[1]);
    char text[6];
    REQUIRE(::read(ready[0], text, sizeof(text)) == 6);
    CHECK_EQ(std::string_view(text, 6), "ready\n");
    CHECK_EQ(::read(ready[0], text, 1), 0);
    ::close(ready[0]);
    REQUIRE(client.connect(socket) == 0);
    // Sanitizers' run-time libraries may open files of their own at first use.
    CHECK_EQ(status().fds, 0);
    baseline = open_fds();
  }
  ~Keeper() {
    if (pid <= 0) return;
    CHECK_EQ(client.clear(""), 0);
    CHECK(wait_until([&] { return status().clients == 1 && open_fds() == baseline; }));
    ::kill(pid, SIGTERM);
    CHECK_EQ(exit_status(pid), 0);
    CHECK(!fs::exists(socket));
    CHECK(!fs::exists(table_socket));
  }

  KeeperStatus status() {
    KeeperStatus status;
    CHECK_EQ(client.ping(status), 0);
    return status;
  }
  // Of the keeper process, its own and its clients' included.
  [[nodiscard]] std::size_t open_fds() const {
    const fs::directory_iterator all("/proc/" + std::to_string(pid) + "/fd");
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
  }

 private:
  TemporaryDirectory directory_;

 public:
  const std::string socket;
  const std::string table_socket;
  pid_t pid = -1;
  KeeperClient client;
  std::size_t baseline = 0;
};

inline Fd new_file() {
  Fd fd(::memfd_create("parked", MFD_CLOEXEC));
  REQUIRE(fd);
  return fd;
}

}  // namespace poly
