// Runs a piece of the test's own thread as somebody else, for the kernel to judge: effective ids and groups
// of this thread only (the raw calls, setuid(2) "C library/kernel differences"), and with them the
// capabilities. Needs root, and a thread whose securebits are the usual ones.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include "native/core/access.hpp"
#include "test/unit/check.hpp"

namespace rig {

class AsUser {
 public:
  explicit AsUser(const poly::Credentials& who) {
    REQUIRE(::syscall(SYS_setgroups, who.groups.size(), who.groups.data()) == 0);
    REQUIRE(::syscall(SYS_setresgid, -1, who.gid, -1) == 0);
    REQUIRE(::syscall(SYS_setresuid, -1, who.uid, -1) == 0);
  }
  ~AsUser() {
    REQUIRE(::syscall(SYS_setresuid, -1, 0, -1) == 0);
    REQUIRE(::syscall(SYS_setresgid, -1, 0, -1) == 0);
    REQUIRE(::syscall(SYS_setgroups, 0, nullptr) == 0);
  }
  AsUser(const AsUser&) = delete;
  AsUser& operator=(const AsUser&) = delete;
};

// Few enough users and groups that they meet.
inline constexpr uid_t kUsers[]{0, 1001, 1002, 1003};
inline constexpr gid_t kGroups[]{0, 2001, 2002, 2003};

inline uint64_t below(uint64_t n) {
  return check::random()() % n;
}

inline poly::Credentials random_credentials() {
  poly::Credentials who;
  who.uid = kUsers[below(5) == 0 ? 0 : 1 + below(3)];
  who.gid = who.uid == 0 ? 0 : kGroups[below(8) == 0 ? 0 : 1 + below(3)];
  for (gid_t group : kGroups) {
    if (group != 0 && below(4) == 0) who.groups.push_back(group);
  }
  who.capable = who.uid == 0;
  return who;
}

// Bytes of a valid access ACL (or default one), as setxattr(2) takes them.
inline std::string random_acl() {
  struct Entry {
    uint16_t tag, permissions;
    uint32_t id;
  };
  constexpr uint32_t kNobody = UINT32_MAX;
  std::string bytes("\2\0\0\0", 4);
  auto add = [&](uint16_t tag, uint32_t id) {
    const Entry entry{tag, static_cast<uint16_t>(below(8)), id};
    bytes.append(reinterpret_cast<const char*>(&entry), sizeof entry);
  };
  bool named = false;
  add(0x01, kNobody);
  for (uid_t user : kUsers) {
    if (below(3) == 0) add(0x02, user), named = true;
  }
  add(0x04, kNobody);
  for (gid_t group : kGroups) {
    if (below(3) == 0) add(0x08, group), named = true;
  }
  if (named || below(2)) add(0x10, kNobody);
  add(0x20, kNobody);
  return bytes;
}

}  // namespace rig
