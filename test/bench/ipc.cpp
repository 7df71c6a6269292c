// Round trips of 64 bytes through the fast path's transport, beside what bounds them: two bare cache-line
// transfers between two cores, and a bare futex ping-pong on one core.
//
//   poly-bench-ipc [--calls N]     one line per case: NAME MEDIAN_NS P99_NS
//
// Client and servers are different processes, as they are in use. Cases: `cross` (client on the second CPU,
// servers where they put themselves), `same` (all on one CPU), `free` (nothing pinned but the servers),
// `hogs` (as free, beside two processes that compute).
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "fastpath/front_driver.hpp"
#include "fastpath/waiting.hpp"
#include "native/fast/servers.hpp"

namespace {

using namespace poly;

size_t calls = 200'000;

class Nothing final : public CallHandler, public ClientHost {
 public:
  int32_t run(AttachedClient&, uint32_t, uint32_t, const WireCall& call, std::string_view, std::string_view,
              std::span<std::byte>, WireAnswer& answer, ServerContext&) override {
    answer.value = call.offset;
    return 0;
  }
  int prove(FastClient&, uint32_t, int, AttachProven&) override { return 0; }
  void arrived(FastClient&, int) override {}
  void stayed_away(uint64_t) override {}
  void returned(FastClient&) override {}
  void ended(FastClient&) override {}
};

[[noreturn]] void die(const char* what) {
  perror(what);
  exit(1);
}

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) die("sched_setaffinity");
}

// A child that runs `body` and dies with us.
pid_t child(const std::function<void()>& body) {
  fflush(stdout);
  pid_t pid = fork();
  if (pid < 0) die("fork");
  if (pid > 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  body();
  fflush(stdout);
  _exit(0);
}

void end(pid_t pid) {
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
}

void report(const char* name, std::vector<uint64_t>& times) {
  std::sort(times.begin(), times.end());
  printf("%s %lu %lu\n", name, static_cast<unsigned long>(times[times.size() / 2]),
         static_cast<unsigned long>(times[times.size() * 99 / 100]));
}

template <typename Operation>
void measure(const char* name, Operation operation) {
  std::vector<uint64_t> times;
  times.reserve(calls);
  for (size_t i = 0; i < calls / 10; i++) operation();
  for (size_t i = 0; i < calls; i++) {
    const uint64_t start = monotonic_now();
    operation();
    times.push_back(monotonic_now() - start);
  }
  report(name, times);
}

struct alignas(64) Line {
  std::atomic<uint32_t> value;
};

template <typename T>
T* shared() {
  void* memory = mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) die("mmap");
  return static_cast<T*>(memory);
}

void bare_lines() {
  struct Lines {
    Line there, back;
  };
  auto* lines = shared<Lines>();
  pid_t peer = child([&] {
    pin(0);
    for (uint32_t n = 1;; n++) {
      while (lines->there.value.load(std::memory_order_acquire) != n) cpu_relax();
      lines->back.value.store(n, std::memory_order_release);
    }
  });
  uint32_t n = 0;
  child([&] {});
  pid_t asker = child([&] {
    pin(1);
    measure("lines", [&] {
      lines->there.value.store(++n, std::memory_order_release);
      while (lines->back.value.load(std::memory_order_acquire) != n) cpu_relax();
    });
  });
  waitpid(asker, nullptr, 0);
  end(peer);
}

void bare_futex() {
  auto* line = shared<Line>();
  pid_t peer = child([&] {
    pin(0);
    for (uint32_t n = 1;; n += 2) {
      while (line->value.load() != n) futex_wait(line->value, n - 1, 0);
      line->value.store(n + 1);
      futex_wake(line->value, 1);
    }
  });
  pid_t asker = child([&] {
    pin(0);
    uint32_t n = 0;
    measure("futex", [&] {
      line->value.store(++n);
      futex_wake(line->value, 1);
      while (line->value.load() != n + 1) futex_wait(line->value, n, 0);
      n++;
    });
  });
  waitpid(asker, nullptr, 0);
  end(peer);
}

void transport(const char* name, const std::string& socket, int client_cpu, int server_cpu) {
  pid_t service = child([&] {
    if (server_cpu >= 0) pin(server_cpu);
    static Nothing nothing;
    static Servers servers(nothing, 8, -1);
    static Clients clients(nothing, servers.placement(), [] { servers.uids_changed(); });
    if (clients.start(socket) != 0) die("attach socket");
    servers.start(clients);
    pause();
  });
  pid_t client = child([&] {
    if (client_cpu >= 0) pin(client_cpu);
    static FrontDriver driver;
    for (int i = 0; driver.attach(socket.c_str()) != 0; i++) {
      if (i == 1000) die("attach");
      usleep(1000);
    }
    measure(name, [&] {
      RequestBuffer* buffer = driver.acquire();
      buffer->call = {};
      if (driver.run(*buffer) != 0) abort();
      driver.release(buffer);
    });
  });
  waitpid(client, nullptr, 0);
  end(service);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && strcmp(argv[1], "--calls") == 0) calls = strtoul(argv[2], nullptr, 10);
  char directory[] = "/tmp/poly-ipc-XXXXXX";
  if (!mkdtemp(directory)) die("mkdtemp");
  const std::string socket = std::string(directory) + "/s";
  bare_lines();
  transport("cross", socket, 1, 0);
  bare_futex();
  transport("same", socket, 0, 0);
  transport("free", socket, -1, -1);
  std::vector<pid_t> hogs;
  for (int i = 0; i < 2; i++)
    hogs.push_back(child([] {
      for (std::atomic<uint64_t> n{0};;) n.fetch_add(1);
    }));
  transport("hogs", socket, -1, -1);
  for (pid_t hog : hogs) end(hog);
  std::filesystem::remove_all(directory);
}
