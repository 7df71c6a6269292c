#include "native/fast/clients.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "fastpath/unix_socket.hpp"
#include "native/core/thread_start.hpp"

namespace poly {
namespace {

template <typename T>
T random_number() {
  T number = 0;
  while (number == 0) {
    if (getrandom(&number, sizeof number, 0) != sizeof number) number = 0;
  }
  return number;
}

constexpr int kRetryMilliseconds = 20;
// Of a uid's descriptors: so many may wait to be closed; then it must wait, too, before it can connect.
constexpr size_t kMostClosing = 1024;

template <typename Answer>
bool answer(int socket, const Answer& message, const Fd* fd) {
  const int raw = fd ? fd->get() : -1;
  const std::span<const int> fds(&raw, fd ? 1 : 0);
  // A client that does not take its answers is dropped; nobody waits for it.
  return send_with_fds(socket, std::as_bytes(std::span(&message, 1)), fds, MSG_DONTWAIT) == sizeof message;
}

}  // namespace

Clients::Clients(ClientHost& host, const Placement& placement, std::function<void()> uids_changed)
    : host_(host),
      placement_(placement),
      uids_changed_(std::move(uids_changed)),
      incarnation_(random_number<uint32_t>()),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      stop_event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      uids_(std::make_shared<UidList>()) {}

void Clients::expect(uint64_t key, Fd process) {
  const int fd = process.get();
  epoll_event event{EPOLLIN, {.fd = fd}};
  (void)epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  expected_[fd] = {key, std::move(process)};
}

// One that came back ends with its connection.
void Clients::process_ended(int pidfd) {
  const uint64_t key = expected_[pidfd].first;
  expected_.erase(pidfd);
  auto known = by_key_.find(key);
  if (known == by_key_.end() || known->second.second.expired()) host_.stayed_away(key);
}

int Clients::start(const std::string& path) {
  if (!epoll_ || !stop_event_) return -EMFILE;
  if (int err = listen_unix(path, SOCK_SEQPACKET | SOCK_NONBLOCK, 0666, listener_)) return err;
  for (int fd : {listener_.get(), stop_event_.get()}) {
    epoll_event event{EPOLLIN, {.fd = fd}};
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return -errno;
  }
  thread_ = std::thread([this] { run(); });
  return 0;
}

void Clients::stop() {
  if (!thread_.joinable()) return;
  uint64_t one = 1;
  (void)!write(stop_event_.get(), &one, sizeof one);
  thread_.join();
}

void Clients::run() {
  begin_thread("poly-attach");
  for (;;) {
    epoll_event events[64];
    int n = epoll_wait(epoll_.get(), events, 64, paused_ ? kRetryMilliseconds : -1);
    if (n < 0 && errno != EINTR) return;
    if (n == 0) pause_listening(false);
    for (int i = 0; i < n; i++) {
      const int fd = events[i].data.fd;
      if (fd == stop_event_.get()) return;
      if (fd == listener_.get()) {
        accept_all();
        continue;
      }
      if (expected_.contains(fd)) {
        process_ended(fd);
        continue;
      }
      auto it = connections_.find(fd);
      if (it == connections_.end() || serve(it->second)) continue;
      drop(it->second);
      connections_.erase(it);
    }
  }
}

void Clients::accept_all() {
  for (;;) {
    Fd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno != EAGAIN) pause_listening(true);
      return;
    }
    uid_t uid;
    if (!may_connect(socket.get(), uid)) continue;
    const int fd = socket.get();
    epoll_event event{EPOLLIN, {.fd = fd}};
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) continue;
    Connection& connection = connections_[fd];
    connection.socket = std::move(socket);
    connection.uid = uid;
  }
}

void Clients::pause_listening(bool pause) {
  epoll_event event{EPOLLIN, {.fd = listener_.get()}};
  if (epoll_ctl(epoll_.get(), pause ? EPOLL_CTL_DEL : EPOLL_CTL_ADD, listener_.get(), &event) == 0)
    paused_ = pause;
}

// Who says nothing counts, too.
bool Clients::may_connect(int socket, uid_t& uid) {
  PeerCredentials peer;
  if (connections_.size() >= kMaxClients || peer_credentials(socket, peer) != 0) return false;
  uid = peer.uid;
  const auto of_uid =
      std::ranges::count_if(connections_, [&](const auto& entry) { return entry.second.uid == peer.uid; });
  return of_uid < kMaxPerUid && closer_of(peer.uid).pending() < kMostClosing;
}

Closer& Clients::closer_of(uid_t uid) {
  auto& closer = closers_[uid % closers_.size()];
  if (!closer) closer = std::make_unique<Closer>();
  return *closer;
}

// A descriptor that was what it should be is closed at once: it is memory, or a directory of ours.
bool Clients::serve(Connection& connection) {
  AttachMessage message{};
  std::vector<Fd> fds;
  const ssize_t size = recv_with_fds(connection.socket.get(), std::as_writable_bytes(std::span(&message, 1)),
                                     fds, MSG_DONTWAIT);
  if (size == -EAGAIN || size == -EINTR) return true;
  const bool goes_on = answer_message(connection, message, size, fds);
  closer_of(connection.uid).close(std::move(fds));
  return goes_on;
}

bool Clients::answer_message(Connection& connection, const AttachMessage& message, ssize_t size,
                             std::vector<Fd>& fds) {
  if (size == sizeof message.hello && message.hello.kind == AttachKind::kHello)
    return answer_hello(connection, message.hello, fds);
  if (size == sizeof message.prove && message.prove.kind == AttachKind::kProve)
    return answer_prove(connection, message.prove, fds);
  return false;
}

bool Clients::answer_hello(Connection& connection, const AttachHello& hello, std::vector<Fd>& fds) {
  AttachWelcome welcome{};
  if (hello.magic != kWireMagic || hello.abi != kWireAbi)
    welcome.result = -EPROTO;
  else if (fds.size() != 1 || connection.client)
    welcome.result = -EINVAL;
  else if (!host_.ready())
    welcome.result = -EAGAIN;
  else
    welcome.result = admit(connection, hello, fds[0].get(), welcome);
  if (welcome.result == 0) fds.clear();
  const Fd* queues = welcome.result == 0 ? &connection.client->queues->memfd : nullptr;
  return answer(connection.socket.get(), welcome, queues) && welcome.result == 0;
}

int Clients::admit(Connection& connection, const AttachHello& hello, int memfd, AttachWelcome& welcome) {
  Peer peer;
  if (int err = identify_peer(connection.socket.get(), peer)) return err;
  auto client = std::make_shared<AttachedClient>();
  if (int err = client->map(memfd, hello.buffers)) return err;
  if (int err = queues_of(peer.uid, client->queues)) return err;
  Slot* slot = free_slot();
  int err = slot ? fast_client(hello, peer, client->fast) : -EMFILE;
  if (err) {
    forget_unused_uid(peer.uid);
    return err;
  }
  client->pid = peer.pid;
  insert(*slot, client);
  connection.client = client;
  welcome.client = welcome.owner = client->id;
  welcome.key = client->fast->key;
  welcome.groups = placement_.groups;
  welcome.capacity = UidQueues::kCapacity;
  welcome.incarnation = incarnation_;
  return 0;
}

// The key's holder continues as the client it was, with the credentials it has now; one that nobody here
// knows had it from a predecessor of this service.
int Clients::fast_client(const AttachHello& hello, const Peer& peer, std::shared_ptr<FastClient>& out) {
  auto known = by_key_.find(hello.key);
  if (hello.key && known != by_key_.end()) {
    if (known->second.first != peer.pid) return -EPERM;
    out = known->second.second.lock();
  }
  if (!out) {
    const bool returning = hello.key != 0;
    const uint64_t key = returning ? hello.key : random_number<uint64_t>();
    out = std::shared_ptr<FastClient>(new FastClient(key), [this](FastClient* gone) {
      host_.ended(*gone);
      delete gone;
    });
    by_key_[key] = {peer.pid, out};
    host_.arrived(*out, peer.process.get());
    if (returning) host_.returned(*out);
  }
  out->set_credentials(peer.uid, peer.gid, peer.groups, peer.pid, peer.one_identity);
  return 0;
}

Clients::Slot* Clients::free_slot() {
  auto is_free = [](Slot& slot) {
    std::lock_guard guard(slot.lock);
    return !slot.client;
  };
  auto room = std::ranges::find_if(slots_, is_free);
  return room == slots_.end() ? nullptr : &*room;
}

void Clients::insert(Slot& slot, const std::shared_ptr<AttachedClient>& client) {
  slot.generation++;
  client->id = static_cast<uint32_t>(&slot - slots_.data()) | uint32_t{slot.generation} << 16;
  std::lock_guard guard(slot.lock);
  slot.client = client;
}

bool Clients::answer_prove(Connection& connection, const AttachProve& prove, std::vector<Fd>& fds) {
  if (!connection.client || prove.magic != kWireMagic || prove.abi != kWireAbi) return false;
  AttachProven proven{};
  proven.result =
      fds.size() == 1 ? host_.prove(*connection.client->fast, prove.instance, fds[0].get(), proven) : -EINVAL;
  if (proven.result == 0) fds.clear();
  return answer(connection.socket.get(), proven, nullptr);
}

// The other end is told at once, however long it takes to close what it has sent and nobody has received.
void Clients::drop(Connection& connection) {
  (void)epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, connection.socket.get(), nullptr);
  (void)shutdown(connection.socket.get(), SHUT_RDWR);
  closer_of(connection.uid).close(std::move(connection.socket));
  if (!connection.client) return;
  const uint32_t id = connection.client->id;
  const uid_t uid = connection.client->queues->uid;
  Slot& slot = slots_[id % kMaxClients];
  {
    std::lock_guard guard(slot.lock);
    slot.client = nullptr;
  }
  // Slots that it claimed and will never fill.
  UidQueues& queues = *connection.client->queues;
  for (uint32_t group = 0; group < placement_.groups; group++)
    queues.memory.queue(group).repair([id](QueueOwner owner) { return owner != id; });
  connection.client = nullptr;
  std::erase_if(by_key_, [](const auto& entry) { return entry.second.second.expired(); });
  forget_unused_uid(uid);
}

std::shared_ptr<AttachedClient> Clients::find(uint32_t id) {
  Slot& slot = slots_[id % kMaxClients];
  std::lock_guard guard(slot.lock);
  return slot.client && slot.client->id == id ? slot.client : nullptr;
}

std::vector<std::shared_ptr<AttachedClient>> Clients::all() {
  std::vector<std::shared_ptr<AttachedClient>> clients;
  for (Slot& slot : slots_) {
    std::lock_guard guard(slot.lock);
    if (slot.client) clients.push_back(slot.client);
  }
  return clients;
}

int Clients::queues_of(uid_t uid, std::shared_ptr<UidQueues>& out) {
  auto& queues = queues_[uid];
  if (!queues) {
    queues = std::make_shared<UidQueues>(uid);
    if (int err = queues->make(placement_)) {
      queues_.erase(uid);
      return err;
    }
    publish_uids();
  }
  out = queues;
  return 0;
}

void Clients::forget_unused_uid(uid_t uid) {
  for (Slot& slot : slots_) {
    std::lock_guard guard(slot.lock);
    if (slot.client && slot.client->queues->uid == uid) return;
  }
  if (queues_.erase(uid)) publish_uids();
}

std::shared_ptr<const Clients::UidList> Clients::uids() {
  std::lock_guard guard(lock_);
  return uids_;
}

void Clients::publish_uids() {
  auto list = std::make_shared<UidList>();
  for (auto& [uid, queues] : queues_) list->push_back(queues);
  std::shared_ptr<const UidList> old = std::move(list);
  {
    std::lock_guard guard(lock_);
    uids_.swap(old);
  }
  uids_version_.fetch_add(1);
  // Servers sleep on the bells of the old list, and one that has gone is in no other.
  for (auto& queues : *old) queues->wake_all();
  uids_changed_();
}

}  // namespace poly
