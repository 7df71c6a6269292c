// What the library knows of its process: whether it is on, and what the kernel judges calls by that the
// service must be told or that makes earlier findings void.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>

namespace poly::process {

// Off: no POLY_ATTACH, or something happened that the library cannot follow (a thread with a working
// directory or descriptor table of its own, io_uring, ...). Then every call is the kernel's.
extern std::atomic<bool> enabled;
inline bool on() {
  return enabled.load(std::memory_order_relaxed);
}
// Promotes everything and leaves the process to the kernel until it executes another program.
void switch_off();

// `<runDir>/attach`, without a slash at the end; at most kMaxAttach bytes.
inline constexpr int kMaxAttach = 80;
extern char attach_directory[kMaxAttach + 1];

// Grow when what was proven under the former ones may no longer hold.
extern std::atomic<uint32_t> credentials;  // set*id, setgroups, capset
extern std::atomic<uint32_t> places;       // chroot, mount, umount

// This thread has credentials of its own (setfsuid, raw set*id): its paths are the kernel's.
bool thread_is_other();
void set_thread_is_other(bool other);

// The file mode creation mask. Asked of /proc once, without changing it, then followed through umask(2);
// -1: not to be had.
int creation_mask();
void set_creation_mask(mode_t mask);

// RLIMIT_FSIZE in bytes. Beyond it the kernel sends SIGXFSZ: such writes are its own.
uint64_t file_size_limit();
void forget_file_size_limit();

// Real and effective ids are the same, so that access(2) can be decided by the effective ones.
bool ids_are_equal();

// Once, before the first descriptor or attachment: watches for forks that do not say so (see forked()).
[[nodiscard]] bool watch_forks();
// True in a process that was forked behind libc's back: everything the library holds is the parent's.
// Forgets it, too.
void notice_fork();
void forget_parent();

}  // namespace poly::process
