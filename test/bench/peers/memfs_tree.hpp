// An in-memory tree for the benchmark's peers: plain data structures, as a competent author of a small
// FUSE server would write them, so that what is measured is the transport around them.
//
// Lock order: Tree::names, then one Inode::lock. `names` guards every directory's contents, link counts and
// lookup counts; Inode::lock guards that inode's attributes and bytes. Inode numbers on the wire are
// addresses.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <unordered_map>

namespace memfs {

struct Inode;

struct Entry {
  Inode* inode;
  uint64_t cookie;
};

struct Directory {
  std::unordered_map<std::string, Entry> names;
  std::map<uint64_t, std::pair<std::string, Inode*>> order;  // by cookie: stable readdir offsets
  uint64_t next_cookie = 3;                                  // 1 and 2 are "." and ".."
  Inode* parent = nullptr;
};

struct Inode {
  std::shared_mutex lock;
  struct stat st = {};
  uint64_t lookups = 0;  // what the kernel holds; guarded by Tree::names
  std::unique_ptr<Directory> dir;
  std::string target;  // symlink
  char* bytes = nullptr;
  size_t capacity = 0;

  ~Inode() { std::free(bytes); }

  // Grows to hold `size` bytes, zeroing what is new. Caller holds `lock` exclusively.
  [[nodiscard]] int resize(size_t size) {
    size_t old = static_cast<size_t>(st.st_size);
    if (size > capacity) {
      size_t want = std::max<size_t>(size, std::min<size_t>(capacity * 2, capacity + (64u << 20)));
      auto* grown = static_cast<char*>(std::realloc(bytes, want));
      if (grown == nullptr) return ENOSPC;
      bytes = grown;
      capacity = want;
    }
    if (size > old) std::memset(bytes + old, 0, size - old);
    set_size(size);
    return 0;
  }

  // Appends or overwrites without zeroing bytes that are about to be written.
  [[nodiscard]] int write(const char* from, size_t count, size_t offset) {
    size_t old = static_cast<size_t>(st.st_size);
    if (offset > old || offset + count > capacity) {
      if (int err = resize(std::max(old, offset + count)); err != 0) return err;
    }
    std::memcpy(bytes + offset, from, count);
    if (offset + count > old) set_size(offset + count);
    touch_modified();
    return 0;
  }

  void set_size(size_t size) {
    st.st_size = static_cast<off_t>(size);
    st.st_blocks = static_cast<blkcnt_t>((size + 511) / 512);
  }

  void touch_modified() {
    clock_gettime(CLOCK_REALTIME_COARSE, &st.st_mtim);
    st.st_ctim = st.st_mtim;
  }
};

class Tree {
 public:
  std::shared_mutex names;

  Tree() : root_(make(S_IFDIR | 0755, 0, 0, 0)) {
    root_->dir->parent = root_;
    root_->lookups = 1;
  }

  Inode* root() { return root_; }

  // Everything below: caller holds `names` (shared for find, exclusive for the rest).
  static Inode* find(Inode* parent, const std::string& name) {
    auto it = parent->dir->names.find(name);
    return it == parent->dir->names.end() ? nullptr : it->second.inode;
  }

  Inode* make(mode_t mode, uid_t uid, gid_t gid, dev_t rdev) {
    auto* node = new Inode;
    node->st.st_ino = ++last_ino_;
    node->st.st_mode = mode;
    node->st.st_nlink = S_ISDIR(mode) ? 2 : 0;
    node->st.st_uid = uid;
    node->st.st_gid = gid;
    node->st.st_rdev = rdev;
    node->st.st_blksize = 4096;
    node->touch_modified();
    node->st.st_atim = node->st.st_mtim;
    if (S_ISDIR(mode)) node->dir = std::make_unique<Directory>();
    return node;
  }

  void attach(Inode* parent, const std::string& name, Inode* node) {
    uint64_t cookie = parent->dir->next_cookie++;
    parent->dir->names.emplace(name, Entry{node, cookie});
    parent->dir->order.emplace(cookie, std::pair(name, node));
    if (node->dir != nullptr) {
      node->dir->parent = parent;
      parent->st.st_nlink++;
    } else {
      node->st.st_nlink++;
    }
    parent->touch_modified();
  }

  void detach(Inode* parent, const std::string& name) {
    auto it = parent->dir->names.find(name);
    Inode* node = it->second.inode;
    parent->dir->order.erase(it->second.cookie);
    parent->dir->names.erase(it);
    if (node->dir != nullptr) parent->st.st_nlink--;
    if (node->dir == nullptr) node->st.st_nlink--;
    parent->touch_modified();
    node->st.st_ctim = parent->st.st_mtim;
  }

  // unlink and rmdir.
  [[nodiscard]] int remove(Inode* parent, const std::string& name, bool directory) {
    Inode* node = find(parent, name);
    if (node == nullptr) return ENOENT;
    if (directory && node->dir == nullptr) return ENOTDIR;
    if (!directory && node->dir != nullptr) return EISDIR;
    if (directory && !node->dir->names.empty()) return ENOTEMPTY;
    detach(parent, name);
    if (directory) node->st.st_nlink = 0;
    reap(node);
    return 0;
  }

  [[nodiscard]] int rename(Inode* from, const std::string& name, Inode* to, const std::string& new_name,
                           bool keep_target) {
    Inode* node = find(from, name);
    if (node == nullptr) return ENOENT;
    Inode* target = find(to, new_name);
    if (target == node) return 0;
    if (target != nullptr) {
      if (keep_target) return EEXIST;
      if (node->dir != nullptr && target->dir == nullptr) return ENOTDIR;
      if (int err = remove(to, new_name, node->dir != nullptr); err != 0) return err;
    }
    detach(from, name);
    attach(to, new_name, node);
    return 0;
  }

  // The kernel gave back `count` lookups; nodes without name or lookup are freed.
  void forget(Inode* node, uint64_t count) {
    node->lookups -= count;
    reap(node);
  }

 private:
  void reap(Inode* node) {
    if (node->lookups == 0 && node->st.st_nlink == 0) delete node;
  }

  ino_t last_ino_ = 0;
  Inode* root_;
};

}  // namespace memfs
