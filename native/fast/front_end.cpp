#include "native/fast/front_end.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <set>

#include "fastpath/waiting.hpp"
#include "native/fast/calls.hpp"

namespace poly {
namespace {

// As fuse_permissible_uidgid() (fs/fuse/dir.c). The kernel has just let this process in by the same rule, so
// its ids are those of who has mounted it.
bool is_owner(const ClientView& client) {
  return client.one_identity && client.credentials.uid == geteuid() && client.credentials.gid == getegid();
}

}  // namespace

FrontEnd::FrontEnd(Dispatcher& dispatcher, ParkingLot& parking, std::string prefix, uint32_t max_threads,
                   int poll_cpu)
    : dispatcher_(dispatcher),
      parking_(parking),
      prefix_(std::move(prefix)),
      servers_(*this, max_threads, poll_cpu),
      clients_(*this, servers_.placement(), [this] { servers_.uids_changed(); }) {}

std::string FrontEnd::parked_name(uint64_t key) const {
  return prefix_ + std::to_string(key);
}

// Open files in pool memory belong to clients that live, and may return, or to dead ones. A client whose
// process nobody knows (an old kernel, a full keeper) is taken for dead.
int FrontEnd::start(const std::string& socket, std::vector<ParkedFd> parked) {
  std::set<uint64_t> unknown;
  for (uint64_t key : dispatcher_.clients_with_files()) unknown.insert(key);
  for (ParkedFd& process : parked) {
    const uint64_t key = strtoull(process.name.c_str() + prefix_.size(), nullptr, 10);
    unknown.erase(key);
    clients_.expect(key, std::move(process.fd));
  }
  for (uint64_t key : unknown) dispatcher_.close_client(key);
  if (int err = clients_.start(socket)) return err;
  servers_.start(clients_);
  started_ = true;
  return 0;
}

bool FrontEnd::stop() {
  clients_.stop();
  return !started_ || servers_.stop();
}

void FrontEnd::restoring() {
  restoring_until_.store(monotonic_now() + kLongestRestoring);
}

bool FrontEnd::ready() {
  return restoring_until_.load() <= monotonic_now();
}

void FrontEnd::add(uint32_t instance, const MountIdentity& mount) {
  std::lock_guard guard(lock_);
  mounts_[instance] = mount;
}

void FrontEnd::remove(uint32_t instance) {
  std::lock_guard guard(lock_);
  mounts_.erase(instance);
}

// The descriptor says that its owner could reach the mount; its numbers, that it is this mount's root. Until
// that is known it may be of a filesystem that answers when it likes, so what the kernel knows must do
// (statx(2), AT_STATX_DONT_SYNC).
int FrontEnd::prove(FastClient& client, uint32_t instance, int root_fd, AttachProven& out) {
  MountIdentity mount;
  {
    std::lock_guard guard(lock_);
    auto it = mounts_.find(instance);
    if (it == mounts_.end()) return -ENOENT;
    mount = it->second;
  }
  struct statx stx, unique;
  constexpr int kHow = AT_EMPTY_PATH | AT_STATX_DONT_SYNC;
  if (statx(root_fd, "", kHow, STATX_INO | STATX_MNT_ID, &stx) != 0) return -errno;
  if (makedev(stx.stx_dev_major, stx.stx_dev_minor) != mount.device || stx.stx_mnt_id != mount.mount_id ||
      stx.stx_ino != mount.root_inode)
    return -EXDEV;
  if (!mount.allow_other && !is_owner(*client.view())) return -EACCES;
  if (statx(root_fd, "", kHow, kUniqueMountId, &unique) != 0) return -errno;
  MountFlags flags;
  if (int err = flags.read(root_fd, unique.stx_mask & kUniqueMountId ? unique.stx_mnt_id : 0)) return err;
  Dispatcher::Use use = dispatcher_.use(instance);
  if (!use) return -ENOENT;
  control_name(use->control, client.key, out.control);
  flags.read_only |= use->read_only.load();
  out.read_only = flags.read_only;
  client.prove(instance, flags);
  return 0;
}

void FrontEnd::arrived(FastClient& client, int process) {
  if (process >= 0) (void)parking_.park(parked_name(client.key), process);
}

// Its socket is open, so the process lives, or has left the socket to a child; should the number have been
// given to another since, files of the client stay open until that one ends.
void FrontEnd::park_again() {
  for (auto& client : clients_.all()) {
    const Fd process(static_cast<int>(syscall(SYS_pidfd_open, client->pid, 0)));
    arrived(*client->fast, process.get());
  }
}

void FrontEnd::returned(FastClient& client) {
  client.open_files.store(dispatcher_.count_client_files(client.key));
}

void FrontEnd::ended(FastClient& client) {
  stayed_away(client.key);
}

void FrontEnd::stayed_away(uint64_t key) {
  dispatcher_.close_client(key);
  parking_.drop(parked_name(key));
}

int32_t FrontEnd::run(AttachedClient& client, uint32_t buffer, uint32_t sequence, const WireCall& call,
                      std::string_view path, std::string_view path2, std::span<std::byte> data,
                      WireAnswer& answer, ServerContext& context) {
  return run_call(dispatcher_, *client.fast, buffer, sequence, call, path, path2, data, answer, context.shard,
                  context.record, context.teller);
}

void FrontEnd::watch(const BackendWatch::Judge& judge) {
  servers_.watch(
      [this](FastClient& client, const WireCall& call) {
        Dispatcher::ClientFile file;
        if ((call.walk & kWalkHandle) == 0) return call.instance;
        return dispatcher_.client_file(client.key, call.file, file) ? file.instance : 0;
      },
      judge);
}

void FrontEnd::begin(ServerContext& context) {
  context.record = dispatcher_.replays().reserve();
}

void FrontEnd::end(ServerContext& context) {
  if (context.record) dispatcher_.replays().release(context.record);
}

}  // namespace poly
