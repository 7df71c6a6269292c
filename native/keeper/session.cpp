#include "native/keeper/session.hpp"

#include <sys/socket.h>

#include <cerrno>
#include <span>
#include <vector>

#include "fastpath/unix_socket.hpp"
#include "native/keeper/fd_store.hpp"

namespace poly::keeper {
namespace {

ssize_t send_packet(int sock, std::string_view text, std::span<const int> fds) {
  return send_with_fds(sock, std::as_bytes(std::span(text)), fds, MSG_DONTWAIT);
}

}  // namespace

void Session::list(std::string_view prefix, std::string_view after, bool with_fds) {
  listing_ = Listing{std::string(prefix), std::string(after), with_fds};
}

void Session::stop_answering() {
  deaf_ = true;
  reply_.clear();
  listing_.reset();
}

void Session::flush(const FdStore& store) {
  retry_ = false;
  if (deaf_) stop_answering();
  while (owes()) {
    if (reply_.empty()) {
      if (!send_next_name(store)) return;
    } else {
      if (!took(send_packet(fd(), reply_, {}))) return;
      reply_.clear();
    }
  }
}

bool Session::send_next_name(const FdStore& store) {
  const auto* entry = store.next(listing_->prefix, listing_->after);
  if (entry == nullptr) {
    listing_.reset();
    reply_ = "END";
    return true;
  }
  const auto& [name, held] = *entry;
  std::vector<int> fds;
  std::string text = "NAME " + name + " " + std::to_string(held.size());
  if (listing_->with_fds) {
    text = "FDS " + name;
    for (const Fd& fd : held) fds.push_back(fd.get());
  }
  if (!took(send_packet(fd(), text, fds))) return false;
  listing_->after = name;
  return true;
}

bool Session::took(ssize_t sent) {
  if (sent >= 0) return true;
  // A full socket says by EPOLLOUT when it has room; too many descriptors in flight (unix(7)) or no memory do
  // not.
  if (sent == -ETOOMANYREFS || sent == -ENOBUFS || sent == -ENOMEM) retry_ = true;
  if (sent != -EAGAIN && !retry_) stop_answering();
  return false;
}

}  // namespace poly::keeper
