#include "native/addon/exec.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <iterator>
#include <map>
#include <vector>

namespace poly {
namespace {

// proc(5): each word ends with a NUL, empty ones too.
std::vector<std::string> own_command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<std::string> words;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\0', at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

void restore_signals() {
  for (const int signal : {SIGPIPE, SIGXFSZ}) ::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &none, nullptr);
}

// Node raises the soft limit to the hard one; the shell that called has what we had.
void restore_descriptor_limit() {
  rlimit own{}, callers{};
  if (getrlimit(RLIMIT_NOFILE, &own) != 0 || prlimit(getppid(), RLIMIT_NOFILE, nullptr, &callers) != 0)
    return;
  if (callers.rlim_cur < own.rlim_cur) {
    own.rlim_cur = callers.rlim_cur;
    setrlimit(RLIMIT_NOFILE, &own);
  }
}

struct OpenFd {
  struct stat st;
  bool closes_on_exec;
};

// By number.
std::map<int, OpenFd> open_fds() {
  std::map<int, OpenFd> fds;
  DIR* directory = opendir("/proc/self/fd");
  if (!directory) return fds;
  while (const dirent* entry = readdir(directory)) {
    char* end = nullptr;
    const int number = static_cast<int>(strtol(entry->d_name, &end, 10));
    OpenFd fd{};
    if (end == entry->d_name || number == dirfd(directory) || fstat(number, &fd.st) != 0) continue;
    fd.closes_on_exec = (fcntl(number, F_GETFD) & FD_CLOEXEC) != 0;
    fds[number] = fd;
  }
  closedir(directory);
  return fds;
}

// Anonymous inodes (epoll, eventfd) have no file type at all.
bool is_anonymous(const OpenFd& fd) {
  return (fd.st.st_mode & S_IFMT) == 0;
}

// libuv sets close-on-exec on the low descriptors that it finds at its start. Node opens an epoll first, so
// what is below that was inherited. Above, Node's own are anonymous inodes, and pipes to itself: both ends
// are here.
void restore_inheritance() {
  const std::map<int, OpenFd> fds = open_fds();
  std::map<ino_t, int> ends;
  bool inherited = true;
  for (const auto& [number, fd] : fds) ends[fd.st.st_ino]++;
  for (const auto& [number, fd] : fds) {
    inherited = inherited && !is_anonymous(fd);
    const bool nodes = is_anonymous(fd) || (S_ISFIFO(fd.st.st_mode) && ends[fd.st.st_ino] > 1);
    if (fd.closes_on_exec && (inherited || !nodes)) fcntl(number, F_SETFD, 0);
  }
}

}  // namespace

int exec_last_words(std::size_t count, std::span<const std::pair<std::string, std::string>> variables) {
  std::vector<std::string> words = own_command_line();
  if (count == 0 || count > words.size()) return -EINVAL;
  std::vector<char*> arguments;
  for (auto word = words.end() - static_cast<ptrdiff_t>(count); word != words.end(); ++word)
    arguments.push_back(word->data());
  arguments.push_back(nullptr);
  for (const auto& [name, value] : variables) {
    if (setenv(name.c_str(), value.c_str(), 1) != 0) return -errno;
  }
  restore_signals();
  restore_descriptor_limit();
  restore_inheritance();
  execvp(arguments[0], arguments.data());
  return -errno;
}

}  // namespace poly
