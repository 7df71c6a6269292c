#include "test/faults/workload/model.hpp"

#include <stdio.h>

#include <cerrno>

namespace faults {
namespace {

bool is_below(const Inode* node, const Inode* ancestor) {
  for (; node; node = node->parent) {
    if (node == ancestor) return true;
  }
  return false;
}

void put(const Place& place, const InodePtr& inode) {
  place.directory->entries[place.name] = inode;
  if (inode->is_directory()) inode->parent = place.directory.get();
}

}  // namespace

InodePtr make_inode(Inode::Type type, mode_t mode) {
  auto inode = std::make_shared<Inode>();
  inode->type = type;
  inode->mode = mode;
  return inode;
}

int model_make(const Place& place, InodePtr fresh) {
  if (place.inode()) return EEXIST;
  put(place, fresh);
  return 0;
}

int model_unlink(const Place& place) {
  InodePtr inode = place.inode();
  if (!inode) return ENOENT;
  if (inode->is_directory()) return EISDIR;
  inode->links--;
  place.directory->entries.erase(place.name);
  return 0;
}

int model_rmdir(const Place& place) {
  InodePtr inode = place.inode();
  if (!inode) return ENOENT;
  if (!inode->is_directory()) return ENOTDIR;
  if (!inode->entries.empty()) return ENOTEMPTY;
  place.directory->entries.erase(place.name);
  return 0;
}

int model_link(const InodePtr& target, const Place& place) {
  if (place.inode()) return EEXIST;
  if (target->is_directory()) return EPERM;
  target->links++;
  put(place, target);
  return 0;
}

// In the order of do_renameat2() and vfs_rename() (fs/namei.c).
int model_rename(const Place& from, const Place& to, unsigned flags) {
  InodePtr moving = from.inode(), there = to.inode();
  bool exchange = flags & RENAME_EXCHANGE;
  if (!moving) return ENOENT;
  if ((flags & RENAME_NOREPLACE) && there) return EEXIST;
  if (exchange && !there) return ENOENT;
  if (moving->is_directory() && is_below(to.directory.get(), moving.get())) return EINVAL;
  if (there && there->is_directory() && is_below(from.directory.get(), there.get()))
    return exchange ? EINVAL : ENOTEMPTY;
  if (moving == there) return 0;
  if (exchange) {
    put(to, moving);
    put(from, there);
    return 0;
  }
  if (there) {
    if (moving->is_directory() && !there->is_directory()) return ENOTDIR;
    if (!moving->is_directory() && there->is_directory()) return EISDIR;
    if (!there->entries.empty()) return ENOTEMPTY;
    there->links--;
  }
  from.directory->entries.erase(from.name);
  put(to, moving);
  return 0;
}

void model_write(Inode& inode, size_t offset, const std::string& data) {
  if (data.empty()) return;
  if (inode.data.size() < offset + data.size()) inode.data.resize(offset + data.size());
  inode.data.replace(offset, data.size(), data);
}

}  // namespace faults
