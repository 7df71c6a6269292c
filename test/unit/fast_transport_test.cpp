// The fast path's transport without a filesystem: front drivers of other processes, the attach socket,
// queues, servers; the handler answers with what the call says. Every mix of processes, threads and deaths
// must end with each call run once and every answer in the buffer that asked.
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <chrono>
#include <thread>

#include "fastpath/attach_socket.hpp"
#include "fastpath/front_driver.hpp"
#include "fastpath/unix_socket.hpp"
#include "fastpath/waiting.hpp"
#include "native/fast/servers.hpp"
#include "test/unit/check.hpp"
#include "test/unit/local_rig.hpp"

namespace poly {
namespace {

using namespace std::chrono_literals;

// Answers offset + size and the path reversed into the data.
class Echo final : public CallHandler, public ClientHost {
 public:
  int32_t run(AttachedClient&, uint32_t, uint32_t, const WireCall& call, std::string_view path,
              std::string_view path2, std::span<std::byte> data, WireAnswer& answer,
              ServerContext&) override {
    runs++;
    if (call.flags && !call.resent) std::this_thread::sleep_for(std::chrono::milliseconds(call.flags));
    answer.value = call.offset + call.size;
    std::string text = std::string(path2) + std::string(path);
    std::memcpy(data.data(), text.data(), text.size());
    return static_cast<int32_t>(call.mode);
  }
  bool ready() override { return is_ready; }
  int prove(FastClient&, uint32_t instance, int, AttachProven&) override {
    return instance == 7 ? 0 : -ENOENT;
  }
  void arrived(FastClient&, int) override {}
  void stayed_away(uint64_t) override {}
  void returned(FastClient&) override { returns++; }
  void ended(FastClient&) override { ends++; }

  std::atomic<uint64_t> runs{0}, returns{0}, ends{0};
  std::atomic<bool> is_ready{true};
};

// A service's life: everything but the socket's path ends with it.
struct Life {
  explicit Life(const std::string& socket, int poll_cpu = -1, bool is_ready = true)
      : servers(echo, 8, poll_cpu), clients(echo, servers.placement(), [this] { servers.uids_changed(); }) {
    echo.is_ready = is_ready;
    REQUIRE(clients.start(socket) == 0);
    servers.start(clients);
  }
  ~Life() {
    clients.stop();
    CHECK(servers.stop());
  }

  Echo echo;
  Servers servers;
  Clients clients;
};

struct Rig {
  Rig() : socket(temp.path + "/attach.sock"), life(std::make_unique<Life>(socket)) {
    REQUIRE(chmod(temp.path.c_str(), 0711) == 0);  // clients of other uids
  }

  rig::TempDir temp;
  const std::string socket;
  std::unique_ptr<Life> life;
};

// One call that says who it is; false when the answer is another's.
bool call_once(FrontDriver& driver, uint64_t number, uint32_t delay_ms = 0) {
  RequestBuffer* buffer = driver.acquire();
  if (!buffer) return false;
  buffer->call = {};
  buffer->call.offset = number << 20;
  buffer->call.size = number;
  buffer->call.mode = static_cast<uint32_t>(number & 0x7fff);
  buffer->call.flags = delay_ms;
  buffer->call.path_size = 3;
  buffer->call.path2_size = 8;
  std::memcpy(buffer->paths, "abc", 3);
  std::memcpy(buffer->paths + 3, &number, 8);
  int32_t result = driver.run(*buffer);
  uint64_t back;
  std::memcpy(&back, buffer->data, 8);
  bool right = result == static_cast<int32_t>(number & 0x7fff) && back == number &&
               buffer->answer.value == (number << 20) + number &&
               std::memcmp(buffer->data + 8, "abc", 3) == 0;
  driver.release(buffer);
  return right;
}

// A child process that attaches and runs `body`; its exit status. `stopped`: it stops itself before that.
template <typename Body>
pid_t start_client(const Rig& rig, Body body, bool stopped = false) {
  pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid != 0) return pid;
  REQUIRE(close_range(3, ~0u, 0) == 0);  // the service's sockets are not ours
  if (stopped) (void)raise(SIGSTOP);
  static FrontDriver driver;
  if (driver.attach(rig.socket.c_str()) != 0) _exit(99);
  _exit(body(driver));
}

// body(1..count), each in a thread of its own; one after the other under ThreadSanitizer, which cannot have
// threads in forked children.
template <typename Body>
void in_threads(uint64_t count, Body body) {
#if defined(__SANITIZE_THREAD__)
  for (uint64_t t = 1; t <= count; t++) body(t);
#else
  std::vector<std::thread> threads;
  for (uint64_t t = 1; t <= count; t++) threads.emplace_back([=] { body(t); });
  for (auto& thread : threads) thread.join();
#endif
}

int wait_for(pid_t pid) {
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

template <typename Condition>
bool soon(Condition condition) {
  for (int i = 0; i < 500; i++) {
    if (condition()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
}

TEST(calls_come_back_to_who_asked) {
  Rig rig;
  constexpr uint64_t kCalls = 20'000;
  pid_t pid = start_client(rig, [](FrontDriver& driver) {
    for (uint64_t i = 1; i <= kCalls; i++)
      if (!call_once(driver, i)) return 1;
    return 0;
  });
  CHECK_EQ(wait_for(pid), 0);
  CHECK_EQ(rig.life->echo.runs.load(), kCalls);
  CHECK(soon([&] { return rig.life->echo.ends.load() == 1; }));
  CHECK(rig.life->clients.all().empty());
}

// The monitor that lets threads help out is there before the first of them is.
TEST(servers_wait_to_be_started) {
  Echo echo;
  Servers servers(echo, 8, -1);
  std::this_thread::sleep_for(50ms);
  CHECK_EQ(servers.threads(), 0u);
  CHECK(servers.stop());
}

// CPU time of this process, whose threads the servers are, in `time`.
std::chrono::nanoseconds cpu_time_in(std::chrono::milliseconds time) {
  auto used = [] {
    timespec now;
    REQUIRE(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) == 0);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
  };
  const auto before = used();
  std::this_thread::sleep_for(time);
  return used() - before;
}

TEST(a_server_polls_while_there_are_clients) {
  Rig rig;
  cpu_set_t allowed;
  REQUIRE(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  int cpu = CPU_SETSIZE - 1;
  while (!CPU_ISSET(cpu, &allowed)) cpu--;
  rig.life.reset();
  rig.life = std::make_unique<Life>(rig.socket, cpu);
  CHECK(cpu_time_in(100ms) < 20ms);
  pid_t pid = start_client(rig, [](FrontDriver& driver) {
    for (uint64_t i = 1; i <= 1000; i++)
      if (!call_once(driver, i)) return 1;
    sleep(1);
    return call_once(driver, 1001) ? 0 : 2;
  });
  CHECK(soon([&] { return rig.life->echo.runs.load() == 1000; }));
  CHECK(cpu_time_in(500ms) > 40ms);  // all of one CPU, as far as others let it
  CHECK_EQ(wait_for(pid), 0);
  CHECK(soon([&] { return rig.life->clients.all().empty(); }));
  CHECK(cpu_time_in(100ms) < 20ms);
}

TEST(many_processes_and_threads) {
  Rig rig;
  constexpr int kProcesses = 6, kThreads = 4;
  constexpr uint64_t kCalls = 2000;
  std::vector<pid_t> pids;
  for (uint64_t p = 0; p < kProcesses; p++) {
    pids.push_back(start_client(rig, [p](FrontDriver& driver) {
      std::atomic<int> wrong{0};
      in_threads(kThreads, [&](uint64_t t) {
        for (uint64_t i = 0; i < kCalls; i++) wrong += !call_once(driver, p << 40 | t << 32 | (i + 1));
      });
      return wrong.load() ? 1 : 0;
    }));
  }
  for (pid_t pid : pids) CHECK_EQ(wait_for(pid), 0);
  CHECK_EQ(rig.life->echo.runs.load(), kProcesses * kThreads * kCalls);
}

// More slow calls at once than there are primaries: helpers take them, and quick ones are not held up.
TEST(slow_calls_do_not_stop_quick_ones) {
  Rig rig;
  pid_t slow = start_client(rig, [](FrontDriver& driver) {
    in_threads(4, [&](uint64_t t) { (void)call_once(driver, t, 1500); });
    return 0;
  });
  std::this_thread::sleep_for(100ms);
  pid_t quick = start_client(rig, [](FrontDriver& driver) {
    auto start = std::chrono::steady_clock::now();
    for (uint64_t i = 1; i <= 100; i++)
      if (!call_once(driver, i)) return 1;
    return std::chrono::steady_clock::now() - start < 700ms ? 0 : 2;
  });
  CHECK_EQ(wait_for(quick), 0);
  CHECK_EQ(wait_for(slow), 0);
}

// Killed at random in the middle of calls: the others go on, nothing is left.
TEST(killed_clients_leave_nothing) {
  Rig rig;
  pid_t steady = start_client(rig, [](FrontDriver& driver) {
    auto end = std::chrono::steady_clock::now() + 4s;
    for (uint64_t i = 1; std::chrono::steady_clock::now() < end; i++)
      if (!call_once(driver, i)) return 1;
    return 0;
  });
  auto& random = check::random();
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  constexpr int kKills = 40;
#else
  constexpr int kKills = 150;
#endif
  for (int i = 0; i < kKills; i++) {
    pid_t pid = start_client(rig, [](FrontDriver& driver) {
      in_threads(2, [&](uint64_t t) {
        for (uint64_t n = 1;; n++)
          if (!call_once(driver, t << 32 | n)) _exit(1);
      });
      return 0;
    });
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 20'000));
    kill(pid, SIGKILL);
    CHECK_EQ(wait_for(pid), 1000 + SIGKILL);
  }
  CHECK_EQ(wait_for(steady), 0);
  CHECK(soon([&] { return rig.life->clients.all().empty(); }));
}

// The service's successor is found by a client in the middle of its calls; each answer is still its own.
TEST(a_successor_is_found) {
  Rig rig;
  pid_t pid = start_client(rig, [](FrontDriver& driver) {
    std::atomic<int> wrong{0};
    in_threads(3, [&](uint64_t t) {
      auto end = std::chrono::steady_clock::now() + 2s;
      for (uint64_t i = 1; std::chrono::steady_clock::now() < end; i++)
        wrong += !call_once(driver, t << 32 | i);
    });
    return wrong.load() ? 1 : 0;
  });
  for (int i = 0; i < 3; i++) {
    std::this_thread::sleep_for(400ms);
    CHECK(rig.life->echo.runs.load() > 0);
    rig.life.reset();  // its sockets close: to the client this is a death
    rig.life = std::make_unique<Life>(rig.socket);
    CHECK(soon([&] { return rig.life->echo.returns.load() == 1; }));
  }
  CHECK_EQ(wait_for(pid), 0);
}

// A service killed in the middle of a call: a thread that has others of its own to run finds the successor,
// and the one whose call was taken asks there again.
#if !defined(__SANITIZE_THREAD__)
TEST(a_call_in_the_hands_of_the_dead_is_asked_again) {
  rig::TempDir temp;
  const std::string socket = temp.path + "/attach.sock";
  auto start_service = [&] {
    const pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid != 0) return pid;
    auto life = std::make_unique<Life>(socket);
    for (;;) pause();
  };
  pid_t service = start_service();
  auto driver = std::make_unique<FrontDriver>();
  REQUIRE(soon([&] { return driver->attach(socket.c_str()) == 0; }));
  std::atomic<bool> answered{false}, over{false};
  std::thread held_up([&] {
    CHECK(call_once(*driver, 1, 60'000));
    answered = true;
  });
  std::thread busy([&] {
    for (uint64_t i = 2; !over; i++) CHECK(call_once(*driver, i));
  });
  std::this_thread::sleep_for(100ms);
  REQUIRE(kill(service, SIGKILL) == 0);
  CHECK_EQ(wait_for(service), 1000 + SIGKILL);
  service = start_service();
  CHECK(soon([&] { return answered.load(); }));
  over = true;
  busy.join();
  if (!answered) _exit(1);  // it waits for ever
  held_up.join();
  REQUIRE(kill(service, SIGKILL) == 0);
  CHECK_EQ(wait_for(service), 1000 + SIGKILL);
}
#endif

// A service that has not yet taken up what its predecessor served is no successor: the call waits.
TEST(a_successor_that_is_not_ready_is_waited_for) {
  Rig rig;
  pid_t pid = start_client(rig, [](FrontDriver& driver) {
    auto end = std::chrono::steady_clock::now() + 1500ms;
    for (uint64_t i = 1; std::chrono::steady_clock::now() < end; i++)
      if (!call_once(driver, i)) return 1;
    return 0;
  });
  REQUIRE(soon([&] { return rig.life->echo.runs.load() > 0; }));
  rig.life.reset();
  rig.life = std::make_unique<Life>(rig.socket, -1, false);
  std::this_thread::sleep_for(300ms);
  CHECK_EQ(rig.life->echo.returns.load(), 0u);
  rig.life->echo.is_ready = true;
  CHECK(soon([&] { return rig.life->echo.returns.load() == 1; }));
  CHECK_EQ(wait_for(pid), 0);
}

TEST(strangers_are_refused_and_harm_nobody) {
  Rig rig;
  int none;
  auto say = [&](const void* message, size_t size, int fd) {
    AttachWelcome welcome{};
    int socket = connect_attach(rig.socket.c_str());
    REQUIRE(socket >= 0);
    int err = exchange(socket, message, size, fd, &welcome, sizeof welcome, none);
    close(socket);
    if (none >= 0) close(none);
    return err ? err : welcome.result;
  };
  Fd memory(memfd_create("m", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  REQUIRE(ftruncate(memory.get(), sizeof(RequestBuffer)) == 0);
  AttachHello hello{kWireMagic, kWireAbi, AttachKind::kHello, 1, 0};
  CHECK_EQ(say(&hello, sizeof hello, memory.get()), -EINVAL);  // not sealed: it could shrink
  REQUIRE(fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
  CHECK_EQ(say(&hello, sizeof hello, memory.get()), 0);
  CHECK_EQ(say(&hello, sizeof hello, -1), -EINVAL);
  hello.buffers = 2;
  CHECK_EQ(say(&hello, sizeof hello, memory.get()), -EINVAL);
  hello.buffers = 0;
  CHECK_EQ(say(&hello, sizeof hello, memory.get()), -EINVAL);
  hello.buffers = 1;
  hello.abi++;
  CHECK_EQ(say(&hello, sizeof hello, memory.get()), -EPROTO);
  hello.abi--;
  CHECK_EQ(say("x", 1, memory.get()), -ECONNRESET);
  AttachProve prove{kWireMagic, kWireAbi, AttachKind::kProve, 7};
  CHECK_EQ(say(&prove, sizeof prove, memory.get()), -ECONNRESET);
  pid_t pid = start_client(rig, [](FrontDriver& driver) { return call_once(driver, 1) ? 0 : 1; });
  CHECK_EQ(wait_for(pid), 0);
}

// A descriptor whose close(2) takes as long as its maker likes: a TCP socket that lingers over data which
// nobody takes. The other end, in `peer`, keeps it waiting.
Fd lingering(Fd& peer) {
  Fd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)),
      fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* at = reinterpret_cast<sockaddr*>(&address);
  REQUIRE(bind(listener.get(), at, size) == 0 && listen(listener.get(), 1) == 0);
  REQUIRE(getsockname(listener.get(), at, &size) == 0 && connect(fd.get(), at, size) == 0);
  peer.reset(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  REQUIRE(peer);
  const std::string data(1 << 20, 'x');
  while (send(fd.get(), data.data(), data.size(), MSG_DONTWAIT) > 0) {
  }
  linger patience{1, 3};
  REQUIRE(setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &patience, sizeof patience) == 0);
  return fd;
}

// Whatever it is that a stranger sends, and however he leaves it: others are attached meanwhile.
TEST(descriptors_that_do_not_close_hold_nobody_up) {
  Rig rig;
  // Forked now: it must not come to hold what the service has received, and close that.
  pid_t pid = start_client(
      rig, [](FrontDriver& driver) { return call_once(driver, 1) ? 0 : 1; }, true);
  REQUIRE(waitpid(pid, nullptr, WUNTRACED) == pid);
  AttachHello hello{kWireMagic, kWireAbi, AttachKind::kHello, 1, 0};
  std::vector<Fd> peers(4);
  for (size_t i = 0; i < peers.size(); i++) {
    const Fd socket(connect_attach(rig.socket.c_str()));
    REQUIRE(socket);
    const Fd slow = lingering(peers[i]);
    const int fd = slow.get();
    if (i == 3) hello.kind = AttachKind{99};
    // The second is never received: the first has ended the connection. The third is alone, but too long.
    for (int messages = i == 1 ? 2 : 1; messages > 0; messages--) {
      std::byte text[sizeof hello + 8]{};
      std::memcpy(text, &hello, sizeof hello);
      (void)send_with_fds(socket.get(), {text, sizeof hello + (i == 2 ? 8 : 0)}, {&fd, 1}, 0);
    }
  }
  const auto start = std::chrono::steady_clock::now();
  REQUIRE(kill(pid, SIGCONT) == 0);
  CHECK_EQ(wait_for(pid), 0);
  CHECK(std::chrono::steady_clock::now() - start < 2s);
}

// Connections that say nothing take up the room of their own uid only.
TEST(the_silent_keep_out_no_other_user) {
  if (geteuid() != 0) return;
  rlimit limit{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  limit.rlim_cur = limit.rlim_max;
  REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  if (limit.rlim_cur < 3 * Clients::kMaxClients) return;
  Rig rig;
  pid_t silent = fork();
  REQUIRE(silent >= 0);
  if (silent == 0) {
    REQUIRE(close_range(3, ~0u, 0) == 0);
    if (setgid(65533) != 0 || setuid(65533) != 0) _exit(98);
    for (uint32_t i = 0; i < Clients::kMaxClients; i++) {
      if (connect_attach(rig.socket.c_str()) < 0) _exit(99);
    }
    static FrontDriver driver;
    _exit(driver.attach(rig.socket.c_str()) != 0 ? 0 : 1);
  }
  CHECK_EQ(wait_for(silent), 0);
  silent = fork();
  REQUIRE(silent >= 0);
  if (silent == 0) {
    REQUIRE(close_range(3, ~0u, 0) == 0);
    if (setgid(65533) != 0 || setuid(65533) != 0) _exit(98);
    for (uint32_t i = 0; i < Clients::kMaxClients; i++) {
      if (connect_attach(rig.socket.c_str()) < 0) _exit(99);
    }
    pause();
  }
  std::this_thread::sleep_for(1s);
  pid_t pid = start_client(rig, [](FrontDriver& driver) { return call_once(driver, 1) ? 0 : 1; });
  CHECK_EQ(wait_for(pid), 0);
  kill(silent, SIGKILL);
  CHECK_EQ(wait_for(silent), 1000 + SIGKILL);
}

// One scribbles over everything it can write to, its queues included; the client of another uid gets right
// answers, and soon.
TEST(scribbled_memory_harms_nobody_else) {
  if (geteuid() != 0) return;
  Rig rig;
  pid_t scribbler = start_client(rig, [](FrontDriver& driver) {
    std::mt19937_64 random(check::seed());
    auto* buffer = reinterpret_cast<uint64_t*>(driver.acquire());
    auto* queues = reinterpret_cast<uint64_t*>(&driver.queues()->layout());
    const size_t words = driver.queues()->size() / 8;
    auto end = std::chrono::steady_clock::now() + 3s;
    while (std::chrono::steady_clock::now() < end) {
      for (int i = 0; i < 16; i++) buffer[random() % (16384 / 8)] = random();
      for (int i = 0; i < 16; i++) queues[random() % words] = random();
      for (uint32_t i = 0; i < 4; i++) futex_wake(driver.queues()->layout().bells[i].word, 1);
    }
    return 0;
  });
  pid_t victim = fork();
  REQUIRE(victim >= 0);
  if (victim == 0) {
    REQUIRE(close_range(3, ~0u, 0) == 0);
    static FrontDriver driver;
    if (setgid(65533) != 0 || setuid(65533) != 0) _exit(98);
    if (int err = driver.attach(rig.socket.c_str())) _exit(100 - err);
    auto end = std::chrono::steady_clock::now() + 3s;
    uint64_t calls = 0, slow = 0;
    while (std::chrono::steady_clock::now() < end) {
      auto start = std::chrono::steady_clock::now();
      if (!call_once(driver, ++calls)) _exit(1);
      slow += std::chrono::steady_clock::now() - start > 100ms;
    }
    _exit(calls < 1000 ? 2 : slow > 5 ? 3 : 0);
  }
  CHECK_EQ(wait_for(scribbler), 0);
  CHECK_EQ(wait_for(victim), 0);
}

}  // namespace
}  // namespace poly

CHECK_MAIN()
