#include "native/fast/peer.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "fastpath/fd.hpp"
#include "fastpath/unix_socket.hpp"

namespace poly {
namespace {

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77  // Linux 6.5
#endif

// CAP_CHOWN to CAP_FSETID: what the kernel's file permission checks ask for.
constexpr uint64_t kFileCapabilities = 1ull << CAP_CHOWN | 1ull << CAP_DAC_OVERRIDE |
                                       1ull << CAP_DAC_READ_SEARCH | 1ull << CAP_FOWNER | 1ull << CAP_FSETID;

struct Status {
  uint64_t capabilities = 0;  // effective
  bool one_identity = true;
};

// /proc/PID/status (proc(5)), whose lines of ids have the real, effective, saved and filesystem id.
int read_status(pid_t pid, const Peer& peer, Status& out) {
  char path[40];
  snprintf(path, sizeof path, "/proc/%d/status", pid);
  std::unique_ptr<FILE, int (*)(FILE*)> status(fopen(path, "re"), fclose);
  if (!status) return -ESRCH;
  char line[256];
  while (fgets(line, sizeof line, status.get())) {
    unsigned long long bits;
    unsigned real, effective, saved;
    if (sscanf(line, "Uid: %u %u %u", &real, &effective, &saved) == 3)
      out.one_identity &= real == peer.uid && effective == peer.uid && saved == peer.uid;
    if (sscanf(line, "Gid: %u %u %u", &real, &effective, &saved) == 3)
      out.one_identity &= real == peer.gid && effective == peer.gid && saved == peer.gid;
    if (sscanf(line, "CapEff: %llx", &bits) != 1) continue;
    out.capabilities = bits;
    return 0;
  }
  return -ESRCH;
}

bool same_map(pid_t pid, const char* map) {
  char theirs[64], ours[64];
  snprintf(theirs, sizeof theirs, "/proc/%d/%s", pid, map);
  snprintf(ours, sizeof ours, "/proc/self/%s", map);
  std::ifstream a(theirs), b(ours);
  if (!a || !b) return false;
  using Text = std::istreambuf_iterator<char>;
  return std::string(Text(a), Text()) == std::string(Text(b), Text());
}

// By its maps of ids, which anybody may read: /proc/PID/ns/user takes CAP_SYS_PTRACE, which a service has
// not. Equal maps mean equal rights to files even in two namespaces (capable_wrt_inode_uidgid,
// kernel/capability.c).
bool same_user_namespace(pid_t pid) {
  return same_map(pid, "uid_map") && same_map(pid, "gid_map");
}

// Asked after /proc: as long as the process that connected lives, its pid is nobody else's. Before Linux 6.5
// nobody can say; a reused pid is then possible within microseconds of its owner's death.
int peer_process(int socket, Fd& out) {
  int raw = -1;
  socklen_t size = sizeof raw;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &raw, &size) != 0)
    return errno == ENOPROTOOPT ? 0 : -errno;
  out.reset(raw);
  pollfd ended{raw, POLLIN, 0};
  return poll(&ended, 1, 0) == 0 ? 0 : -ESRCH;
}

int peer_groups(int socket, std::vector<gid_t>& out) {
  socklen_t size = 0;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, nullptr, &size) != 0 && errno != ERANGE) return -errno;
  out.resize(size / sizeof(gid_t));
  if (out.empty()) return 0;
  return getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, out.data(), &size) == 0 ? 0 : -errno;
}

}  // namespace

int identify_peer(int socket, Peer& out) {
  PeerCredentials credentials;
  if (int err = peer_credentials(socket, credentials)) return err;
  out.pid = credentials.pid;
  out.uid = credentials.uid;
  out.gid = credentials.gid;
  if (int err = peer_groups(socket, out.groups)) return err;
  Status status;
  if (int err = read_status(out.pid, out, status)) return err;
  out.one_identity = status.one_identity;
  const uint64_t files = status.capabilities & kFileCapabilities;
  const bool usual = out.uid == 0 ? files == kFileCapabilities : files == 0;
  if (!usual || !same_user_namespace(out.pid)) return -EPERM;
  return peer_process(socket, out.process);
}

}  // namespace poly
