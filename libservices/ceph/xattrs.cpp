// Extended attributes; layouts, quotas and statistics (ceph.*) are among them.
#include <cerrno>
#include <cstring>

#include "libservices/ceph/ceph.hpp"

namespace poly {

using namespace ceph;

namespace {

constexpr const char* kCapability = "security.capability";

// The kernel knows no other names (xattr_resolve_name, fs/xattr.c); libcephfs looks at them on setting only.
bool is_known(const char* name) {
  for (const char* prefix : {"user.", "security.", "trusted.", "ceph.", "system.posix_acl_"}) {
    if (std::strncmp(name, prefix, std::strlen(prefix)) == 0) return true;
  }
  return false;
}

}  // namespace

int Ceph::setxattr(Node& node, const char* name, std::span<const std::byte> value, int flags) {
  Inode* in;
  if (int err = inode(node, in)) return err;
  if (std::strcmp(name, kCapability) == 0) static_cast<CephNode&>(node).privileged.store(true);
  return client_->ll_setxattr(client_.mount(), in, name, value.data(), value.size(), flags, ourselves());
}

bool Ceph::has_capability(Inode* in) {
  return client_->ll_getxattr(client_.mount(), in, kCapability, nullptr, 0, ourselves()) >= 0;
}

void Ceph::drop_capability(CephNode& node, Inode* in) {
  node.privileged.store(false);
  (void)client_->ll_removexattr(client_.mount(), in, kCapability, ourselves());  // ENODATA: it had none
}

ssize_t Ceph::getxattr(Node& node, const char* name, std::span<std::byte> value) {
  if (!is_known(name)) return -EOPNOTSUPP;
  Inode* in;
  if (int err = inode(node, in)) return err;
  return client_->ll_getxattr(client_.mount(), in, name, value.data(), value.size(), ourselves());
}

ssize_t Ceph::listxattr(Node& node, std::span<std::byte> names) {
  Inode* in;
  if (int err = inode(node, in)) return err;
  size_t size = 0;
  const int err = client_->ll_listxattr(client_.mount(), in, reinterpret_cast<char*>(names.data()),
                                        names.size(), &size, ourselves());
  return err < 0 ? err : static_cast<ssize_t>(size);
}

int Ceph::removexattr(Node& node, const char* name) {
  if (!is_known(name)) return -EOPNOTSUPP;
  Inode* in;
  if (int err = inode(node, in)) return err;
  return client_->ll_removexattr(client_.mount(), in, name, ourselves());
}

}  // namespace poly
