// Mount: one of our mounts as this process has proven it: the path leads to that very mount in this process's
// view of the filesystem, with these credentials, and the service has seen that for itself.
//
// A proof holds as long as the mount table's generation and the process's credentials and place (chroot,
// mount) do; after the death of the service it is made again. A mount that cannot be proven is the kernel's.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

#include "fastpath/mount_flags.hpp"
#include "fastpath/mount_table.hpp"
#include "preload/own_fds.hpp"
#include "preload/session.hpp"

namespace poly {

struct Mount {
  // Set once, before the mount is published in `mounts::count`.
  Session* session = nullptr;
  uint32_t instance = 0;
  uint64_t device = 0, mount_id = 0;
  // As last proven.
  std::atomic<uint64_t> generation{0};
  std::atomic<uint32_t> credentials{0}, place{0};
  std::atomic<bool> refused{false};       // the proof failed: the kernel's, until something changes
  std::atomic<bool> mounts_below{false};  // other mounts lie below: paths must be walked as they are spelt
  uint64_t unique_mount_id = 0;           // 0: not known (before Linux 6.8)
  uint64_t attributes_mask = 0;           // statx(2): what the kernel adds to every answer
  uint64_t root_inode = 0;
  MountFlags flags;
  char control[sizeof(AttachProven::control)] = {};  // name of the control directory below the root

  int root_fd() const;
  // Opened when first asked for; -errno.
  int control_fd();
};

namespace mounts {

// The generation of the mount table, mapped when a path may lead to a mount; 0: there is none, everything is
// the kernel's.
[[nodiscard]] uint64_t generation();

// False: no entry of the table can be a prefix of this absolute path. A few nanoseconds.
[[nodiscard]] bool may_match(const char* path);

// The proven mount that an absolute path without ".." leads into; null: the kernel's. `prefix` receives how
// many components of the path are the mount point's.
[[nodiscard]] Mount* find(std::string_view path, uint32_t& prefix);
// The proven mount with this identity (statx(2)), or null.
[[nodiscard]] Mount* known(uint64_t device, uint64_t mount_id);

// The kernel takes the size of this descriptor's file from the service, if it is on a poly mount, before a
// call that goes by what the kernel knows: it may have grown by the fast path since. Of other descriptors,
// and before the first mount is proven, nothing is asked that could take long.
void refresh_size(int fd);

// Before credentials change: the new ones may not reach the control directories that open files need.
void open_controls();

// The service of the session is another process now, and knows no proofs.
void prove_again(Session& session);

// For a forked child: its proofs are its own to make. The table stays mapped.
void forget_all();

}  // namespace mounts
}  // namespace poly
