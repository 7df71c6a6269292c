// poly-keeper: holds named file descriptors while polyd and services come and go. See protocol.hpp.
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>

#include "fastpath/unix_socket.hpp"
#include "native/keeper/keeper.hpp"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83  // Linux 6.16
#endif

namespace {

using poly::Fd;

constexpr int kExitUsage = 1;
constexpr int kExitSystem = 2;

struct Options {
  std::string socket;
  std::string table_socket;
  int ready_fd = -1;
};

bool parse(int argc, char** argv, Options& options) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const std::string_view value = argv[i + 1];
    if (name == "--socket") {
      options.socket = value;
    } else if (name == "--table-socket") {
      options.table_socket = value;
    } else if (name == "--ready-fd") {
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), options.ready_fd);
      if (error != std::errc{} || end != value.data() + value.size() || options.ready_fd < 0) return false;
    } else {
      return false;
    }
  }
  return argc % 2 == 1 && !options.socket.empty();
}

// What a caller left open would stay open for as long as the keeper lives.
void close_inherited(int except) {
  const unsigned first = STDERR_FILENO + 1;
  if (except < static_cast<int>(first)) {
    ::close_range(first, ~0U, 0);
    return;
  }
  const auto kept = static_cast<unsigned>(except);
  if (kept > first) ::close_range(first, kept - 1, 0);
  ::close_range(kept + 1, ~0U, 0);
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// Needs CAP_SYS_RESOURCE; without it the keeper is as likely to be chosen as any other process of its size.
void shun_oom_killer() {
  const Fd file(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  if (file && ::write(file.get(), "-900", 4) != 4) return;
}

// SIGTERM is delivered by descriptor; a terminal's or a parent's end is not the keeper's.
int prepare_signals(Fd& stop) {
  ::signal(SIGHUP, SIG_IGN);
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  if (::sigprocmask(SIG_SETMASK, &set, nullptr) != 0) return -errno;
  Fd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return -errno;
  stop = std::move(fd);
  return 0;
}

std::string absolute(const std::string& path) {
  std::error_code error;
  return path.empty() ? path : std::filesystem::absolute(path, error).string();
}

// The socket that hands out the mount table, to whoever can reach it: the directory it stands in decides.
int listen_to_strangers(const std::string& path, Fd& out) {
  if (path.empty()) return 0;
  if (int rc = poly::listen_unix(path, SOCK_SEQPACKET | SOCK_NONBLOCK, 0666, out); rc < 0) return rc;
  // Nobody may leave descriptors with us that we would have to close: Linux 6.16, inherited by what is
  // accepted.
  const int no = 0;
  (void)::setsockopt(out.get(), SOL_SOCKET, SO_PASSRIGHTS, &no, sizeof(no));
  return 0;
}

int fail(std::string_view what, int rc) {
  std::fprintf(stderr, "poly-keeper: %.*s: %s\n", static_cast<int>(what.size()), what.data(),
               std::strerror(-rc));
  return kExitSystem;
}

void report_ready(int fd) {
  if (fd < 0) return;
  const Fd ready(fd);
  if (::write(ready.get(), "ready\n", 6) != 6) return;  // who asked is gone: nothing to do about it
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!parse(argc, argv, options)) {
    std::fprintf(stderr, "usage: poly-keeper --socket PATH [--table-socket PATH] [--ready-fd N]\n");
    return kExitUsage;
  }
  close_inherited(options.ready_fd);
  ::prctl(PR_SET_NAME, "poly-keeper");
  ::setsid();  // fails for a group leader, which the terminal's signals then still reach
  raise_descriptor_limit();
  shun_oom_killer();
  const std::string path = absolute(options.socket);
  const std::string table_path = absolute(options.table_socket);
  Fd stop;
  Fd listener;
  Fd strangers;
  if (int rc = prepare_signals(stop); rc < 0) return fail("signals", rc);
  if (int rc = poly::listen_unix(path, SOCK_SEQPACKET | SOCK_NONBLOCK, 0600, listener); rc < 0) {
    return fail(options.socket, rc);
  }
  if (int rc = listen_to_strangers(table_path, strangers); rc < 0) {
    ::unlink(path.c_str());
    return fail(options.table_socket, rc);
  }
  if (::chdir("/") != 0) return fail("/", -errno);  // pins no mount
  poly::keeper::Keeper keeper(std::move(listener), std::move(strangers), std::move(stop));
  report_ready(options.ready_fd);
  const int rc = keeper.run();
  ::unlink(path.c_str());
  if (!table_path.empty()) ::unlink(table_path.c_str());
  const int status = rc < 0 ? fail("event loop", rc) : 0;
  std::fflush(nullptr);
  ::_exit(status);  // the kernel closes the rest; closing it here might wait for a stranger
}
