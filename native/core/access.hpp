// Who may do what: the kernel's own rules, for calls that reach the dispatcher without it. On FUSE the kernel
// has decided before it asks (default_permissions, POSIX_ACL); a fast-path call comes with its client's
// credentials and is judged here, by the same rules in the same order (Linux 6.18: fs/namei.c, fs/attr.c,
// fs/posix_acl.c, fs/xattr.c; capabilities(7), acl(5)).
//
// Where the kernel would hold a lock between judging and doing, the dispatcher holds Node::change_lock.
// Thread safety: everything here may be called from any thread; a Permissions belongs to one call.
#pragma once

#include <vector>

#include "libservices/libservice.hpp"

namespace poly {

enum AccessMask : int { kMayExec = 1, kMayWrite = 2, kMayRead = 4 };

// As the kernel vouches for them. Capabilities are all or none: who has some of them is left to FUSE.
struct Credentials {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // supplementary, sorted
  bool capable = false;

  bool in_group(gid_t group) const;
};

// The sysctls fs.protected_* (proc(5)), at most a second old; the strictest when /proc cannot be read.
struct Hardening {
  int symlinks = 0, hardlinks = 0, regular = 0, fifos = 0;
  static Hardening current();
};

class Permissions {
 public:
  Permissions(Libservice& libservice, const Credentials& who, Hardening hardening = Hardening::current())
      : who(who), hardening_(hardening), libservice_(libservice) {}

  // 0 or -EACCES (inode_permission). `attr` are the node's; its ACL is fetched only where it can matter.
  [[nodiscard]] int may(Node& node, const Attr& attr, int mask) const;
  // Making a name in a directory (may_create): 0, -EACCES, or -ENOENT in one that has been removed.
  [[nodiscard]] int may_create(Node& dir) const;
  // Taking a name away from a directory (may_delete): -EACCES, -EPERM (sticky), -ENOTDIR, -EISDIR.
  [[nodiscard]] int may_delete(Node& dir, const Attr& victim, bool as_directory) const;
  // rename(2) of `from` to a name that is free (`to` null) or held by `to` (vfs_rename).
  [[nodiscard]] int may_rename(Node& dir, Node& new_dir, const Entry& from, const Entry* to,
                               bool exchange) const;
  // A hard link to the node (may_linkat, fs.protected_hardlinks): 0 or -EPERM.
  [[nodiscard]] int may_link(Node& node, const Attr& attr) const;
  // Following a link that stands at the end of a path (may_follow_link, fs.protected_symlinks).
  [[nodiscard]] int may_follow(const Attr& dir, const Attr& link) const;
  // O_CREAT of what is there (may_create_in_sticky, fs.protected_regular and _fifos).
  [[nodiscard]] int may_reuse(const Attr& dir, const Attr& file) const;
  // Opening a regular file that was there (may_open): open(2)'s flags.
  [[nodiscard]] int may_open(Node& node, const Attr& attr, uint32_t flags) const;
  // chmod, chown, utimes, truncate (setattr_prepare, notify_change). Completes `set` as the kernel does
  // before it asks a FUSE server: S_ISGID that must not be, set-id bits that are to go. `open`: through a
  // descriptor open for writing.
  [[nodiscard]] int may_set(Node& node, const Attr& attr, bool open, SetAttr& set) const;
  // Extended attributes (xattr_permission). kDeclined (wire.hpp): not decided here.
  [[nodiscard]] int may_xattr(Node& node, const Attr& attr, const char* name, bool write) const;

  // Mode of what is made in `dir` (mode_strip_sgid).
  mode_t new_mode(const Attr& dir, mode_t mode) const;
  bool owner_or_capable(const Attr& attr) const { return who.capable || attr.stx_uid == who.uid; }

  const Credentials& who;

 private:
  int by_mode_and_acl(Node& node, const Attr& attr, int mask) const;
  int by_acl(Node& node, const Attr& attr, int mask) const;
  int may_chmod_chown(const Attr& attr, SetAttr& set) const;

  const Hardening hardening_;
  Libservice& libservice_;
};

}  // namespace poly
