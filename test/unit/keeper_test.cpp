// poly-keeper as its clients see it: a real process, honest clients, dying ones and hostile ones.
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "fastpath/unix_socket.hpp"
#include "native/keeper/protocol.hpp"
#include "test/unit/keeper_rig.hpp"

using namespace poly;

namespace {

ino_t inode(int fd) {
  struct stat st {};
  return ::fstat(fd, &st) == 0 ? st.st_ino : 0;
}

std::string names_under(KeeperClient& client, std::string_view prefix) {
  std::vector<NamedCount> names;
  const int rc = client.list(prefix, names);
  if (rc != 0) return std::to_string(rc);
  std::string text;
  for (const auto& [name, count] : names)
    text += (text.empty() ? "" : " ") + name + ":" + std::to_string(count);
  return text;
}

int put_one(KeeperClient& client, std::string_view name, int fd) {
  return client.put(name, {&fd, 1});
}

// The protocol by hand, for what KeeperClient would never send.
class Raw {
 public:
  explicit Raw(const std::string& path) {
    REQUIRE(connect_unix(path, SOCK_SEQPACKET, sock) == 0);
    const timeval patience{10, 0};
    ::setsockopt(sock.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  }
  explicit Raw(Fd fd) : sock(std::move(fd)) {}

  [[nodiscard]] ssize_t send(std::string_view text, std::vector<int> fds = {}, int flags = 0) const {
    return send_with_fds(sock.get(), std::as_bytes(std::span(text)), fds, flags);
  }
  std::string receive(std::vector<Fd>* fds = nullptr) const {
    std::array<char, keeper::kMaxPacket> buffer;
    std::vector<Fd> unwanted;
    const ssize_t n = recv_with_fds(sock.get(), std::as_writable_bytes(std::span(buffer)),
                                    fds != nullptr ? *fds : unwanted, 0);
    return n < 0 ? "errno " + std::to_string(-n) : std::string(buffer.data(), static_cast<std::size_t>(n));
  }
  std::string ask(std::string_view text, std::vector<int> fds = {}) const {
    if (const ssize_t n = send(text, std::move(fds)); n < 0) return "send errno " + std::to_string(-n);
    const std::string answer = receive();
    return answer.starts_with("ERR ") ? answer.substr(4, answer.find(' ', 4) - 4) : answer;
  }

  Fd sock;
};

}  // namespace

TEST(starting_and_stopping) {
  CHECK_EQ(exit_status(spawn_keeper({}, 0, true)), 1);
  CHECK_EQ(exit_status(spawn_keeper({"--socket"}, 0, true)), 1);
  CHECK_EQ(exit_status(spawn_keeper({"--socket", "/x", "--ready-fd", "3x"}, 0, true)), 1);
  CHECK_EQ(exit_status(spawn_keeper({"--what", "x"}, 0, true)), 1);
  CHECK_EQ(exit_status(spawn_keeper({"--socket", "/nonexistent/x"}, 0, true)), 2);
  CHECK_EQ(exit_status(spawn_keeper({"--socket", "/tmp/" + std::string(120, 'x')}, 0, true)), 2);

  Keeper keeper;
  CHECK_EQ(exit_status(spawn_keeper({"--socket", keeper.socket}, 0, true)), 2);  // it lives: not replaced
  struct stat st {};
  CHECK_EQ(::stat(keeper.socket.c_str(), &st), 0);
  CHECK_EQ(st.st_mode & 07777, 0600);
  const std::string proc = "/proc/" + std::to_string(keeper.pid);
  std::string comm;
  std::getline(std::ifstream(proc + "/comm") >> std::ws, comm);
  CHECK_EQ(comm, "poly-keeper");
  CHECK_EQ(fs::read_symlink(proc + "/cwd"), "/");
  CHECK_EQ(keeper.status().pid, keeper.pid);
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  CHECK_EQ(keeper.status().limit, limit.rlim_max);
  for (const int signal : {SIGHUP, SIGPIPE}) ::kill(keeper.pid, signal);
  CHECK_EQ(keeper.status().pid, keeper.pid);
}

TEST(a_dead_keepers_socket_is_replaced) {
  TemporaryDirectory directory;
  const std::string socket = directory.path + "/k";
  for (int i = 0; i < 2; ++i) {
    const pid_t pid = spawn_keeper({"--socket", socket}, 0, false);
    KeeperClient client;
    KeeperStatus status;
    CHECK(wait_until([&] { return client.connect(socket) == 0; }));
    CHECK_EQ(client.ping(status), 0);
    CHECK_EQ(status.pid, pid);
    ::kill(pid, SIGKILL);
    CHECK_EQ(exit_status(pid), 128 + SIGKILL);
    CHECK(client.ping(status) < 0);
    CHECK(put_one(client, "x", 0) < 0);
    CHECK(fs::exists(socket));
  }
}

TEST(only_its_own_user_may_connect) {
  if (::getuid() != 0) return;
  Keeper keeper;
  const auto other_user = [&] {
    if (::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0) return 100;
    KeeperClient client;
    KeeperStatus status;
    const int rc = client.connect(keeper.socket);
    return rc < 0 ? -rc : (client.ping(status) < 0 ? 101 : 102);
  };
  const fs::path directory = fs::path(keeper.socket).parent_path();
  fs::permissions(directory, fs::perms(0755));
  CHECK_EQ(exit_status(in_child(other_user)), EACCES);
  fs::permissions(keeper.socket,
                  fs::perms(0666));  // and if somebody weakens the mode, credentials still decide
  CHECK_EQ(exit_status(in_child(other_user)), 101);
}

TEST(descriptors_are_kept_by_name) {
  Keeper keeper;
  KeeperClient& client = keeper.client;
  std::vector<Fd> files;
  for (int i = 0; i < 4; ++i) files.push_back(new_file());
  const std::array<int, 3> three{files[0].get(), files[1].get(), files[2].get()};
  CHECK_EQ(client.put("b/two", three), 0);
  CHECK_EQ(put_one(client, "b/one", files[3].get()), 0);
  CHECK_EQ(client.park("a", files[3].get()), 0);
  CHECK_EQ(names_under(client, ""), "a:1 b/one:1 b/two:3");
  CHECK_EQ(names_under(client, "b/"), "b/one:1 b/two:3");
  CHECK_EQ(names_under(client, "b/two"), "b/two:3");
  CHECK_EQ(names_under(client, "c"), "");

  std::vector<NamedFds> found;
  CHECK_EQ(client.get("b/", found), 0);
  REQUIRE(found.size() == 2 && found[1].second.size() == 3);
  CHECK_EQ(found[0].first, "b/one");
  for (std::size_t i = 0; i < 3; ++i) CHECK_EQ(inode(found[1].second[i].get()), inode(three[i]));
  CHECK((::fcntl(found[0].second[0].get(), F_GETFD) & FD_CLOEXEC) != 0);

  CHECK_EQ(client.put("b/two", std::array<int, 1>{files[3].get()}), 0);  // replaces all three
  found.clear();
  CHECK_EQ(client.get("b/two", found), 0);
  CHECK(found.size() == 1 && found[0].second.size() == 1);
  CHECK_EQ(inode(found.at(0).second.at(0).get()), inode(files[3].get()));
  CHECK_EQ(client.drop("b/two"), 0);
  CHECK_EQ(client.drop("never"), 0);
  CHECK_EQ(names_under(client, ""), "a:1 b/one:1");
  const KeeperStatus status = keeper.status();
  CHECK(status.fds == 2 && status.names == 2 && status.dropped == 0 && status.clients == 1);
  CHECK_EQ(client.clear("b/"), 0);
  CHECK_EQ(names_under(client, ""), "a:1");

  const Raw raw(keeper.socket);
  for (const char* name : {"n1", "n2", "n3"}) CHECK_EQ(put_one(client, name, files[0].get()), 0);
  CHECK_EQ(raw.ask("GET n n1"), "FDS n2");
  CHECK_EQ(raw.receive(), "FDS n3");
  CHECK_EQ(raw.receive(), "END");
  CHECK_EQ(raw.ask("LIST  n2"), "NAME n3 1");  // an empty prefix
  CHECK_EQ(raw.receive(), "END");
  CHECK_EQ(raw.ask("LIST n zzz"), "END");
}

TEST(a_parked_descriptor_outlives_its_sender) {
  Keeper keeper;
  for (int i = 0; i < 50; ++i) {
    const std::string name = "dying/" + std::to_string(1000 + i);
    const pid_t pid = in_child([&] {
      const Raw raw(keeper.socket);
      // Answers that are never read make the keeper see ECONNRESET before it sees what follows.
      for (int n = 0; n < i % 4; ++n) {
        if (raw.send("PING") < 0) return 1;
      }
      const Fd file = new_file();
      if (::write(file.get(), name.data(), name.size()) < 0) return 1;
      if (raw.send("PARK " + name, {file.get()}) < 0) return 1;
      ::kill(::getpid(), SIGKILL);
      return 1;
    });
    CHECK_EQ(exit_status(pid), 128 + SIGKILL);
  }
  CHECK(wait_until([&] { return keeper.status().names == 50; }));
  std::vector<NamedFds> found;
  CHECK_EQ(keeper.client.get("dying/", found), 0);
  CHECK_EQ(found.size(), 50);
  for (const auto& [name, fds] : found) {
    std::string text(name.size(), ' ');
    CHECK_EQ(::pread(fds.at(0).get(), text.data(), text.size(), 0), text.size());
    CHECK_EQ(text, name);
  }
}

// With a listing half taken, the keeper still reads what the dead client had sent after it.
TEST(a_client_that_dies_in_the_middle_of_an_answer) {
  Keeper keeper;
  const Fd file = new_file();
  for (int i = 0; i < 2000; ++i) CHECK_EQ(keeper.client.park("many/" + std::to_string(i), file.get()), 0);
  CHECK_EQ(keeper.status().names, 2000);
  for (int i = 0; i < 30; ++i) {
    const pid_t pid = in_child([&] {
      const Raw raw(keeper.socket);
      if (raw.send("GET many/") < 0) return 1;
      for (int n = 0; n < i * 7; ++n) (void)raw.receive();
      if (raw.send("PARK late/" + std::to_string(i), {file.get()}) < 0) return 1;
      ::kill(::getpid(), SIGKILL);
      return 1;
    });
    CHECK_EQ(exit_status(pid), 128 + SIGKILL);
  }
  CHECK(wait_until([&] { return keeper.status().names == 2030 && keeper.status().clients == 1; }));
  CHECK_EQ(keeper.status().dropped, 0);
}

TEST(thousands_of_descriptors_and_a_slow_reader) {
  Keeper keeper;
  const Fd file = new_file();
  const std::vector<int> many(keeper::kMaxPacket / 5, file.get());
  for (int i = 0; i < 10; ++i) CHECK_EQ(keeper.client.put("big/" + std::to_string(i), many), 0);
  for (int i = 0; i < 3000; ++i)
    CHECK_EQ(keeper.client.park("small/" + std::to_string(10000 + i), file.get()), 0);
  CHECK_EQ(keeper.status().fds, 3000 + 10 * many.size());

  const Raw slow(keeper.socket);
  CHECK(slow.send("GET ") > 0);
  CHECK(slow.send("PING") > 0);
  const auto begin = Clock::now();
  std::vector<NamedFds> found;
  CHECK_EQ(keeper.client.get("", found), 0);  // not held up by the other
  CHECK(Clock::now() - begin < std::chrono::seconds(5));
  REQUIRE(found.size() == 3010);
  CHECK(std::is_sorted(found.begin(), found.end(), [](auto& a, auto& b) { return a.first < b.first; }));
  for (const auto& [name, fds] : found) CHECK_EQ(fds.size(), name[0] == 'b' ? many.size() : 1);
  found.clear();

  std::size_t packets = 0;
  std::string answer;
  for (; (answer = slow.receive()).starts_with("FDS "); ++packets) {
    if (packets % 300 == 0) ::usleep(1000);
  }
  CHECK_EQ(packets, 3010);
  CHECK_EQ(answer, "END");
  CHECK(slow.receive().starts_with("PONG "));
}

TEST(the_keepers_own_limit) {
  Keeper keeper(600);  // soft 300, which it raises
  CHECK_EQ(keeper.status().limit, 600);
  const Fd file = new_file();
  int stored = 0;
  while (stored < 1000 && put_one(keeper.client, "n" + std::to_string(stored), file.get()) == 0) ++stored;
  CHECK(stored > 250 && stored < 310);
  CHECK_EQ(put_one(keeper.client, "more", file.get()), -EMFILE);
  CHECK(wait_until([&] { return keeper.status().closing == 0; }));  // what was refused counts until then
  CHECK_EQ(put_one(keeper.client, "n0", file.get()), 0);            // in place of another
  CHECK_EQ(keeper.client.put("n0", std::vector<int>(253, file.get())), -EMFILE);
  for (int i = 0; i < 3; ++i) CHECK_EQ(keeper.client.park("more", file.get()), 0);
  CHECK_EQ(keeper.status().dropped, 3);
  KeeperClient late;
  KeeperStatus status;
  CHECK(late.connect(keeper.socket) == 0 && late.ping(status) < 0);  // turned away, not left waiting
  CHECK_EQ(names_under(keeper.client, "more"), "");
  for (int i = 0; i < 10; ++i) CHECK_EQ(keeper.client.drop("n" + std::to_string(i)), 0);
  CHECK(wait_until([&] { return keeper.status().closing == 0; }));
  CHECK_EQ(put_one(keeper.client, "more", file.get()), 0);
  CHECK(late.connect(keeper.socket) == 0 && late.ping(status) == 0);
}

TEST(a_client_that_cannot_take_them_all) {
  Keeper keeper;
  const Fd file = new_file();
  for (int i = 0; i < 100; ++i) CHECK_EQ(keeper.client.park("n" + std::to_string(i), file.get()), 0);
  const pid_t pid = in_child([&] {
    KeeperClient client;
    KeeperStatus status;
    std::vector<NamedFds> found;
    if (client.connect(keeper.socket) != 0) return 1;
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const rlimit low{50, limit.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &low);
    if (client.get("n", found) != -EMFILE || !found.empty()) return 2;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    if (client.ping(status) != 0 || client.get("n", found) != 0) return 3;
    return found.size() == 100 ? 0 : 4;
  });
  CHECK_EQ(exit_status(pid), 0);
}

TEST(malformed_requests_are_answered) {
  Keeper keeper;
  const Raw raw(keeper.socket);
  const Fd file = new_file();
  const int fd = file.get();
  const std::string longest(keeper::kMaxName, 'n');
  for (const char* text :
       {"", " ", "put x", "NOSUCH", "PUT", "PUT ", "PUT  x", "PING x", "PING ", "GET a b c", "LIST a b c",
        "CLEAR a b", "SCOPE", "GET \x01", "GET \xff", "CLEAR \t", "GET\n"}) {
    CHECK_EQ(raw.ask(text), "EINVAL");
  }
  CHECK_EQ(raw.ask(std::string("PING\0", 5)), "EINVAL");
  CHECK_EQ(raw.ask("PUT x"), "EINVAL");
  CHECK_EQ(raw.ask("PUT x y", {fd}), "EINVAL");
  CHECK_EQ(raw.ask("PUT ", {fd}), "EINVAL");
  CHECK_EQ(raw.ask("PUT a\x7f", {fd}), "EINVAL");
  CHECK_EQ(raw.ask("PUT " + longest, {fd}), "OK");
  CHECK_EQ(raw.ask("PUT " + longest + "n", {fd}), "EINVAL");
  CHECK_EQ(raw.ask("GET " + longest + "n"), "EINVAL");
  CHECK_EQ(raw.ask("PING", {fd, fd}), "EINVAL");
  CHECK_EQ(raw.ask("GET ", {fd}), "EINVAL");
  CHECK_EQ(raw.ask("", {fd}), "EINVAL");
  CHECK_EQ(raw.ask("SCOPE s/", {fd, fd}), "EINVAL");
  CHECK_EQ(raw.ask("SCOPE s/ many", {fd}), "EINVAL");
  CHECK_EQ(raw.ask("SCOPE s/ 9999999999", {fd}), "EINVAL");
  CHECK_EQ(raw.ask("SCOPE s/", {fd}), "ENOTSOCK");
  CHECK_EQ(raw.ask(std::string(keeper::kMaxPacket + 1, 'x')), "EMSGSIZE");
  CHECK_EQ(raw.ask(std::string(100000, 'x'), {fd}), "EMSGSIZE");
  CHECK_EQ(raw.ask("CLEAR"), "OK");

  // Unanswered ones: PARK is counted, DROP is not.
  const std::uint64_t dropped = keeper.status().dropped;
  CHECK(raw.send("PARK x") > 0);
  CHECK(raw.send("PARK x", {fd, fd}) > 0);
  CHECK(raw.send("PARK", {fd}) > 0);
  CHECK(raw.send("PARK x y", {fd}) > 0);
  CHECK(raw.send("PARK " + std::string(2000, 'x'), {fd}) > 0);
  CHECK(raw.send("DROP") > 0);
  CHECK(raw.send("DROP x", {fd}) > 0);
  CHECK(raw.ask("PING").starts_with("PONG "));
  CHECK_EQ(keeper.status().dropped, dropped + 5);
  CHECK_EQ(keeper.status().fds, 0);
}

// Both ends of a socket given to SCOPE: the keeper must not answer itself for ever.
TEST(a_keeper_that_talks_to_itself) {
  Keeper keeper;
  const Raw raw(keeper.socket);
  CHECK(raw.send("SCOPE s/", {raw.sock.get()}) > 0);  // who gets the answer?
  std::array<int, 2> pair{};
  REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) == 0);
  Raw one{Fd(pair[0])};
  Raw two{Fd(pair[1])};
  CHECK(one.send("PING") > 0 && two.send("nonsense") > 0);
  const Raw other(keeper.socket);
  for (const int fd : pair) CHECK_EQ(other.ask("SCOPE s/", {fd}), "OK");
  one.sock.reset();
  two.sock.reset();
  CHECK(wait_until([&] { return keeper.status().clients == 2; }));
}

TEST(random_packets_harm_nobody) {
  Keeper keeper;
  std::mt19937_64& rng = check::random();
  const char* const verbs[] = {"PUT ", "PARK ", "DROP ", "GET ", "LIST ", "CLEAR ", "SCOPE ", "PING", ""};
  const Fd file = new_file();
  for (int round = 0; round < 60; ++round) {
    Raw raw(keeper.socket);
    for (int i = 0; i < 40; ++i) {
      std::string packet = verbs[rng() % std::size(verbs)];
      for (auto n = rng() % (rng() % 10 == 0 ? 3000 : 20); n > 0; --n) {
        packet += static_cast<char>(rng() % 4 == 0 ? rng() : 'a' + rng() % 3);
      }
      std::vector<int> fds(rng() % 3 == 0 ? rng() % 20 : rng() % 2,
                           rng() % 2 == 0 ? file.get() : raw.sock.get());
      // A full socket is the keeper waiting for its answers to be read.
      if (raw.send(packet, fds, MSG_DONTWAIT) == -EAGAIN) break;
    }
    if (rng() % 2 == 0) ::shutdown(raw.sock.get(), rng() % 2 == 0 ? SHUT_WR : SHUT_RDWR);
  }
  CHECK_EQ(keeper.client.clear(""), 0);
  // What made itself a client by SCOPE, with a socket that was then parked, goes with the last holder.
  CHECK(wait_until([&] { return keeper.client.clear("") == 0 && keeper.status().clients == 1; }));
}

TEST(a_scope_confines) {
  Keeper keeper;
  const Fd file = new_file();
  CHECK_EQ(put_one(keeper.client, "a/secret", file.get()), 0);
  CHECK_EQ(put_one(keeper.client, "ab", file.get()), 0);
  CHECK_EQ(put_one(keeper.client, "b/mine", file.get()), 0);
  Fd sock;
  CHECK_EQ(keeper.client.scope("b/", KeeperClient::kNoLimit, sock), 0);
  Raw raw(std::move(sock));
  CHECK_EQ(raw.ask("LIST b/"), "NAME b/mine 1");
  CHECK_EQ(raw.receive(), "END");
  for (const char* text : {"GET", "GET ", "GET a/", "GET b", "GET a/secret", "LIST", "LIST  a", "LIST b",
                           "CLEAR", "CLEAR ", "CLEAR b", "CLEAR a/"}) {
    CHECK_EQ(raw.ask(text), "EPERM");
  }
  for (const char* text :
       {"PUT a/secret", "PUT b", "PUT B/", "PUT ../b/", "SCOPE b/", "SCOPE b/c", "SCOPE a/"}) {
    CHECK_EQ(raw.ask(text, {file.get()}), "EPERM");
  }
  // `after` only skips: it cannot lead out of the prefix.
  CHECK_EQ(raw.ask("LIST b/ a"), "NAME b/mine 1");
  CHECK_EQ(raw.receive(), "END");
  CHECK_EQ(raw.ask("LIST b/ c"), "END");
  CHECK(raw.send("DROP a/secret") > 0);
  CHECK(raw.send("PARK a/planted", {file.get()}) > 0);
  CHECK_EQ(raw.ask("PUT b/", {file.get()}), "OK");
  CHECK_EQ(raw.ask("PUT b/../a", {file.get()}), "OK");  // names are no paths
  CHECK_EQ(raw.ask("CLEAR b/"), "OK");
  CHECK_EQ(names_under(keeper.client, ""), "a/secret:1 ab:1");
  CHECK_EQ(keeper.status().dropped, 1);
  CHECK_EQ(keeper.status().clients, 2);
  raw.sock.reset();
  CHECK(wait_until([&] { return keeper.status().clients == 1; }));
}

TEST(a_scope_has_a_quota) {
  Keeper keeper;
  const Fd file = new_file();
  CHECK_EQ(put_one(keeper.client, "q/old", file.get()), 0);  // counts from the start
  Fd sock;
  CHECK_EQ(keeper.client.scope("q/", 5, sock), 0);
  KeeperClient client = KeeperClient::from_fd(std::move(sock));
  const std::vector<int> four(4, file.get());
  CHECK_EQ(client.put("q/four", four), 0);
  CHECK_EQ(put_one(client, "q/more", file.get()), -EDQUOT);
  CHECK_EQ(client.park("q/more", file.get()), 0);
  CHECK_EQ(client.put("q/four", four), 0);  // in place of themselves
  CHECK_EQ(put_one(client, "q/four", file.get()), 0);
  CHECK_EQ(put_one(client, "q/more", file.get()), 0);
  CHECK_EQ(client.drop("q/old"), 0);
  CHECK_EQ(client.put("q/three", std::array<int, 3>{file.get(), file.get(), file.get()}), 0);
  CHECK_EQ(put_one(client, "q/x", file.get()), -EDQUOT);
  CHECK_EQ(names_under(client, "q/"), "q/four:1 q/more:1 q/three:3");
  CHECK_EQ(keeper.status().dropped, 1);
  CHECK_EQ(keeper.client.put("other", four), 0);
  // The next service of the same scope is held to the same.
  CHECK_EQ(keeper.client.scope("q/", 6, sock), 0);
  KeeperClient next = KeeperClient::from_fd(std::move(sock));
  CHECK_EQ(put_one(next, "q/x", file.get()), 0);
  CHECK_EQ(put_one(next, "q/y", file.get()), -EDQUOT);
}

TEST(many_threads_share_a_client) {
  Keeper keeper;
  const Fd file = new_file();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const std::string prefix = "t" + std::to_string(t) + "/";
      for (int i = 0; i < 200; ++i) {
        const std::string name = prefix + std::to_string(i);
        CHECK_EQ(i % 2 == 0 ? put_one(keeper.client, name, file.get()) : keeper.client.park(name, file.get()),
                 0);
        std::vector<NamedFds> found;
        if (i % 20 == 0)
          CHECK(keeper.client.get(prefix, found) == 0 && found.size() == static_cast<std::size_t>(i + 1));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(keeper.status().names, 800);
}

// close() of a TCP socket that lingers waits for its peer: the same as of a file whose FUSE server does not
// answer.
TEST(a_close_that_blocks_stops_nobody) {
  Keeper keeper;
  const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  REQUIRE(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size) == 0 &&
          ::listen(listener.get(), 1) == 0);
  ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size);
  Fd lingering(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::connect(lingering.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
  Fd peer(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  const linger seconds{1, 20};
  REQUIRE(::setsockopt(lingering.get(), SOL_SOCKET, SO_LINGER, &seconds, sizeof(seconds)) == 0);
  const std::vector<char> data(65536);
  while (::send(lingering.get(), data.data(), data.size(), MSG_DONTWAIT) > 0) {
  }
  CHECK_EQ(put_one(keeper.client, "lingering", lingering.get()), 0);
  lingering.reset();
  const auto begin = Clock::now();
  CHECK_EQ(keeper.client.drop("lingering"), 0);
  CHECK_EQ(keeper.status().names, 0);
  ::usleep(50000);
  CHECK_EQ(keeper.status().closing, 1);
  CHECK_EQ(put_one(keeper.client, "other", listener.get()), 0);
  CHECK(Clock::now() - begin < std::chrono::seconds(5));
  peer.reset();  // resets the connection, which ends the wait
  CHECK(wait_until([&] { return keeper.status().closing == 0; }));
}

CHECK_MAIN()
