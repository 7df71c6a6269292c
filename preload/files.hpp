// What the library does itself with open files: the functions behind hooks_descriptors.cpp and
// hooks_files.cpp. Results as calls.hpp has them; kDeclined for a number that is not the library's, and after
// a promotion that the call made necessary: then the kernel's answer on the same number is right.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstdint>

#include "preload/open_file.hpp"

namespace poly::files {

[[nodiscard]] long open(int directory, const char* path, int flags, mode_t mode);
[[nodiscard]] long close(int fd);
[[nodiscard]] long duplicate(int fd, int least, bool close_on_exec);
// dup2 and dup3 (`strict`): also when only `to` is the library's, or neither.
[[nodiscard]] long duplicate_onto(int from, int to, int flags, bool strict);
[[nodiscard]] long get_flags(int fd);
[[nodiscard]] long set_flags(int fd, int flags);

// Promotes the file when it is the library's: kDeclined, or -errno when that failed.
[[nodiscard]] long promoted(int fd);
// For an ioctl whose argument names a second descriptor.
void promote_source(unsigned long request, const void* argument);

// At the file's own offset, which they move.
[[nodiscard]] long read(int fd, const iovec* vectors, int count);
[[nodiscard]] long write(int fd, const iovec* vectors, int count);
[[nodiscard]] long read_at(int fd, const iovec* vectors, int count, off_t offset);
[[nodiscard]] long write_at(int fd, const iovec* vectors, int count, off_t offset);
[[nodiscard]] long seek(int fd, off_t offset, int whence);

[[nodiscard]] long sync(int fd, bool data_only);
[[nodiscard]] long resize(int fd, off_t size);
[[nodiscard]] long allocate(int fd, int mode, off_t offset, off_t size);
// Null offsets: the files' own.
[[nodiscard]] long copy_range(int in, off_t* in_offset, int out, off_t* out_offset, size_t size);
// 0 when the file is the library's and can be read.
[[nodiscard]] long is_readable(int fd);

}  // namespace poly::files
