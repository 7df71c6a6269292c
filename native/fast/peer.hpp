// Who is at the other end of an attach socket, as the kernel vouches for it, and whether the service can act
// for him.
#pragma once

#include <sys/types.h>

#include <vector>

#include "fastpath/fd.hpp"

namespace poly {

struct Peer {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
  bool one_identity = false;  // real and saved ids are these, too
  std::vector<gid_t> groups;
  Fd process;  // a pidfd; none before Linux 6.5
};

// 0; -EPERM for a process whose rights do not follow from its ids: in another user namespace than the
// service, uid 0 without root's file capabilities, anybody else with one. Such processes stay with FUSE,
// where the kernel decides. -ESRCH when the process is gone already.
[[nodiscard]] int identify_peer(int socket, Peer& out);

}  // namespace poly
