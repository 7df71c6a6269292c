#include "libservices/identity.hpp"

#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace poly {
namespace {

// The kernel's per-thread state, as this thread last set it.
struct Identity {
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t umask = 0;
  bool switchable = false;
  bool own_umask = false;
  bool refresh_capabilities = false;
};
thread_local Identity identity;

// Without the securebit, setfsuid(2) away from 0 clears the file capabilities from the effective set: raise
// them again.
void raise_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3]{};
  if (syscall(SYS_capget, &header, data) != 0) return;
  for (auto& word : data) word.effective = word.permitted;
  (void)syscall(SYS_capset, &header, data);  // cannot fail: effective within permitted
}

}  // namespace

void prepare_thread_identity() {
  identity = {};
  identity.switchable = geteuid() == 0;
  if (identity.switchable && prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) != 0) {
    int bits = prctl(PR_GET_SECUREBITS);
    identity.refresh_capabilities = bits < 0 || (bits & SECBIT_NO_SETUID_FIXUP) == 0;
  }
  identity.own_umask = unshare(CLONE_FS) == 0;
  if (identity.own_umask) umask(0);
}

void assume(const Caller& caller) {
  // The raw calls: glibc's wrappers are per-thread too, but this says so.
  if (identity.switchable) {
    if (caller.gid != identity.gid) {
      syscall(SYS_setfsgid, caller.gid);
      identity.gid = caller.gid;
    }
    if (caller.uid != identity.uid) {
      syscall(SYS_setfsuid, caller.uid);
      identity.uid = caller.uid;
      if (identity.refresh_capabilities) raise_capabilities();
    }
  }
  if (identity.own_umask && caller.umask != identity.umask) {
    umask(caller.umask);
    identity.umask = caller.umask;
  }
}

bool in_group(const Caller& caller, gid_t group) {
  if (caller.gid == group) return true;
  if (caller.groups) return std::ranges::binary_search(*caller.groups, group);
  char path[40];
  snprintf(path, sizeof path, "/proc/%d/status", caller.pid);
  std::unique_ptr<FILE, int (*)(FILE*)> status(fopen(path, "re"), fclose);
  if (!status) return false;
  char* buffer = nullptr;
  size_t room = 0;
  bool found = false;
  while (getline(&buffer, &room, status.get()) > 0) {
    if (strncmp(buffer, "Groups:", 7) != 0) continue;
    char* end = buffer + 7;
    for (char* at = end; !found; at = end) {
      unsigned long id = strtoul(at, &end, 10);
      if (end == at) break;
      found = id == group;
    }
    break;
  }
  free(buffer);
  return found;
}

mode_t without_set_ids(mode_t mode, bool keeps_group) {
  if (S_ISDIR(mode)) return mode;
  mode_t kept = mode & ~static_cast<mode_t>(S_ISUID);
  if ((mode & S_ISGID) && ((mode & S_IXGRP) || !keeps_group)) kept &= ~static_cast<mode_t>(S_ISGID);
  return kept;
}

}  // namespace poly
