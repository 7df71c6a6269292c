// Session: one client of the keeper, confined to a scope, and what it is still owed.
//
// Nothing is read from a client that has not taken its answer, so a session owes at most one reply and one
// listing, of which only the place is remembered: a client that does not read costs no memory and delays
// nobody.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "fastpath/fd.hpp"

namespace poly::keeper {

class FdStore;

class Session {
 public:
  // A session of an empty scope may do everything.
  Session(Fd sock, std::string scope) : sock_(std::move(sock)), scope_(std::move(scope)) {}

  [[nodiscard]] int fd() const { return sock_.get(); }
  [[nodiscard]] bool scoped() const { return !scope_.empty(); }
  [[nodiscard]] bool allows(std::string_view name) const { return name.starts_with(scope_); }

  void reply(std::string text) { reply_ = std::move(text); }
  // Answer with all names under `prefix` after `after`.
  void list(std::string_view prefix, std::string_view after, bool with_fds);

  [[nodiscard]] bool owes() const { return !reply_.empty() || listing_.has_value(); }
  // Sends what is owed until there is no more or the socket takes no more.
  void flush(const FdStore& store);
  // The client is gone or its end is closed: it is owed nothing from now on, but what it sent is still read.
  void stop_answering();

  // The kernel would not carry more descriptors just now (ETOOMANYREFS): flush again later, EPOLLOUT will not
  // tell.
  [[nodiscard]] bool must_retry() const { return owes() && retry_; }

  std::uint32_t interest = 0;  // the epoll events asked for; the keeper's

 private:
  struct Listing {
    std::string prefix;
    std::string after;
    bool with_fds = false;
  };

  bool send_next_name(const FdStore& store);
  bool took(ssize_t sent);

  Fd sock_;
  std::string scope_;
  std::string reply_;
  std::optional<Listing> listing_;
  bool retry_ = false;
  bool deaf_ = false;
};

}  // namespace poly::keeper
