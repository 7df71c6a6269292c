// Making the libservice, and which node stands for which inode.
#include <cerrno>

#include "libservices/ceph/attributes.hpp"
#include "libservices/ceph/ceph.hpp"

namespace poly {

using namespace ceph;

int Ceph::create(const CephSettings& settings, std::unique_ptr<Ceph>& out, std::string& what) {
  std::unique_ptr<Ceph> made(new Ceph(settings));
  Callbacks callbacks{};
  callbacks.handle = made.get();
  callbacks.inode_changed = inode_changed;
  callbacks.entry_changed = entry_changed;
  callbacks.umask = [](void*) { return UmaskScope::current(); };
  if (int err = made->client_.connect(settings, callbacks, made->root_path_, what)) return err;
  // What has been asked for is there, or it is said now.
  if (made->root_path_ != settings.root) {
    Entry asked;
    if (int err = made->root(settings.root.c_str() + (made->root_path_ == "/" ? 0 : made->root_path_.size()),
                             asked)) {
      what = settings.root + " for client." + settings.user;
      return err;
    }
  }
  out = std::move(made);
  return 0;
}

// Where there may be something to lose, silence is not yet taken for an end.
int Ceph::leave(bool patient) {
  const auto answer = patient && settings_.write_back ? Client::kInTime : Client::kSoon;
  return client_.disconnect(answer, patient ? Client::kInTime : Client::kSoon);
}

int Ceph::root(const char* subdirectory, Entry& out) {
  Inode* in;
  if (int err = client_->ll_lookup_root(client_.mount(), &in)) return err;
  Statx st;
  if (int err = attributes(in, st)) {
    client_->ll_forget(client_.mount(), in, 1);
    return err;
  }
  entry(in, st, out);
  // Component by component: what leads out of the root (a symbolic link, "..") is not followed.
  std::string path = subdirectory;
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string name = path.substr(begin, end - begin);
    begin = end + 1;
    if (name.empty()) continue;
    if (!is_component(name.c_str())) return -EINVAL;
    const Ref<Node> parent = out.node;
    if (int err = lookup(Caller{}, *parent, name.c_str(), out)) return err;
    if (!S_ISDIR(out.attr.stx_mode)) return -ENOTDIR;
  }
  return 0;
}

int Ceph::inode(Node& node, Inode*& out) {
  auto& n = static_cast<CephNode&>(node);
  out = n.inode.load(std::memory_order_acquire);
  if (out) return 0;
  Inode* found = nullptr;
  const int err = client_->ll_lookup_vino(client_.mount(), n.id, &found);
  if (err) return err == -ENOENT ? -ESTALE : err;
  n.references.fetch_add(1, std::memory_order_relaxed);
  // Whoever else has asked meanwhile got the same one.
  n.inode.store(found, std::memory_order_release);
  out = found;
  return 0;
}

Ref<CephNode> Ceph::find(VersionedInode id) {
  Shard& s = shard(id);
  std::lock_guard guard(s.lock);
  auto it = s.nodes.find(key(id));
  if (it == s.nodes.end() || it->second->id.ino.value != id.ino.value || !it->second->try_acquire())
    return nullptr;
  return Ref<CephNode>::adopt(it->second);
}

Ref<CephNode> Ceph::publish(Ref<CephNode> fresh) {
  Ref<CephNode> living;  // released after the lock: its end asks for the lock, too
  Shard& s = shard(fresh->id);
  std::lock_guard guard(s.lock);
  auto [it, inserted] = s.nodes.try_emplace(key(fresh->id), fresh.get());
  if (inserted) return fresh;
  if (it->second->try_acquire()) {
    living = Ref<CephNode>::adopt(it->second);
    if (living->id.ino.value == fresh->id.ino.value) return living;
  }
  it->second = fresh.get();  // the old one is dying
  return fresh;
}

Ref<CephNode> Ceph::intern(Inode* inode, const Statx& st) {
  const VersionedInode id{{st.ino}, st.dev};
  Ref<CephNode> node = find(id);
  if (!node) node = publish(Ref<CephNode>::adopt(new CephNode(*this, id, st.mode & S_IFMT)));
  node->references.fetch_add(1, std::memory_order_relaxed);
  if (!node->inode.load(std::memory_order_relaxed)) node->inode.store(inode, std::memory_order_release);
  return node;
}

void Ceph::entry(Inode* inode, const Statx& st, Entry& out) {
  to_attr(st, out.attr);
  out.node = intern(inode, st);
}

void CephNode::dispose() {
  owner.forget(*this);
}

void Ceph::forget(CephNode& node) {
  {
    Shard& s = shard(node.id);
    std::lock_guard guard(s.lock);
    auto it = s.nodes.find(key(node.id));
    if (it != s.nodes.end() && it->second == &node) s.nodes.erase(it);
  }
  // The library has dropped all references when it was left.
  if (Inode* in = node.inode.load(std::memory_order_acquire); in && client_.mount())
    (void)client_->ll_forget(client_.mount(), in, node.references.load(std::memory_order_relaxed));
  delete &node;
}

// From a thread of the library's that holds no lock of it; what the sink does with it waits for nothing.
void Ceph::inode_changed(void* self, VersionedInode id, int64_t offset, int64_t length) {
  auto& ceph = *static_cast<Ceph*>(self);
  Ref<CephNode> node = ceph.find(id);
  if (!node) return;
  node->revocations.fetch_add(1);
  std::shared_lock guard(ceph.sink_lock_);
  // length <= 0: to the end.
  if (ceph.sink_) ceph.sink_->invalidate_node(*node, offset, length > 0 ? length : 0);
}

void Ceph::entry_changed(void* self, VersionedInode directory, VersionedInode, const char* name,
                         size_t length) {
  auto& ceph = *static_cast<Ceph*>(self);
  std::shared_lock guard(ceph.sink_lock_);
  if (!ceph.sink_) return;
  if (Ref<CephNode> node = ceph.find(directory)) ceph.sink_->invalidate_entry(*node, {name, length});
}

}  // namespace poly
