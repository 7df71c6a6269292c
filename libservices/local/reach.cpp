// How nodes are reached: descriptors by handle or by name, and what keeps a node reachable when its names go.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "libservices/local/local.hpp"

namespace poly {
namespace {

// Parents are followed up to here. A host process that turns a tree upside down can make known names lead in
// a circle.
constexpr size_t kDeepest = 1u << 17;

// So often a name may change under a walk that meets it.
constexpr int kMoves = 16;

bool same_name(const KnownName& known, const LocalNode& dir, const char* name) {
  return known.name == name && known.parent_identity == dir.identity;
}

}  // namespace

// A name that is changing while it is looked at says nothing: who changes it knows what it becomes.
void Local::found_at(LocalNode& node, LocalNode& dir, const char* name, const Attr& attr, uint64_t version) {
  if (node.handle.size != 0 || &node == root_.get()) return;
  KnownName latest{Ref<LocalNode>::share(&dir), dir.identity, name}, gone;  // dropped after the lock
  {
    std::lock_guard guard(node.lock);
    if (same_name(node.known, dir, name)) {
      std::swap(node.known.parent, latest.parent);
      return;
    }
    const bool steady = version % 2 == 0 && dir.names_version.load() == version;
    if (!steady && !node.known.name.empty()) return;
    const bool keep = !S_ISDIR(attr.stx_mode) && attr.stx_nlink > 1;
    std::swap(node.known, latest);
    gone = std::exchange(node.previous, keep ? std::move(latest) : KnownName{});
  }
  (void)store_name(node);  // else it works until a restart
}

namespace {
bool pinned(LocalNode& node, Ref<SharedFd>& out) {
  std::lock_guard guard(node.lock);
  out = node.pin;
  return static_cast<bool>(out);
}
}  // namespace

int Local::path_fd(LocalNode& node, Ref<SharedFd>& out) {
  int err = path_fd_directly(node, out);
  if (err == kNoWay) err = open_path(node, out);
  // It lost its name meanwhile: before that it was pinned.
  return err == -ESTALE && pinned(node, out) ? 0 : err;
}

int Local::path_fd_directly(LocalNode& node, Ref<SharedFd>& out) {
  out = cache_.find(&node);
  if (out || pinned(node, out)) return 0;
  if (node.handle.size == 0) return kNoWay;
  Fd fd;
  if (int err = open_by_handle(root_fd_.get(), node.handle, O_PATH, fd)) return err;
  out = Ref<SharedFd>::adopt(new SharedFd(std::move(fd)));
  cache_.insert(&node, out);
  return 0;
}

KnownName Local::known_name(LocalNode& node) {
  KnownName known;
  {
    std::lock_guard guard(node.lock);
    known = node.known;
  }
  if (known.parent || known.name.empty()) return known;
  known.parent = find(known.parent_identity);
  std::lock_guard guard(node.lock);
  if (known.parent && !node.known.parent && node.known.name == known.name) node.known.parent = known.parent;
  return known;
}

int Local::open_path(LocalNode& node, Ref<SharedFd>& out) {
  for (int attempt = 0; attempt < kMoves; attempt++) {
    if (int err = walk_names(node, out); err != kNoWay) return err;
  }
  return -ESTALE;
}

// Up to the first parent that is reached directly, and down again. No recursion, trees may be deeper than
// stacks.
int Local::walk_names(LocalNode& node, Ref<SharedFd>& out) {
  struct Step {
    Ref<LocalNode> node;
    KnownName known;
  };
  std::vector<Step> steps;
  for (auto at = Ref<LocalNode>::share(&node);;) {
    KnownName known = known_name(*at);
    Ref<LocalNode> parent = known.parent;
    if (!parent || steps.size() == kDeepest) return -ESTALE;
    steps.push_back({std::move(at), std::move(known)});
    at = std::move(parent);
    int err = path_fd_directly(*at, out);
    if (err == 0) break;
    if (err != kNoWay) return err;
  }
  for (; !steps.empty(); steps.pop_back()) {
    Step& step = steps.back();
    Fd fd(openat(out->get(), step.known.name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!fd && errno != ENOENT && errno != ENOTDIR) return -errno;
    Attr attr;
    if (fd) {
      if (int err = stat_fd(fd.get(), attr)) return err;
    }
    if (!fd || !(NodeIdentity::of(attr) == step.node->identity)) {
      // Pinned while it changes; so the pin is looked for first.
      if (pinned(*step.node, out)) continue;
      std::lock_guard guard(step.node->lock);
      const KnownName& now = step.node->known;
      const bool same = now.name == step.known.name && now.parent_identity == step.known.parent_identity;
      return same ? -ESTALE : kNoWay;
    }
    out = Ref<SharedFd>::adopt(new SharedFd(std::move(fd)));
    cache_.insert(step.node.get(), out);
  }
  return 0;
}

int Local::open_real(LocalNode& node, int flags, Fd& out) {
  flags |= O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  if (node.handle.size != 0) {
    // An unlinked inode cannot be opened by its handle any more (ext4), but through its pin.
    int err = open_by_handle(root_fd_.get(), node.handle, flags, out);
    if (err != -ESTALE) return err;
    std::lock_guard guard(node.lock);
    if (!node.pin) return err;
  }
  Ref<SharedFd> path;
  if (int err = path_fd(node, path)) return err;
  // Through /proc so that exactly this inode is opened, whatever its names have become. Not O_NOFOLLOW: the
  // magic link itself must be followed, and it ends at the inode.
  int raw = ::open(ProcPath(path->get()).c_str(), flags & ~O_NOFOLLOW);
  if (raw < 0) return -errno;
  out.reset(raw);
  return 0;
}

int Local::open_to_read(LocalNode& node, Ref<SharedFd>& out) {
  out = readers_.find(&node);
  if (out) return 0;
  Fd fd;
  if (int err = open_real(node, O_RDONLY, fd)) return err;
  out = Ref<SharedFd>::adopt(new SharedFd(std::move(fd)));
  readers_.insert(&node, out);
  return 0;
}

// A service that is not root cannot open what its owner may not, though a file keeps the access it was opened
// with: created with mode 0444 for writing, say. As the owner it lifts the mode for the moment; a death in
// between leaves it lifted for the owner.
int Local::open_again(LocalNode& node, int flags, Fd& out) {
  int err = open_real(node, flags, out);
  if (err != -EACCES) return err;
  Ref<SharedFd> path;
  Attr attr;
  if (int failed = path_fd(node, path)) return failed;
  if (int failed = stat_fd(path->get(), attr)) return failed;
  const mode_t mode = attr.stx_mode & 07777;
  if (attr.stx_uid != geteuid() || change_mode(path->get(), mode | S_IRUSR | S_IWUSR) != 0) return err;
  err = open_real(node, flags, out);
  if (int failed = change_mode(path->get(), mode)) return failed;
  return err;
}

// Never the same twice: a node's late drop must not take what its successor in the index has parked.
std::string Local::parking_name(const LocalNode& node) const {
  auto now = std::chrono::steady_clock::now().time_since_epoch().count();
  return options_.parking_prefix + std::to_string(node.identity.device) + "-" +
         std::to_string(node.identity.ino) + "-" + std::to_string(now);
}

int Local::park(LocalNode& node) {
  if (!node.parked_name.empty() || !options_.parking || !node.pin) return 0;
  std::string name = parking_name(node);
  if (int err = options_.parking->park(name, node.pin->get())) return err;
  node.parked_name = std::move(name);
  return 0;
}

// forget() takes a node out of the index before it drops what is parked for it, and drops are sent in order:
// nothing is parked behind its drop.
int Local::park_again() {
  int result = 0;
  const auto again = [&](const std::string& name, int fd) {
    if (int err = options_.parking->park(name, fd)) result = err;
  };
  {
    std::lock_guard guard(adopt_lock_);
    for (auto& [key, parked] : adoptable_) again(parked.name, parked.fd.get());
  }
  for (Shard& s : shards_) {
    std::lock_guard shard_guard(s.lock);
    for (auto& [key, node] : s.nodes) {
      std::lock_guard guard(node->lock);
      if (!node->parked_name.empty()) again(node->parked_name, node->pin->get());
    }
  }
  return result;
}

namespace {
// A directory may be somebody's current one, which no open tells. Caller holds node.lock.
bool in_use(const LocalNode& node) {
  return S_ISDIR(node.type) || node.opens > 0 || node.restored;
}
}  // namespace

int Local::begin_change(LocalNode& node, uint32_t left) {
  Ref<SharedFd> fd;
  {
    std::lock_guard guard(node.lock);
    node.changes++;
    if (left && node.handle.size != 0 && !in_use(node)) return 0;
    fd = node.pin;
  }
  int err = fd ? 0 : path_fd(node, fd);
  std::lock_guard guard(node.lock);
  if (!err) {
    if (!node.pin) node.pin = std::move(fd);
    if (left || in_use(node)) err = park(node);
  }
  if (err) node.changes--;
  return err;
}

bool Local::store_name(LocalNode& node) {
  return !options_.handles || options_.handles->handle_changed(*this, node) == 0;
}

bool Local::lost_name(LocalNode& node, uint32_t left, LocalNode& dir, const char* name) {
  KnownName gone;  // these are dropped after the lock
  Ref<SharedFd> fd;
  bool used;
  {
    std::lock_guard guard(node.lock);
    if (same_name(node.previous, dir, name)) {
      gone = std::exchange(node.previous, {});
    } else if (same_name(node.known, dir, name)) {
      gone = std::exchange(node.known, std::exchange(node.previous, {}));
    }
    used = in_use(node);
  }
  if (left == 0) return false;
  // Another hard link leads to the file, if we know one that does. A descriptor by name goes to the cache.
  const bool named = node.handle.size != 0 || (store_name(node) && open_path(node, fd) == 0);
  return named && !used;
}

bool Local::moved(LocalNode& node, LocalNode& dir, const char* name, LocalNode& new_dir,
                  const char* new_name) {
  KnownName latest{Ref<LocalNode>::share(&new_dir), new_dir.identity, new_name};  // dropped after the lock
  {
    std::lock_guard guard(node.lock);
    if (!same_name(node.known, dir, name)) std::swap(node.previous, node.known);
    std::swap(node.known, latest);
  }
  return store_name(node);
}

void Local::end_change(LocalNode& node, bool reachable) {
  Ref<SharedFd> pin;  // dropped after the lock
  std::string parked;
  {
    std::lock_guard guard(node.lock);
    node.changes--;
    if (!reachable) node.unnamed = true;
    if (node.changes != 0 || node.unnamed || node.is_root) return;
    pin = std::move(node.pin);
    parked = std::exchange(node.parked_name, {});
  }
  if (!parked.empty()) options_.parking->drop(parked);
}

// While a name is changing, and once the last is gone, the keeper must have the file before an open is
// answered.
int Local::count_open(LocalNode& node) {
  std::lock_guard guard(node.lock);
  node.opens++;
  if (node.changes == 0 && !node.unnamed) return 0;
  int err = park(node);
  if (err) node.opens--;
  return err;
}

}  // namespace poly
