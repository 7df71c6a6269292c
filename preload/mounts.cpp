#include "preload/mounts.hpp"

#include <string.h>
#include <sys/sysmacros.h>

#include <new>

#include "fastpath/attach_table.hpp"
#include "preload/arena.hpp"
#include "preload/counters.hpp"
#include "preload/fd_table.hpp"
#include "preload/mount_points.hpp"
#include "preload/process.hpp"

namespace poly {

namespace {

constexpr unsigned kMountId = 0x1000;  // STATX_MNT_ID, Linux 5.8

constinit Mount all[own_fds::kMaxMounts];
std::atomic<uint32_t> count_of_mounts{0};

int root_place(const Mount& mount) {
  return own_fds::kFirstMount + 2 * static_cast<int>(&mount - all);
}

// ---- The table ----

// Never destroyed: threads may run while the process exits.
alignas(MountTable) unsigned char table_storage[sizeof(MountTable)];
enum TableState : uint32_t { kUntried, kReady, kFailed };
std::atomic<uint32_t> table_state{kUntried};

MountTable& table() {
  return *std::launder(reinterpret_cast<MountTable*>(table_storage));
}

bool have_table() {
  const uint32_t state = table_state.load(std::memory_order_acquire);
  if (state != kUntried) return state == kReady;
  SignalsBlocked blocked;
  ThreadLockHold hold(sessions::lock);
  if (table_state.load() != kUntried) return table_state.load() == kReady;
  const int before = errno;
  auto* made = new (table_storage) MountTable;
  const int result = Arena::make() ? attach_table(process::attach_directory, *made) : -ENOMEM;
  errno = before;
  if (result != 0) {
    count(Decline::no_table);
    process::enabled.store(false);
  }
  table_state.store(result == 0 ? kReady : kFailed, std::memory_order_release);
  return result == 0;
}

// The generation while no path has led anywhere near a mount.
constexpr uint64_t kNotNeeded = 1;

// ---- The filter: which first components lead to a mount, as a set of 256 bits ----

std::atomic<uint64_t> filter[4];
std::atomic<uint64_t> filter_generation{0};

struct FirstComponent {
  uint8_t hash = 0;
  bool plain = true;  // false: "", "." or "..": nothing is known
  explicit FirstComponent(const char* path) {
    uint32_t value = 0;
    const char* at = path + 1;
    for (; *at != '\0' && *at != '/'; ++at) value = value * 31 + static_cast<unsigned char>(*at);
    const auto size = at - path - 1;
    plain = size > 2 || (size > 0 && path[1] != '.');
    hash = static_cast<uint8_t>(value ^ value >> 8);
  }
};

void build_filter(uint64_t generation) {
  SignalsBlocked blocked;
  ThreadLockHold hold(sessions::lock);
  uint64_t bits[4]{};
  bool at_root = false;
  const int result = table().for_each([&](std::string_view path, const MountEntry& entry) {
    if ((entry.flags & kMountKernel) != 0) return;
    if (path.size() == 1) at_root = true;
    const uint8_t hash = FirstComponent(path.data()).hash;
    bits[hash / 64] |= uint64_t{1} << hash % 64;
  });
  // A table that is being written is asked again on the next call.
  for (int i = 0; i < 4; ++i)
    filter[i].store(result != 0 || at_root ? ~uint64_t{0} : bits[i], std::memory_order_relaxed);
  if (result == 0) filter_generation.store(generation, std::memory_order_release);
}

// ---- Proofs ----

bool is_below(std::string_view path, std::string_view parent) {
  if (parent.size() == 1) return path.size() > 1;
  return path.size() > parent.size() && memcmp(path.data(), parent.data(), parent.size()) == 0 &&
         path[parent.size()] == '/';
}

bool any_below(std::string_view prefix) {
  bool found = false;
  const int result = table().for_each(
      [&](std::string_view path, const MountEntry&) { found = found || is_below(path, prefix); });
  return found || result != 0;
}

bool holds(const Mount& mount, uint64_t generation) {
  return mount.generation.load(std::memory_order_acquire) == generation &&
         mount.credentials.load(std::memory_order_relaxed) == process::credentials.load() &&
         mount.place.load(std::memory_order_relaxed) == process::places.load();
}

// The mount itself, seen through this process's eyes: 0 or -errno. Of what the kernel knows without asking
// the service, which would be a turn through FUSE for each.
int look(Mount& mount, const MountEntry& entry, int root) {
  constexpr int kHow = AT_EMPTY_PATH | AT_STATX_DONT_SYNC;
  struct statx st;
  if (int rc = sys::statx(root, "", kHow, STATX_INO | STATX_TYPE | kMountId, &st); rc < 0) return rc;
  if (makedev(st.stx_dev_major, st.stx_dev_minor) != entry.device || st.stx_mnt_id != entry.mount_id)
    return -EXDEV;
  // After chroot(2) the path may lead to a directory somewhere in the same mount.
  if ((st.stx_attributes & STATX_ATTR_MOUNT_ROOT) == 0) return -EXDEV;
  mount.attributes_mask = st.stx_attributes_mask;
  mount.root_inode = st.stx_ino;
  const int rc = sys::statx(root, "", kHow, STATX_INO | kUniqueMountId, &st);
  mount.unique_mount_id = rc == 0 && (st.stx_mask & kUniqueMountId) != 0 ? st.stx_mnt_id : 0;
  if (int error = mount.flags.read(root, mount.unique_mount_id); error < 0) return error;
  const bool read_only = (entry.flags & kMountReadOnly) != 0;
  return mount.flags.read_only != read_only || mount.flags.no_symlinks ? -EROFS : 0;
}

// Shows the service that we reach the mount.
int show(Mount& mount, int root) {
  if (int rc = mount.session->attach(); rc != 0) return rc;
  AttachProven proven{};
  if (int rc = mount.session->prove(mount.instance, root, proven); rc != 0) return rc;
  memcpy(mount.control, proven.control, sizeof(mount.control));
  mount.control[sizeof(mount.control) - 1] = '\0';
  own_fds::reset(root_place(mount) + 1);
  return 0;
}

int verify(Mount& mount, const MountEntry& entry, const char* prefix, bool shown) {
  int root = sys::openat(AT_FDCWD, prefix, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) return root;
  root = own_fds::move_high(root);
  int result = look(mount, entry, root);
  // Mounts elsewhere have changed: the service knows already that we reach this one.
  if (result == 0 && !shown) result = show(mount, root);
  if (result != 0) {
    sys::close(root);
    return result;
  }
  own_fds::reset(root_place(mount));
  own_fds::set(root_place(mount), root);
  return 0;
}

Mount* record_for(const MountEntry& entry) {
  const uint32_t used = count_of_mounts.load();
  for (uint32_t i = 0; i < used; ++i) {
    Mount& mount = all[i];
    if (mount.session->service() == entry.service && mount.instance == entry.instance &&
        mount.mount_id == entry.mount_id && mount.device == entry.device)
      return &mount;
  }
  if (used == own_fds::kMaxMounts) return nullptr;
  Session* session = sessions::of(entry.service);
  if (session == nullptr) return nullptr;
  Mount& mount = all[used];
  mount.session = session;
  mount.instance = entry.instance;
  mount.device = entry.device;
  mount.mount_id = entry.mount_id;
  count_of_mounts.store(used + 1, std::memory_order_release);
  return &mount;
}

Mount* prove(const MountEntry& entry, std::string_view path, uint64_t generation) {
  SignalsBlocked blocked;
  ThreadLockHold hold(sessions::lock);
  Mount* mount = record_for(entry);
  if (mount == nullptr) {
    count(Decline::no_room);
    return nullptr;
  }
  if (holds(*mount, generation)) return mount;
  const uint32_t credentials = process::credentials.load(), place = process::places.load();
  const bool shown =
      mount->root_fd() >= 0 && !mount->refused.load() && mount->credentials.load() == credentials;
  char prefix[kMaxPathLength + 1];
  memcpy(prefix, path.data(), path.size());
  prefix[path.size()] = '\0';
  const int result = verify(*mount, entry, prefix, shown);
  if (result != 0) count(Decline::not_proven);
  mount->refused.store(result != 0);
  mount->mounts_below.store(any_below(path));
  mount->credentials.store(credentials);
  mount->place.store(place);
  mount->generation.store(generation, std::memory_order_release);
  return mount;
}

uint32_t components(std::string_view path) {
  uint32_t found = 0;
  for (size_t i = 0; i + 1 < path.size(); ++i) found += path[i] == '/';
  return found;
}

}  // namespace

int Mount::root_fd() const {
  return own_fds::get(root_place(*this));
}

int Mount::control_fd() {
  const int place = root_place(*this) + 1;
  if (const int fd = own_fds::get(place); fd >= 0) return fd;
  const SignalsBlocked blocked;
  const ThreadLockHold hold(sessions::lock);
  if (const int fd = own_fds::get(place); fd >= 0) return fd;
  const int fd = sys::openat(root_fd(), control, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return fd;
  own_fds::set(place, own_fds::move_high(fd));
  return own_fds::get(place);
}

namespace mounts {

uint64_t generation() {
  const bool needed = table_state.load(std::memory_order_acquire) != kUntried || !mount_points::known();
  if (!needed) return kNotNeeded;
  return have_table() ? table().generation() + kNotNeeded + 1 : 0;
}

bool may_match(const char* path) {
  if (table_state.load(std::memory_order_acquire) != kReady) {
    if (mount_points::known() && !mount_points::may_lead_to(path)) return false;
    if (!have_table()) return false;
  }
  const uint64_t now = generation();
  if (filter_generation.load(std::memory_order_acquire) != now) build_filter(now);
  const FirstComponent first(path);
  return !first.plain ||
         (filter[first.hash / 64].load(std::memory_order_relaxed) >> first.hash % 64 & 1) != 0;
}

Mount* find(std::string_view path, uint32_t& prefix) {
  const uint64_t now = generation();
  NormalPath normal;
  MountMatch match;
  if (now == 0 || normalise(path, normal) != 0 || table().lookup(normal, match) != 0) return nullptr;
  const std::string_view point = std::string_view(normal.data(), match.prefix_length);
  prefix = components(point);
  const uint32_t used = count_of_mounts.load(std::memory_order_acquire);
  Mount* mount = nullptr;
  for (uint32_t i = 0; i < used && mount == nullptr; ++i) {
    Mount& one = all[i];
    if (one.instance == match.entry.instance && one.mount_id == match.entry.mount_id &&
        one.session->service() == match.entry.service && one.device == match.entry.device)
      mount = &one;
  }
  if (mount == nullptr || !holds(*mount, now)) mount = prove(match.entry, point, now);
  if (mount == nullptr || mount->refused.load(std::memory_order_relaxed)) return nullptr;
  return mount;
}

Mount* known(uint64_t device, uint64_t mount_id) {
  const uint64_t now = generation();
  const uint32_t used = count_of_mounts.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < used; ++i) {
    Mount& mount = all[i];
    if (mount.device == device && mount.mount_id == mount_id && holds(mount, now) &&
        !mount.refused.load(std::memory_order_relaxed))
      return &mount;
  }
  return nullptr;
}

// The kernel answers what it is told, but does not keep a size that a notification has overtaken on its way
// (fc->attr_version, fs/fuse/inode.c). Then it is asked once more.
void refresh_size(int fd) {
  if (fd < 0 || count_of_mounts.load(std::memory_order_relaxed) == 0) return;
  constexpr int kTries = 8;
  for (int i = 0; i < kTries; ++i) {
    struct statx told, kept;
    if (sys::statx(fd, "", AT_EMPTY_PATH, STATX_SIZE, &told) < 0) return;
    if (sys::statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &kept) < 0) return;
    if (kept.stx_size == told.stx_size) return;
  }
}

void open_controls() {
  if (fds::highest.load() < 0) return;
  const uint32_t used = count_of_mounts.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < used; ++i) {
    if (all[i].root_fd() >= 0) (void)all[i].control_fd();
  }
}

void prove_again(Session& session) {
  const uint32_t used = count_of_mounts.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < used; ++i) {
    Mount& mount = all[i];
    if (mount.session != &session || mount.root_fd() < 0) continue;
    // The control directory's name and node outlive the service.
    AttachProven proven{};
    const int result = session.prove(mount.instance, mount.root_fd(), proven);
    // Dead again: its successor will be asked.
    if (result != 0 && result != -ECONNRESET) mount.refused.store(true);
  }
}

void forget_all() {
  const uint32_t used = count_of_mounts.load();
  for (uint32_t i = 0; i < used; ++i) {
    all[i].generation.store(0);
    all[i].refused.store(true);
    own_fds::reset(root_place(all[i]));
    own_fds::reset(root_place(all[i]) + 1);
  }
}

}  // namespace mounts
}  // namespace poly
