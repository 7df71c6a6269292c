// The keeper's table socket: who may have the mount table, what may be done with it, and what strangers can
// do to the keeper there.
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "fastpath/mount_table.hpp"
#include "fastpath/unix_socket.hpp"
#include "native/keeper/protocol.hpp"
#include "test/unit/keeper_rig.hpp"

using namespace poly;

namespace {

constexpr uid_t kNobody = 65534;

NormalPath normal(std::string_view text) {
  NormalPath path;
  REQUIRE(normalise(text, path) == 0);
  return path;
}

int connect_stranger(const Keeper& keeper, Fd& out) {
  if (int rc = connect_unix(keeper.table_socket, SOCK_SEQPACKET, out); rc < 0) return rc;
  const timeval patience{10, 0};
  return ::setsockopt(out.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0 ? 0 : -errno;
}

// What a stranger is given: 1 with the table, 0 when the keeper closed without a word, or -errno.
ssize_t receive_table(int sock, Fd& table) {
  std::array<std::byte, 8> data{};
  std::vector<Fd> fds;
  const ssize_t n = recv_with_fds(sock, data, fds, 0);
  if (n == 1 && fds.size() == 1) table = std::move(fds[0]);
  return n;
}

ssize_t ask_for_table(const Keeper& keeper, Fd& table) {
  Fd sock;
  if (int rc = connect_stranger(keeper, sock); rc < 0) return rc;
  const ssize_t n = receive_table(sock.get(), table);
  std::byte more;
  if (n > 0) CHECK_EQ(::recv(sock.get(), &more, 1, 0), 0);  // one packet, and the end
  return n;
}

// The table as polyd keeps it, with one entry.
struct Table {
  explicit Table(Keeper& keeper) {
    REQUIRE(MountTable::create(16, fd) == 0);
    REQUIRE(MountTable::attach_writer(fd.get(), writer) == 0);
    CHECK_EQ(writer.insert(normal("/srv/a"), {.service = 3, .instance = 5}), 0);
    const int raw = fd.get();
    CHECK_EQ(keeper.client.put(keeper::kTableName, {&raw, 1}), 0);
  }
  Fd fd;
  MountTable writer;
};

bool serves(const Keeper& keeper) {
  Fd table;
  return ask_for_table(keeper, table) == 1;
}

}  // namespace

TEST(the_table_is_handed_out_and_stays_alive) {
  Keeper keeper;
  Table table(keeper);
  struct stat st {};
  CHECK(::stat(keeper.table_socket.c_str(), &st) == 0 && (st.st_mode & 07777) == 0666);
  Fd fd;
  REQUIRE(ask_for_table(keeper, fd) == 1);
  CHECK_EQ(::fcntl(fd.get(), F_GETFL) & O_ACCMODE, O_RDONLY);
  MountTable reader;
  REQUIRE(MountTable::attach_reader(fd.get(), reader) == 0);
  fd.reset();
  MountMatch match;
  CHECK_EQ(reader.lookup(normal("/srv/a/b"), match), 0);
  CHECK_EQ(match.entry.instance, 5);
  CHECK_EQ(table.writer.insert(normal("/srv/b"), {.service = 4, .instance = 6}), 0);
  CHECK_EQ(reader.lookup(normal("/srv/b"), match), 0);
  CHECK_EQ(match.entry.service, 4);
}

TEST(nobody_can_write_what_they_are_given) {
  Keeper keeper;
  Table table(keeper);
  // Root may open anything again; who else has the descriptor may not.
  const pid_t child = in_child([&] {
    if (::geteuid() == 0 &&
        (::setgroups(0, nullptr) != 0 || ::setgid(kNobody) != 0 || ::setuid(kNobody) != 0))
      return 1;
    Fd fd;
    if (ask_for_table(keeper, fd) != 1) return 2;
    if (::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0) != MAP_FAILED) return 3;
    void* mapped = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd.get(), 0);
    if (mapped == MAP_FAILED || ::mprotect(mapped, 4096, PROT_READ | PROT_WRITE) == 0) return 4;
    const std::string again = "/proc/self/fd/" + std::to_string(fd.get());
    if (::open(again.c_str(), O_RDWR) >= 0) return 5;
    if (::ftruncate(fd.get(), 0) == 0 || ::write(fd.get(), "x", 1) >= 0) return 6;
    return 0;
  });
  CHECK_EQ(exit_status(child), 0);
}

TEST(each_stranger_has_an_open_file_of_its_own) {
  Keeper keeper;
  Table table(keeper);
  Fd one, two;
  REQUIRE(ask_for_table(keeper, one) == 1 && ask_for_table(keeper, two) == 1);
  CHECK_EQ(::lseek(one.get(), 100, SEEK_SET), 100);
  CHECK_EQ(::lseek(two.get(), 0, SEEK_CUR), 0);
  CHECK_EQ(::lseek(table.fd.get(), 0, SEEK_CUR), 0);
}

TEST(without_a_table_the_connection_is_closed) {
  Keeper keeper;
  Fd fd;
  CHECK_EQ(ask_for_table(keeper, fd), 0);
  const Fd other = new_file();
  const int raw = other.get();
  CHECK_EQ(keeper.client.put("polyd/table2", {&raw, 1}), 0);  // longer names are other names
  CHECK_EQ(ask_for_table(keeper, fd), 0);
  const Table table(keeper);
  CHECK_EQ(ask_for_table(keeper, fd), 1);
  CHECK_EQ(keeper.client.drop(keeper::kTableName), 0);
  CHECK(wait_until([&] { return !serves(keeper); }));
}

TEST(a_keeper_without_the_option_has_no_table_socket) {
  TemporaryDirectory directory;
  const std::string socket = directory.path + "/k.sock";
  const pid_t pid = spawn_keeper({"--socket", socket}, 0, false);
  KeeperClient client;
  CHECK(wait_until([&] { return client.connect(socket) == 0; }));
  CHECK_EQ(std::distance(fs::directory_iterator(directory.path), {}), 1);
  ::kill(pid, SIGTERM);
  CHECK_EQ(exit_status(pid), 0);
}

TEST(a_table_socket_that_cannot_be_made) {
  TemporaryDirectory directory;
  const std::string socket = directory.path + "/k.sock";
  const pid_t pid = spawn_keeper({"--socket", socket, "--table-socket", "/nonexistent/t.sock"}, 0, true);
  CHECK_EQ(exit_status(pid), 2);
  CHECK(!fs::exists(socket));
}

// Connects and never receives, sends what nobody reads, leaves at once: the keeper serves on.
TEST(hostile_strangers_harm_nobody) {
  Keeper keeper;
  const Table table(keeper);
  std::vector<Fd> idle;
  std::mt19937_64& random = check::random();
  for (int i = 0; i < 600; ++i) {
    Fd sock;
    REQUIRE(connect_stranger(keeper, sock) == 0);
    std::array<std::byte, 256> noise;
    for (std::byte& byte : noise) byte = static_cast<std::byte>(random());
    const Fd file = new_file();
    const int raw = file.get();
    switch (random() % 5) {
      case 0:
        break;  // gone at once
      case 1:
        (void)send_with_fds(sock.get(), noise, {}, MSG_DONTWAIT);
        idle.push_back(std::move(sock));
        break;
      case 2:
        (void)send_with_fds(sock.get(), noise, {&raw, 1}, MSG_DONTWAIT);
        break;
      case 3:
        ::shutdown(sock.get(), SHUT_RDWR);
        idle.push_back(std::move(sock));
        break;
      default:
        idle.push_back(std::move(sock));
    }
  }
  CHECK(serves(keeper));
  CHECK_EQ(keeper.status().clients, 1);
  // Nothing of theirs stays with the keeper: the table is the one descriptor more.
  CHECK(wait_until([&] { return keeper.open_fds() == keeper.baseline + 1; }));
}

TEST(clients_are_served_while_strangers_storm) {
  Keeper keeper;
  const Table table(keeper);
  std::atomic<bool> stop{false};
  std::atomic<int> served{0};
  std::vector<std::thread> storm;
  for (int i = 0; i < 4; ++i) {
    storm.emplace_back([&] {
      while (!stop.load()) {
        Fd fd;
        if (ask_for_table(keeper, fd) == 1) served.fetch_add(1);
      }
    });
  }
  auto worst = std::chrono::steady_clock::duration::zero();
  for (int i = 0; i < 200; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    CHECK_EQ(keeper.status().dropped, 0);
    worst = std::max(worst, std::chrono::steady_clock::now() - begin);
  }
  CHECK(worst < std::chrono::seconds(2));
  CHECK(wait_until([&] { return served.load() > 100; }));
  stop.store(true);
  for (std::thread& thread : storm) thread.join();
}

// A keeper that can hold no more does not hand out either, but does not spin or die.
TEST(strangers_of_a_full_keeper_wait) {
  Keeper keeper(1024);
  const Table table(keeper);
  const Fd file = new_file();
  int rc = 0;
  for (int i = 0; rc == 0 && i < 2000; ++i) {
    const int raw = file.get();
    rc = keeper.client.put("fill/" + std::to_string(i), {&raw, 1});
  }
  CHECK_EQ(rc, -EMFILE);
  Fd sock, fd;
  REQUIRE(connect_stranger(keeper, sock) == 0);
  pollfd waiting{sock.get(), POLLIN, 0};
  CHECK_EQ(::poll(&waiting, 1, 100), 0);
  CHECK_EQ(keeper.client.clear("fill/"), 0);
  CHECK_EQ(receive_table(sock.get(), fd), 1);
}

CHECK_MAIN()
