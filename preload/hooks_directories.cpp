// Directory streams. libc's own (scandir, fts, ftw, glob) never meet the library's.
#include <errno.h>
#include <string.h>

#include "preload/answer.hpp"
#include "preload/directory_streams.hpp"
#include "preload/fd_table.hpp"
#include "preload/paths.hpp"
#include "preload/real.hpp"

using namespace poly;

POLY_HOOK DIR* opendir(const char* path) {
  if (may_be_ours(AT_FDCWD, path)) {
    DIR* stream = nullptr;
    const long result = streams::open(path, stream);
    if (result == 0) return stream;
    if (result != kDeclined) return answer(result), nullptr;
  }
  return left_to_kernel([&] { return real::opendir(path); });
}

POLY_HOOK DIR* fdopendir(int fd) {
  DIR* stream = nullptr;
  if (process::on() && streams::adopt(fd, stream) == 0) return stream;
  return real::fdopendir(fd);
}

POLY_HOOK dirent* readdir(DIR* stream) {
  if (!streams::is_ours(stream)) return real::readdir(stream);
  dirent64* entry;
  if (int err = streams::read(stream, entry)) return answer(err), nullptr;
  return reinterpret_cast<dirent*>(entry);
}
static_assert(sizeof(dirent) == sizeof(dirent64));

// Deprecated, and still there.
POLY_HOOK int readdir_r(DIR* stream, dirent* out, dirent** result) {
  if (!streams::is_ours(stream)) return real::readdir_r(stream, out, result);
  dirent64* entry;
  const int err = streams::read(stream, entry);
  if (entry != nullptr) memcpy(out, entry, entry->d_reclen);
  *result = entry == nullptr ? nullptr : out;
  return -err;
}

POLY_HOOK void rewinddir(DIR* stream) noexcept {
  if (streams::is_ours(stream)) return streams::seek(stream, 0);
  real::rewinddir(stream);
}

POLY_HOOK void seekdir(DIR* stream, long position) noexcept {
  if (streams::is_ours(stream)) return streams::seek(stream, static_cast<uint64_t>(position));
  real::seekdir(stream, position);
}

POLY_HOOK long telldir(DIR* stream) noexcept {
  if (streams::is_ours(stream)) return static_cast<long>(streams::tell(stream));
  return real::telldir(stream);
}

POLY_HOOK int dirfd(DIR* stream) noexcept {
  if (streams::is_ours(stream)) return static_cast<int>(answer(streams::descriptor(stream)));
  return real::dirfd(stream);
}

POLY_HOOK int closedir(DIR* stream) {
  if (streams::is_ours(stream)) return static_cast<int>(answer(streams::close(stream)));
  return real::closedir(stream);
}

POLY_ALIAS(readdir64, readdir)
POLY_ALIAS(readdir64_r, readdir_r)
