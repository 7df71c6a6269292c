#include "test/fast/mixed/worker.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "test/fast/mixed/perform.hpp"

namespace mixed {
namespace {

constexpr int kPatienceMs = 30'000;

[[noreturn]] void become(const std::vector<std::string>& words, int socket) {
  if (dup2(socket, 0) != 0) _exit(127);
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
  _exit(127);
}

}  // namespace

Worker::Worker(std::vector<std::string> words, const std::string& root) {
  int ends[2];
  char self[4096];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
  if (length <= 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    perror("worker");
    exit(2);
  }
  words.insert(words.end(), {std::string(self, static_cast<size_t>(length)), "--worker", root});
  pid_ = fork();
  if (pid_ == 0) become(words, ends[1]);
  close(ends[1]);
  socket_ = ends[0];
}

// One that waits for a mount that does not answer stays; whoever started us looks after it.
Worker::~Worker() {
  close(socket_);
  for (int i = 0; i < 200 && waitpid(pid_, nullptr, WNOHANG) == 0; ++i) usleep(10'000);
}

bool Worker::ask(const Request& request, Result& out) {
  if (send(socket_, &request, sizeof request, MSG_NOSIGNAL) != sizeof request) return false;
  pollfd ready{socket_, POLLIN, 0};
  return poll(&ready, 1, kPatienceMs) == 1 && recv(socket_, &out, sizeof out, 0) == sizeof out;
}

int serve(const char* root) {
  if (chdir(root) != 0) {
    perror(root);
    return 2;
  }
  umask(022);
  signal(SIGXFSZ, SIG_IGN);
  Performer performer(root);
  Request request;
  while (recv(0, &request, sizeof request, 0) == sizeof request) {
    const Result result = performer.perform(request);
    if (send(0, &result, sizeof result, MSG_NOSIGNAL) != sizeof result) return 1;
  }
  return 0;
}

}  // namespace mixed
