// Keeper: the event loop of poly-keeper. protocol.hpp says what clients may ask.
//
// One thread does everything and never blocks: sockets are used with MSG_DONTWAIT, and descriptors are closed
// by the Closer. It holds no policy and so has no reason to die: /dev/fuse descriptors and memfds outlive
// polyd and services.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string_view>
#include <vector>

#include "fastpath/closer.hpp"
#include "fastpath/fd.hpp"
#include "native/keeper/fd_store.hpp"
#include "native/keeper/session.hpp"

namespace poly::keeper {

class Keeper {
 public:
  // `clients`, `strangers` (may be none): non-blocking listening SOCK_SEQPACKET sockets; the second hands out
  // the mount table. `stop`: becomes readable when run() is to return.
  Keeper(Fd clients, Fd strangers, Fd stop);

  // Serves until `stop`. 0, or -errno when the event loop itself cannot work.
  [[nodiscard]] int run();

 private:
  struct Request {
    std::array<std::string_view, 2> words;  // after the verb; missing ones are empty
    std::vector<Fd> fds;
  };
  // Answers by itself and returns 0, or returns -errno.
  using Handler = int (Keeper::*)(Session&, Request&);
  struct Verb {
    std::string_view name;
    Handler handler;
    std::size_t min_words, max_words;
    std::size_t min_fds, max_fds;
    bool answered;
  };
  static const std::array<Verb, 8> kVerbs;
  static const Verb* find_verb(std::string_view text);
  struct Listener {
    Fd fd;
    std::uint64_t id;
    bool paused = false;  // out of the epoll set until retry_stalled()
  };

  [[nodiscard]] int watch(int fd, std::uint64_t id, std::uint32_t events);
  // False: nobody waits there, or nobody can be taken now.
  [[nodiscard]] bool accept_from(Listener&, Fd& out);
  void pause(Listener&);
  void accept_clients();
  void accept_strangers();
  void send_table(int sock) const;
  void add_session(Fd sock, std::string scope);
  void retry_stalled();
  // Serve and receive return false when the session is over.
  [[nodiscard]] bool serve(std::uint64_t id, Session& session, std::uint32_t events);
  [[nodiscard]] bool receive(Session& session, std::uint32_t events, bool& more);
  void handle(Session& session, std::string_view text, std::vector<Fd> fds);
  void fail(Session& session, std::string_view text, int error);

  int put(Session& session, Request& request);
  int park(Session& session, Request& request);
  int drop(Session& session, Request& request);
  int get(Session& session, Request& request);
  int list(Session& session, Request& request);
  int clear(Session& session, Request& request);
  int scope(Session& session, Request& request);
  int ping(Session& session, Request& request);
  int store(const Session& session, Request& request);
  int list_names(Session& session, const Request& request, bool with_fds);

  // Descriptors in use, apart from the keeper's own few.
  [[nodiscard]] std::size_t held() const;

  Listener clients_;
  Listener strangers_;
  Fd stop_;
  Fd epoll_;
  std::size_t limit_;
  Closer closer_;
  FdStore store_;
  std::map<std::uint64_t, Session> sessions_;  // by a number that is never used again
  std::uint64_t next_id_;
  std::uint64_t dropped_ = 0;
};

}  // namespace poly::keeper
