// Promotion: an open file of the library's becomes the kernel's: a kernel descriptor on the FUSE mount, bound
// to the very service open file, with the offset where it was, under every number that the file had.
// Afterwards there is one offset and one owner of locks, the kernel's, whoever uses the descriptor: another
// process, a program without the library, libc's insides, mmap.
//
// How: opening CONTROL/HANDLE with O_CREAT through the kernel makes the service answer FUSE_CREATE with the
// real node and the open file of that handle (fastpath/wire.hpp, AttachProven).
//
// All results: 0 or -errno. Safe in signal handlers and against calls of other threads on the same file,
// which end before.
#pragma once

#include "preload/open_file.hpp"

namespace poly::promote {

[[nodiscard]] int file(OpenFile& file);

// What `fd` stands for; 0 as well when it is no descriptor of the library's.
[[nodiscard]] int descriptor(int fd);

// Every descriptor / every one that execve(2) passes on.
void all();
void inheritable();

// For fork: like all(), and no descriptor becomes the library's until release_hold(), in the same thread.
void all_and_hold();
void release_hold();

}  // namespace poly::promote
