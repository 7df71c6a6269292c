#include "native/keeper/keeper.hpp"

#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <string>
#include <utility>

#include "fastpath/mount_table.hpp"
#include "fastpath/unix_socket.hpp"
#include "native/keeper/protocol.hpp"

namespace poly::keeper {
namespace {

constexpr std::uint64_t kClientsId = 0;
constexpr std::uint64_t kStopId = 1;
constexpr std::uint64_t kStrangersId = 2;
constexpr std::uint64_t kFirstSessionId = 3;

// Kept free below RLIMIT_NOFILE, so that a message's descriptors can always be received and then be refused,
// and a connection accepted and then closed: neither ever fails half way.
constexpr std::size_t kMargin = kMaxFdsPerMessage + 47;

constexpr int kPacketsPerTurn = 64;  // then the others get theirs
constexpr int kRetryMilliseconds = 20;

// Of strangers: as many in a row, and so many of their sockets may wait to be closed.
constexpr int kStrangersPerTurn = 16;
constexpr std::size_t kMostClosing = 64;

std::size_t descriptor_limit() {
  rlimit limit{};
  return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 1024;
}

bool is_seqpacket_socket(int fd) {
  int domain = 0;
  int type = 0;
  socklen_t size = sizeof(int);
  if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) return false;
  size = sizeof(int);
  if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0) return false;
  return domain == AF_UNIX && type == SOCK_SEQPACKET;
}

bool may_connect(int sock) {
  PeerCredentials peer;
  return peer_credentials(sock, peer) == 0 && (peer.uid == ::geteuid() || peer.uid == 0);
}

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> words;
  for (;;) {
    const std::size_t space = text.find(' ');
    words.push_back(text.substr(0, space));
    if (space == std::string_view::npos) return words;
    text.remove_prefix(space + 1);
  }
}

// Digits only, and few enough not to overflow.
bool parse_count(std::string_view text, std::size_t& out) {
  if (text.empty() || text.size() > 9) return false;
  out = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
    out = out * 10 + static_cast<std::size_t>(c - '0');
  }
  return true;
}

}  // namespace

const std::array<Keeper::Verb, 8> Keeper::kVerbs = {{
    {"PUT", &Keeper::put, 1, 1, 1, kMaxFdsPerMessage, true},
    {"PARK", &Keeper::park, 1, 1, 1, 1, false},
    {"DROP", &Keeper::drop, 1, 1, 0, 0, false},
    {"GET", &Keeper::get, 0, 2, 0, 0, true},
    {"LIST", &Keeper::list, 0, 2, 0, 0, true},
    {"CLEAR", &Keeper::clear, 0, 1, 0, 0, true},
    {"SCOPE", &Keeper::scope, 1, 2, 1, 1, true},
    {"PING", &Keeper::ping, 0, 0, 0, 0, true},
}};

Keeper::Keeper(Fd clients, Fd strangers, Fd stop)
    : clients_{std::move(clients), kClientsId},
      strangers_{std::move(strangers), kStrangersId},
      stop_(std::move(stop)),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      limit_(descriptor_limit()),
      next_id_(kFirstSessionId) {}

int Keeper::watch(int fd, std::uint64_t id, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = id;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) == 0) return 0;
  if (errno != ENOENT) return -errno;
  return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

int Keeper::run() {
  if (!epoll_) return -EMFILE;
  if (int rc = watch(clients_.fd.get(), kClientsId, EPOLLIN); rc < 0) return rc;
  if (strangers_.fd) {
    if (int rc = watch(strangers_.fd.get(), kStrangersId, EPOLLIN); rc < 0) return rc;
  }
  if (int rc = watch(stop_.get(), kStopId, EPOLLIN); rc < 0) return rc;
  std::array<epoll_event, 64> events;
  for (;;) {
    const bool stalled = clients_.paused || strangers_.paused ||
                         std::any_of(sessions_.begin(), sessions_.end(),
                                     [](const auto& entry) { return entry.second.must_retry(); });
    const int count =
        ::epoll_wait(epoll_.get(), events.data(), events.size(), stalled ? kRetryMilliseconds : -1);
    if (count < 0 && errno != EINTR) return -errno;
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      if (event.data.u64 == kStopId) return 0;
      if (event.data.u64 == kClientsId) accept_clients();
      if (event.data.u64 == kStrangersId) accept_strangers();
      const auto it = sessions_.find(event.data.u64);
      if (it != sessions_.end() && !serve(it->first, it->second, event.events)) sessions_.erase(it);
    }
    if (stalled) retry_stalled();
  }
}

void Keeper::retry_stalled() {
  for (Listener* listener : {&clients_, &strangers_}) {
    if (listener->paused) listener->paused = watch(listener->fd.get(), listener->id, EPOLLIN) != 0;
  }
  for (auto it = sessions_.begin(); it != sessions_.end();) {
    const bool over = it->second.must_retry() && !serve(it->first, it->second, 0);
    it = over ? sessions_.erase(it) : std::next(it);
  }
}

std::size_t Keeper::held() const {
  return store_.fd_count() + sessions_.size() + closer_.pending();
}

bool Keeper::accept_from(Listener& listener, Fd& out) {
  for (;;) {
    Fd sock(::accept4(listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (sock) {
      out = std::move(sock);
      return true;
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    // No descriptor or memory for it: a level-triggered listener would spin.
    if (errno != EAGAIN) pause(listener);
    return false;
  }
}

void Keeper::pause(Listener& listener) {
  listener.paused = ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener.fd.get(), nullptr) == 0;
}

void Keeper::accept_clients() {
  Fd sock;
  while (accept_from(clients_, sock)) {
    if (may_connect(sock.get()) && held() + kMargin < limit_) add_session(std::move(sock), {});
  }
}

// They are anybody: nothing is read from them, nothing is remembered of them, and clients get their turn
// between. A socket may hold descriptors that its other end has sent, so the Closer closes it; should those
// hold up even the Closer, there are no more strangers until it goes on.
void Keeper::accept_strangers() {
  for (int i = 0; i < kStrangersPerTurn; ++i) {
    Fd sock;
    if (closer_.pending() >= kMostClosing || held() + kMargin >= limit_) {
      pause(strangers_);
      return;
    }
    if (!accept_from(strangers_, sock)) return;
    send_table(sock.get());
    closer_.close(std::move(sock));
  }
}

// Each gets an open file of its own, so that they cannot even share its locks and flags. What cannot be sent
// is not sent again: who gets nothing asks the kernel for its files.
void Keeper::send_table(int sock) const {
  const auto* entry = store_.next(kTableName, {});
  if (entry == nullptr || entry->first != kTableName) return;
  Fd table;
  if (MountTable::read_only(entry->second.front().get(), table) < 0) return;
  const int fd = table.get();
  const std::byte nothing{};
  if (send_with_fds(sock, {&nothing, 1}, {&fd, 1}, MSG_DONTWAIT) < 0) return;
}

void Keeper::add_session(Fd sock, std::string scope) {
  const std::uint64_t id = next_id_++;
  const auto it = sessions_.try_emplace(id, std::move(sock), std::move(scope)).first;
  it->second.interest = EPOLLIN | EPOLLRDHUP;
  if (watch(it->second.fd(), id, it->second.interest) < 0) sessions_.erase(it);
}

bool Keeper::serve(std::uint64_t id, Session& session, std::uint32_t events) {
  // A client that died is owed nothing, but what it sent before is kept: PARK promises that.
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) session.stop_answering();
  session.flush(store_);
  bool more = true;
  for (int i = 0; i < kPacketsPerTurn && more && !session.owes(); ++i) {
    if (!receive(session, events, more)) return false;
    session.flush(store_);
  }
  std::uint32_t interest = EPOLLIN | EPOLLRDHUP;
  if (session.owes())
    interest = session.must_retry() ? 0U : std::uint32_t{EPOLLOUT};  // EPOLLHUP comes unasked
  if (interest == session.interest) return true;
  session.interest = interest;
  return watch(session.fd(), id, interest) == 0;
}

bool Keeper::receive(Session& session, std::uint32_t events, bool& more) {
  std::array<char, kMaxPacket> buffer{};  // zeroes: what a failed receive left in it ends somewhere
  std::vector<Fd> fds;
  const ssize_t n = recv_with_fds(session.fd(), std::as_writable_bytes(std::span(buffer)), fds, MSG_DONTWAIT);
  const std::size_t length =
      n < 0 ? std::find(buffer.begin(), buffer.end(), '\0') - buffer.begin() : static_cast<std::size_t>(n);
  const std::string_view text(buffer.data(), length);
  switch (n) {
    case -EAGAIN:
      more = false;
      return true;
    case -ECONNRESET:  // reported once, when the peer closed with answers unread; its packets are still
                       // queued
      return true;
    case -EMFILE:
    case -EMSGSIZE:
      fail(session, text, static_cast<int>(-n));
      return true;
    case 0:
      // The end, or an empty packet, which is a request like any other bad one.
      if (fds.empty() && (events & (EPOLLRDHUP | EPOLLHUP)) != 0) return false;
      break;
    default:
      if (n < 0) return false;
  }
  // An answer, not a request: both ends of a socket were given to SCOPE, and errors would go round for ever.
  if (text.starts_with("ERR ")) return false;
  handle(session, text, std::move(fds));
  return true;
}

const Keeper::Verb* Keeper::find_verb(std::string_view text) {
  const std::string_view name = text.substr(0, text.find(' '));
  const auto it =
      std::find_if(kVerbs.begin(), kVerbs.end(), [&](const Verb& verb) { return verb.name == name; });
  return it == kVerbs.end() ? nullptr : &*it;
}

void Keeper::handle(Session& session, std::string_view text, std::vector<Fd> fds) {
  const Verb* const verb = find_verb(text);
  const std::vector<std::string_view> words = split(text);
  Request request;
  request.fds = std::move(fds);
  int rc = -EINVAL;
  if (verb != nullptr && words.size() - 1 >= verb->min_words && words.size() - 1 <= verb->max_words &&
      request.fds.size() >= verb->min_fds && request.fds.size() <= verb->max_fds) {
    std::copy(words.begin() + 1, words.end(), request.words.begin());
    rc = (this->*verb->handler)(session, request);
  }
  if (rc < 0) fail(session, text, -rc);
  closer_.close(std::move(request.fds));  // what no handler took
}

// The client's own words are not repeated: they may be anything.
void Keeper::fail(Session& session, std::string_view text, int error) {
  const Verb* const verb = find_verb(text);
  if (verb != nullptr && !verb->answered) {
    if (verb->handler == &Keeper::park) ++dropped_;
    return;
  }
  std::string_view reason = "no such request";
  if (error == EPERM) reason = "outside the scope";
  if (error == EMFILE) reason = "the keeper can hold no more";
  if (error == EDQUOT) reason = "the scope can hold no more";
  if (error == EMSGSIZE) reason = "packet too long";
  if (error == ENOTSOCK) reason = "not a seqpacket socket";
  if (error == EINVAL && verb != nullptr) reason = "bad name, or wrong number of words or descriptors";
  session.reply("ERR " + std::string(error_name(error)) + " " + std::string(reason));
}

int Keeper::store(const Session& session, Request& request) {
  const std::string_view name = request.words[0];
  if (!is_name(name)) return -EINVAL;
  if (!session.allows(name)) return -EPERM;
  if (!store_.within_quota(name, request.fds.size())) return -EDQUOT;
  if (held() - store_.count_of(name) + request.fds.size() + kMargin > limit_) return -EMFILE;
  closer_.close(store_.put(name, std::exchange(request.fds, {})));
  return 0;
}

int Keeper::put(Session& session, Request& request) {
  const int rc = store(session, request);
  if (rc == 0) session.reply("OK");
  return rc;
}

int Keeper::park(Session& session, Request& request) {
  return store(session, request);
}

int Keeper::drop(Session& session, Request& request) {
  if (!session.allows(request.words[0])) return -EPERM;
  closer_.close(store_.take(request.words[0]));
  return 0;
}

int Keeper::get(Session& session, Request& request) {
  return list_names(session, request, true);
}

int Keeper::list(Session& session, Request& request) {
  return list_names(session, request, false);
}

int Keeper::list_names(Session& session, const Request& request, bool with_fds) {
  const auto& [prefix, after] = request.words;
  if (!is_prefix(prefix) || !is_prefix(after)) return -EINVAL;
  if (!session.allows(prefix)) return -EPERM;
  session.list(prefix, after, with_fds);
  return 0;
}

int Keeper::clear(Session& session, Request& request) {
  const std::string_view prefix = request.words[0];
  if (!is_prefix(prefix)) return -EINVAL;
  if (!session.allows(prefix)) return -EPERM;
  while (const auto* entry = store_.next(prefix, {})) {
    const std::string name = entry->first;
    closer_.close(store_.take(name));
  }
  session.reply("OK");
  return 0;
}

// Only who sees everything may make scopes, so that a confined client cannot use up descriptors as sessions.
int Keeper::scope(Session& session, Request& request) {
  const auto& [prefix, most] = request.words;
  std::size_t limit = 0;
  if (session.scoped()) return -EPERM;
  if (!is_name(prefix) || (!most.empty() && !parse_count(most, limit))) return -EINVAL;
  if (!is_seqpacket_socket(request.fds[0].get())) return -ENOTSOCK;
  if (held() + 1 + kMargin > limit_) return -EMFILE;
  if (!most.empty()) store_.set_quota(prefix, limit);
  add_session(std::move(request.fds[0]), std::string(prefix));
  request.fds.clear();
  session.reply("OK");
  return 0;
}

int Keeper::ping(Session& session, Request&) {
  session.reply("PONG pid=" + std::to_string(::getpid()) + " fds=" + std::to_string(store_.fd_count()) +
                " names=" + std::to_string(store_.name_count()) + " dropped=" + std::to_string(dropped_) +
                " clients=" + std::to_string(sessions_.size()) +
                " closing=" + std::to_string(closer_.pending()) + " limit=" + std::to_string(limit_));
  return 0;
}

}  // namespace poly::keeper
