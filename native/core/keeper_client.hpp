// KeeperClient: a connection to poly-keeper (native/keeper/protocol.hpp is the protocol).
//
// Functions return 0 or -errno: those of the protocol for what the keeper refuses; -EPIPE, -ECONNRESET or
// -ENOTCONN when it is gone; -ETIMEDOUT when it did not answer or take a message within 10 s; -EPROTO for an
// answer that makes no sense. After a lost or late answer the connection is closed, for its next answer would
// be taken for another's. Thread safe: requests with an answer take turns; park() and drop() wait for nobody
// but the socket.
//
// Never give the keeper a descriptor of a file inside a mount that depends on it: /dev/fuse descriptors,
// memfds and files of the host's own filesystems only. Descriptors handed in stay the caller's; those handed
// out are close-on-exec.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fastpath/fd.hpp"

namespace poly {

using NamedFds = std::pair<std::string, std::vector<Fd>>;
using NamedCount = std::pair<std::string, std::size_t>;

struct KeeperStatus {
  std::uint64_t pid = 0;
  std::uint64_t fds = 0;
  std::uint64_t names = 0;
  std::uint64_t dropped = 0;  // park() calls that could not be honoured
  std::uint64_t clients = 0;
  std::uint64_t closing = 0;
  std::uint64_t limit = 0;  // the keeper's RLIMIT_NOFILE
};

// What calls return when the keeper has died.
[[nodiscard]] inline bool keeper_gone(int error) {
  return error == -EPIPE || error == -ECONNRESET || error == -ENOTCONN;
}

class KeeperClient {
 public:
  static constexpr std::size_t kNoLimit = 0;

  KeeperClient() = default;
  KeeperClient(const KeeperClient&) = delete;
  KeeperClient& operator=(const KeeperClient&) = delete;

  [[nodiscard]] int connect(const std::string& path);
  // From now on by way of `sock`, which leads to the keeper that took the place of one that died.
  [[nodiscard]] int replace(Fd sock);
  // Takes a connected socket, such as the one that scope() made.
  [[nodiscard]] static KeeperClient from_fd(Fd sock) { return KeeperClient(std::move(sock)); }

  // Stores 1 to 253 descriptors under a name. -EMFILE: the keeper is full; -EDQUOT: the scope is; -EPERM.
  [[nodiscard]] int put(std::string_view name, std::span<const int> fds);
  // Hands over one descriptor without waiting: it is safe once this returned 0, also if this process dies at
  // once, unless the keeper is full or the name is out of scope (KeeperStatus::dropped).
  [[nodiscard]] int park(std::string_view name, int fd);
  [[nodiscard]] int drop(std::string_view name);
  // All names under `prefix`, in order. -EMFILE when this process could not take them all: `out` is as it
  // was.
  [[nodiscard]] int get(std::string_view prefix, std::vector<NamedFds>& out);
  [[nodiscard]] int list(std::string_view prefix, std::vector<NamedCount>& out);
  [[nodiscard]] int clear(std::string_view prefix);
  // A new connection confined to names that begin with `prefix`, for handing to a service; `most` descriptors
  // at most.
  [[nodiscard]] int scope(std::string_view prefix, std::size_t most, Fd& out);
  [[nodiscard]] int ping(KeeperStatus& out);

 private:
  explicit KeeperClient(Fd sock);

  [[nodiscard]] int send(const std::string& text, std::span<const int> fds);
  [[nodiscard]] int receive(std::string& text, std::vector<Fd>& fds);
  [[nodiscard]] int ask(const std::string& text, std::span<const int> fds, std::string& answer);
  [[nodiscard]] int ask_ok(const std::string& text, std::span<const int> fds);
  template <class Take>
  [[nodiscard]] int ask_list(std::string_view verb, std::string_view prefix, std::string_view kind,
                             Take&& take);

  std::mutex mutex_;  // held from a request to the end of its answer
  Fd sock_;           // replaced by connect() only
};

}  // namespace poly
