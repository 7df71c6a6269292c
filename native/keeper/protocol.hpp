// clang-format off
// The keeper's protocol: what poly-keeper and its clients both need to know.
//
// One SOCK_SEQPACKET packet is one message: words separated by single spaces, descriptors attached (SCM_RIGHTS).
// A name is 1 to 200 printable ASCII bytes without spaces; a prefix is the same or empty, and matches by bytes: end
// it with a separator (`svc7/`) where `svc7` must not match `svc70`.
//
//   request                    answer
//   PUT <name> + 1..253 fds    OK                               store them, replacing what had the name
//   PARK <name> + 1 fd         none                             PUT; the fd is safe once sendmsg() returned
//   DROP <name>                none                             forget it, if it is there
//   GET [<prefix> [<after>]]   FDS <name> + fds, each; END      in name order, names greater than <after>
//   LIST [<prefix> [<after>]]  NAME <name> <count>, each; END   the same without descriptors
//   CLEAR [<prefix>]           OK                               forget all of them
//   SCOPE <prefix> [<most>] + fd   OK                           make a confined client, see below
//   PING                       PONG pid=N fds=N names=N dropped=N clients=N closing=N limit=N
//
// SCOPE's descriptor is one end of a SEQPACKET socketpair. Who holds the other end is a client that may only use
// names with the prefix, at most <most> descriptors under it, and may make no scopes.
//
// A request that cannot be served is answered ERR <errno name> <text>, and the connection stays usable. PARK and DROP
// are never answered: a PARK that failed is counted in PING's `dropped`. Answers come in the order of the requests. A
// packet to the keeper that begins with ERR ends its connection.
//
//   EINVAL    no such request, bad name, descriptors missing or not wanted
//   EPERM     outside the client's scope
//   EMFILE    the keeper can hold no more
//   EDQUOT    the scope can hold no more
//   EMSGSIZE  packet longer than kMaxPacket
//   ENOTSOCK  SCOPE's descriptor is no such socket
//
// The table socket is another one, for strangers: SOCK_SEQPACKET, too, and open to every user. Who connects gets one
// packet, a byte of no meaning with one descriptor: the mount table, which can be read and mapped read-only. Then, or
// at once when there is no table, the keeper closes. It reads nothing there.
// clang-format on
#pragma once

#include <cerrno>
#include <cstddef>
#include <string_view>

namespace poly::keeper {

inline constexpr std::size_t kMaxName = 200;
inline constexpr std::size_t kMaxPacket = 1024;
// Under which name polyd keeps the mount table.
inline constexpr std::string_view kTableName = "polyd/table";

inline bool is_prefix(std::string_view text) {
  if (text.size() > kMaxName) return false;
  for (const char c : text) {
    if (c <= ' ' || c > '~') return false;
  }
  return true;
}

inline bool is_name(std::string_view text) {
  return !text.empty() && is_prefix(text);
}

struct ErrorName {
  int error;
  std::string_view name;
};
inline constexpr ErrorName kErrorNames[] = {
    {EINVAL, "EINVAL"}, {EPERM, "EPERM"},       {EMFILE, "EMFILE"},
    {EDQUOT, "EDQUOT"}, {EMSGSIZE, "EMSGSIZE"}, {ENOTSOCK, "ENOTSOCK"},
};

inline std::string_view error_name(int error) {
  for (const ErrorName& e : kErrorNames) {
    if (e.error == error) return e.name;
  }
  return "EINVAL";
}

inline int error_number(std::string_view name) {
  for (const ErrorName& e : kErrorNames) {
    if (e.name == name) return e.error;
  }
  return EPROTO;
}

}  // namespace poly::keeper
