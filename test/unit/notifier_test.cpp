// The notifier: each connection's messages in their order, several connections at once, replies behind
// notifications, tickets. Kernels are sockets that take nothing more once they are full.
#include "native/fuse/notifier.hpp"

#include <sys/socket.h>

#include "native/fuse/connection.hpp"
#include "native/fuse/protocol.hpp"
#include "test/unit/fuse_rig.hpp"

using namespace rig;

namespace {

using namespace std::chrono_literals;

struct Kernel {
  Kernel(Notifier& notifier, const std::shared_ptr<LibserviceHost>& host, uint32_t id) : instance(id, host) {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    here = Fd(ends[1]);
    std::vector<Fd> queues;
    queues.emplace_back(ends[0]);
    connection = std::make_unique<Connection>(instance, std::move(queues), ConnectionOptions{}, notifier);
  }
  void post(int64_t value, const TicketRef& ticket = nullptr) {
    connection->invalidate_node(7, value, 0, ticket);
  }
  // The value of the next message, -1 when there is none for a while, -2 for a reply.
  int64_t next(int flags = 0) {
    struct {
      fuse_out_header header;
      fuse_notify_inval_inode_out body;
    } message{};
    timeval patience{5, 0};
    (void)::setsockopt(here.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (::recv(here.get(), &message, sizeof message, flags) < 0) return -1;
    return message.header.unique ? -2 : message.body.off;
  }
  // Until the next write blocks.
  void fill() {
    const std::vector<char> much(1000);
    while (::send(connection->queues[0].get(), much.data(), much.size(), MSG_DONTWAIT) > 0) {
    }
  }
  void drain() {
    char much[1000];
    while (::recv(here.get(), much, sizeof much, MSG_DONTWAIT | MSG_PEEK) == sizeof much)
      CHECK_EQ(::recv(here.get(), much, sizeof much, 0), sizeof much);
  }
  Instance instance;
  Fd here;
  std::unique_ptr<Connection> connection;
};

struct Kernels {
  Kernels() : host(std::make_shared<LibserviceHost>()) {
    for (uint32_t id = 1; id <= 3; id++) all.push_back(std::make_unique<Kernel>(notifier, host, id));
  }
  ~Kernels() {
    for (auto& kernel : all) {
      kernel->here.reset();  // whoever is stuck is so no more
      notifier.forget(*kernel->connection);
    }
  }
  Kernel& operator[](size_t i) { return *all[i]; }
  std::shared_ptr<LibserviceHost> host;
  Notifier notifier;
  std::vector<std::unique_ptr<Kernel>> all;
};

}  // namespace

TEST(messages_of_a_connection_keep_their_order) {
  Kernels kernels;
  for (int64_t i = 0; i < 300; i++) {
    for (auto& kernel : kernels.all) kernel->post(i);
    if (i % 50 == 49) {
      for (int64_t j = i - 49; j <= i; j++) {
        for (auto& kernel : kernels.all) CHECK_EQ(kernel->next(), j);
      }
    }
  }
}

TEST(a_stuck_kernel_does_not_delay_the_others) {
  Kernels kernels;
  kernels[0].fill();
  auto stuck = std::make_shared<Ticket>();
  kernels[0].post(1, stuck);
  kernels[0].post(2, stuck);
  stuck->done();
  for (int64_t i = 0; i < 20; i++) {
    auto sent = std::make_shared<Ticket>();
    kernels[1].post(i, sent);
    sent->done();
    CHECK(sent->wait(5s));
    CHECK_EQ(kernels[1].next(), i);
  }
  CHECK(!kernels[1].connection->late());
  CHECK(!stuck->wait(std::chrono::nanoseconds(Connection::kLate) + 50ms));
  CHECK(kernels[0].connection->late());
  std::atomic<bool> told{false};
  stuck->then([&] { told = true; });
  CHECK(!told);
  kernels[0].drain();
  CHECK(stuck->wait(5s));
  for (int i = 0; i < 500 && !told; i++) ::usleep(1000);
  CHECK(told);
  bool late = false;
  stuck->then([&] { late = true; });
  CHECK(late);
}

TEST(a_reply_comes_behind_what_was_posted_before_it) {
  Kernels kernels;
  fuse_out_header reply{sizeof reply, 0, 42};
  CHECK_EQ(kernels[0].connection->send_in_order(0, &reply, sizeof reply), 0);
  CHECK_EQ(kernels[0].next(MSG_DONTWAIT), -2);  // nothing to wait for: sent at once
  kernels[0].fill();
  kernels[0].post(1);
  kernels[0].post(2);
  CHECK_EQ(kernels[0].connection->send_in_order(0, &reply, sizeof reply), 0);
  kernels[0].post(3);
  kernels[0].drain();
  for (int64_t expected : {1, 2, -2, 3}) CHECK_EQ(kernels[0].next(), expected);
}

TEST(messages_posted_apart_go_out_beside_the_others) {
  Kernels kernels;
  kernels[0].fill();
  kernels[0].post(1);
  kernels[0].post(2);
  kernels[0].connection->invalidate_written(7, 3, 0);  // does not wait for room
  CHECK_EQ(kernels.notifier.waiting(), 3);
  kernels[0].drain();
  int64_t sum = 0;
  for (int i = 0; i < 3; i++) sum += int64_t{1} << kernels[0].next();
  CHECK_EQ(sum, 2 + 4 + 8);
}

TEST(what_is_forgotten_is_over) {
  Kernels kernels;
  kernels[0].fill();
  auto ticket = std::make_shared<Ticket>();
  for (int64_t i = 0; i < 5; i++) kernels[0].post(i, ticket);
  for (int64_t i = 0; i < 5; i++) kernels[0].connection->invalidate_written(7, i, 0);
  ticket->done();
  CHECK(!ticket->wait(10ms));
  kernels[0].here.reset();  // unmounted
  kernels.notifier.forget(*kernels[0].connection);
  CHECK(ticket->wait(5s));
  CHECK_EQ(kernels.notifier.waiting(), 0);
}

CHECK_MAIN()
