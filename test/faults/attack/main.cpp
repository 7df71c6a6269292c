// poly-fast-attack: hostile clients of a service's fast path, as many users.
//
//   poly-fast-attack SOCKET MOUNT INSTANCE [--seconds S] [--seed X] [--uids U,U,...] [--spin]
//
// A process for each user sends one attacker after the other, each for a while, and ends or kills it. --spin:
// as many processes do nothing but use their CPU, to compare with. Root only. Exit status: 0; 1 an attacker
// could not do its work; 2 usage.
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "test/faults/attack/attack.hpp"
#include "test/faults/workload/report.hpp"

namespace attack {
namespace {

struct Options {
  Target target;
  double seconds = 5;
  uint64_t seed = faults::now_us();
  std::vector<uid_t> uids{0, 65533, 65532, 65531};
  bool spin = false;
};

bool parse(int argc, char** argv, Options& out) {
  if (argc < 4) return false;
  out.target.socket = argv[1];
  out.target.mount = argv[2];
  out.target.instance = static_cast<uint32_t>(atoi(argv[3]));
  for (int i = 4; i < argc; i++) {
    const std::string word = argv[i];
    if (word == "--spin") {
      out.spin = true;
      continue;
    }
    const char* value = i + 1 < argc ? argv[++i] : nullptr;
    if (!value) return false;
    if (word == "--seconds") {
      out.seconds = atof(value);
    } else if (word == "--seed") {
      out.seed = strtoull(value, nullptr, 0);
    } else if (word == "--uids") {
      out.uids.clear();
      for (char* at = const_cast<char*>(value); *at; at += *at == ',')
        out.uids.push_back(static_cast<uid_t>(strtoul(at, &at, 10)));
    } else {
      return false;
    }
  }
  return true;
}

// The root of a FUSE mount whose server never says a word. For a thread of its own, whose mounts nobody else
// sees.
int silent_root() {
  const int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (fuse < 0 || unshare(CLONE_NEWNS) != 0) return -1;
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return -1;
  char directory[] = "/tmp/poly-silent-XXXXXX";
  if (!mkdtemp(directory)) return -1;
  const std::string options =
      "fd=" + std::to_string(fuse) + ",rootmode=40000,user_id=0,group_id=0,allow_other";
  int root = -1;
  if (mount("silent", directory, "fuse", 0, options.c_str()) == 0) {
    root = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    umount2(directory, MNT_DETACH);
  }
  rmdir(directory);
  return root;
}

void become(uid_t uid) {
  if (uid == 0) return;
  if (setgroups(0, nullptr) != 0 || setgid(uid) != 0 || setuid(uid) != 0) _exit(1);
}

[[noreturn]] void attack_once(const Options& options, Random& random, Tally clients) {
  Random own(random.next());
  switch (own.below(4)) {
    case 0:
      speak_nonsense(options.target, own, clients);
      break;
    case 1:
      crowd(options.target, own, clients);
      break;
    case 2:
      come_and_go(options.target, own, clients);
      break;
    default:
      scribble(options.target, own, clients);
  }
  _exit(0);
}

// For one user, until the time is over.
int send_attackers(const Options& options, size_t index, uint64_t end_us, Tally clients) {
  Random random(options.seed + index);
  become(options.uids[index]);
  bool all_well = true;
  while (faults::now_us() < end_us) {
    const uint64_t lives_us = 1000 + random.below(random.one_in(3) ? 1'000'000 : 50'000);
    const pid_t child = fork();
    if (child == 0) attack_once(options, random, clients);
    (void)random.next();
    usleep(static_cast<useconds_t>(lives_us));
    kill(child, SIGKILL);
    int status = 0;
    if (waitpid(child, &status, 0) != child) return 1;
    // A scribbler may read its own scribbles and trip.
    all_well &= !WIFEXITED(status) || WEXITSTATUS(status) == 0;
  }
  return all_well ? 0 : 1;
}

int spin(uint64_t end_us) {
  while (faults::now_us() < end_us) {
  }
  return 0;
}

int run(Options& options) {
  void* shared = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return 1;
  auto& clients = *new (shared) std::atomic<uint64_t>(0);
  std::thread([&] { options.target.silent_root = silent_root(); }).join();
  if (options.target.silent_root < 0) return 1;
  const uint64_t end_us = faults::now_us() + static_cast<uint64_t>(options.seconds * 1e6);
  for (size_t i = 0; i < options.uids.size(); i++) {
    if (fork() == 0) _exit(options.spin ? spin(end_us) : send_attackers(options, i, end_us, clients));
  }
  int failed = 0, status = 0;
  while (wait(&status) > 0) failed |= status;
  printf("seed %lu, %zu users, %lu clients\n", options.seed, options.uids.size(), clients.load());
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace attack

int main(int argc, char** argv) {
  attack::Options options;
  if (!attack::parse(argc, argv, options)) {
    fprintf(
        stderr,
        "usage: poly-fast-attack SOCKET MOUNT INSTANCE [--seconds S] [--seed X] [--uids U,...] [--spin]\n");
    return 2;
  }
  return attack::run(options);
}
