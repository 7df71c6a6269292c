// Whom a service thread acts as towards the host's filesystem.
//
// A root service creates files as the caller by switching the thread's fsuid, fsgid and umask
// (credentials(7)); all three are per thread (umask after unshare(CLONE_FS)) and remembered, so that a run of
// calls by one user costs no system call. Capabilities stay: the kernel has already decided permission by the
// caller's own credentials, supplementary groups included, and the service must not decide again with less
// knowledge. SECBIT_NO_SETUID_FIXUP keeps the file capabilities across setfsuid.
#pragma once

#include "libservices/libservice.hpp"

namespace poly {

// Makes the calling thread able to assume(). Threads of a service that is not root act as the service's own
// user.
void prepare_thread_identity();

// Ownership and umask of what this thread creates from now on. No failure: an unprivileged service keeps its
// own identity and only the umask changes.
void assume(const Caller& caller);

// Is the caller's process in the group, supplementary groups included? FUSE tells only the primary one; the
// others are read from /proc, so this is for rare decisions only. A process that is gone is in no other
// group.
[[nodiscard]] bool in_group(const Caller& caller, gid_t group);

// What the kernel leaves of the mode of anything but a directory on chown, and on write and truncate by who
// lacks CAP_FSETID (setattr_should_drop_suidgid, fs/attr.c). `keeps_group`: S_ISGID that stands for nothing
// executable stays.
[[nodiscard]] mode_t without_set_ids(mode_t mode, bool keeps_group);

}  // namespace poly
