#include "native/core/keeper_client.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <iterator>

#include "fastpath/unix_socket.hpp"
#include "native/keeper/protocol.hpp"

namespace poly {
namespace {

constexpr timeval kPatience{10, 0};

bool set_timeouts(int sock) {
  return ::setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof(kPatience)) == 0 &&
         ::setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof(kPatience)) == 0;
}

// "ERR ENAME text" is -ENAME, everything else not an error.
int error_of(std::string_view answer) {
  if (!answer.starts_with("ERR ")) return 0;
  answer.remove_prefix(4);
  return -keeper::error_number(answer.substr(0, answer.find(' ')));
}

bool parse_number(std::string_view text, std::uint64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc{} && end == text.data() + text.size();
}

// The number in "PONG ... key=number ...".
bool field(std::string_view answer, std::string_view key, std::uint64_t& out) {
  const std::string wanted = " " + std::string(key) + "=";
  const std::size_t at = answer.find(wanted);
  if (at == std::string_view::npos) return false;
  answer.remove_prefix(at + wanted.size());
  return parse_number(answer.substr(0, answer.find(' ')), out);
}

}  // namespace

KeeperClient::KeeperClient(Fd sock) : sock_(std::move(sock)) {
  set_timeouts(sock_.get());
}

int KeeperClient::connect(const std::string& path) {
  Fd sock;
  if (int rc = connect_unix(path, SOCK_SEQPACKET, sock); rc < 0) return rc;
  if (!set_timeouts(sock.get())) return -errno;
  const std::lock_guard lock(mutex_);
  sock_ = std::move(sock);
  return 0;
}

// By dup3(2): for other threads, which send without the lock, the number leads to the old socket or to the
// new.
int KeeperClient::replace(Fd sock) {
  if (!set_timeouts(sock.get())) return -errno;
  const std::lock_guard lock(mutex_);
  return ::dup3(sock.get(), sock_.get(), O_CLOEXEC) >= 0 ? 0 : -errno;
}

int KeeperClient::send(const std::string& text, std::span<const int> fds) {
  if (!sock_) return -ENOTCONN;
  const ssize_t n = send_with_fds(sock_.get(), std::as_bytes(std::span(text)), fds, 0);
  if (n == -EAGAIN) return -ETIMEDOUT;
  return n < 0 ? static_cast<int>(n) : 0;
}

int KeeperClient::receive(std::string& text, std::vector<Fd>& fds) {
  std::array<char, keeper::kMaxPacket> buffer;
  const ssize_t n = recv_with_fds(sock_.get(), std::as_writable_bytes(std::span(buffer)), fds, 0);
  if (n == -EMFILE) return -EMFILE;  // one packet is lost, the answer goes on
  if (n <= 0) {
    // Shut down, not closed: another thread may be sending, and the number must not become another file's.
    ::shutdown(sock_.get(), SHUT_RDWR);
    return n == 0 ? -ECONNRESET : n == -EAGAIN ? -ETIMEDOUT : static_cast<int>(n);
  }
  text.assign(buffer.data(), static_cast<std::size_t>(n));
  return 0;
}

int KeeperClient::ask(const std::string& text, std::span<const int> fds, std::string& answer) {
  const std::lock_guard lock(mutex_);
  if (int rc = send(text, fds); rc < 0) return rc;
  std::vector<Fd> none;
  if (int rc = receive(answer, none); rc < 0) return rc;
  return error_of(answer);
}

int KeeperClient::ask_ok(const std::string& text, std::span<const int> fds) {
  std::string answer;
  if (int rc = ask(text, fds, answer); rc < 0) return rc;
  return answer == "OK" ? 0 : -EPROTO;
}

// Reads "<kind> <rest>" packets up to END, all of them even after an error: the connection stays usable.
template <class Take>
int KeeperClient::ask_list(std::string_view verb, std::string_view prefix, std::string_view kind,
                           Take&& take) {
  if (!keeper::is_prefix(prefix)) return -EINVAL;
  const std::string text = std::string(verb) + " " + std::string(prefix);
  const std::lock_guard lock(mutex_);
  if (int rc = send(text, {}); rc < 0) return rc;
  int result = 0;
  for (;;) {
    std::string answer;
    std::vector<Fd> fds;
    const int rc = receive(answer, fds);
    if (rc == -EMFILE) {
      result = rc;
      continue;
    }
    if (rc < 0) return rc;
    if (answer == "END") return result;
    if (int error = error_of(answer); error < 0) return error;
    if (!answer.starts_with(kind) || !take(answer.substr(kind.size()), std::move(fds))) result = -EPROTO;
  }
}

int KeeperClient::put(std::string_view name, std::span<const int> fds) {
  if (!keeper::is_name(name) || fds.empty()) return -EINVAL;
  return ask_ok("PUT " + std::string(name), fds);
}

int KeeperClient::park(std::string_view name, int fd) {
  if (!keeper::is_name(name)) return -EINVAL;
  return send("PARK " + std::string(name), {&fd, 1});
}

int KeeperClient::drop(std::string_view name) {
  if (!keeper::is_name(name)) return -EINVAL;
  return send("DROP " + std::string(name), {});
}

int KeeperClient::get(std::string_view prefix, std::vector<NamedFds>& out) {
  std::vector<NamedFds> found;
  const int rc = ask_list("GET", prefix, "FDS ", [&](std::string name, std::vector<Fd> fds) {
    found.emplace_back(std::move(name), std::move(fds));
    return true;
  });
  if (rc == 0) std::move(found.begin(), found.end(), std::back_inserter(out));
  return rc;
}

int KeeperClient::list(std::string_view prefix, std::vector<NamedCount>& out) {
  std::vector<NamedCount> found;
  const int rc = ask_list("LIST", prefix, "NAME ", [&](const std::string& rest, std::vector<Fd>) {
    const std::size_t space = rest.find(' ');
    std::uint64_t count = 0;
    if (space == std::string::npos || !parse_number(std::string_view(rest).substr(space + 1), count))
      return false;
    found.emplace_back(rest.substr(0, space), count);
    return true;
  });
  if (rc == 0) std::move(found.begin(), found.end(), std::back_inserter(out));
  return rc;
}

int KeeperClient::clear(std::string_view prefix) {
  if (!keeper::is_prefix(prefix)) return -EINVAL;
  return ask_ok("CLEAR " + std::string(prefix), {});
}

int KeeperClient::scope(std::string_view prefix, std::size_t most, Fd& out) {
  if (!keeper::is_name(prefix)) return -EINVAL;
  std::array<int, 2> pair{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) != 0) return -errno;
  Fd ours(pair[0]);
  const Fd theirs(pair[1]);
  std::string text = "SCOPE " + std::string(prefix);
  if (most != kNoLimit) text += " " + std::to_string(most);
  const int fd = theirs.get();
  if (int rc = ask_ok(text, {&fd, 1}); rc < 0) return rc;
  out = std::move(ours);
  return 0;
}

int KeeperClient::ping(KeeperStatus& out) {
  std::string answer;
  if (int rc = ask("PING", {}, answer); rc < 0) return rc;
  const bool complete = answer.starts_with("PONG ") && field(answer, "pid", out.pid) &&
                        field(answer, "fds", out.fds) && field(answer, "names", out.names) &&
                        field(answer, "dropped", out.dropped) && field(answer, "clients", out.clients) &&
                        field(answer, "closing", out.closing) && field(answer, "limit", out.limit);
  return complete ? 0 : -EPROTO;
}

}  // namespace poly
