// Call: one call to a filesystem service, from a request buffer to its answer. The building block of
// everything that the library serves.
//
// Results of run() and of everything built on it: >= 0, -errno, or kDeclined: the original call is to be made
// in the kernel. errno stays as it was.
#pragma once

#include <sys/stat.h>

#include <cstdint>

#include "fastpath/copy_chooser.hpp"
#include "fastpath/ops.hpp"
#include "fastpath/waiting.hpp"
#include "fastpath/wire.hpp"
#include "preload/mounts.hpp"
#include "preload/open_file.hpp"
#include "preload/paths.hpp"

namespace poly {

class Call {
 public:
  // About a path, judged by the process's present credentials.
  Call(const Place& place, Op op);
  // About an open file. `as_now`: judged by the present credentials too, not only by those of its open.
  Call(OpenFile& file, Op op, bool as_now = false);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // False: no buffer or no service; count()ed, kDeclined.
  explicit operator bool() const { return buffer_ != nullptr; }
  // Zeroed but for op, instance, walk, directory, file, path and umask.
  WireCall* operator->() { return &buffer_->call; }
  const WireAnswer& answer() const { return buffer_->answer; }
  std::byte* data() { return buffer_->data; }

  // The second path: of link and rename, or a symbolic link's target, or an xattr's name. False: too long.
  void second(const Place& place);
  [[nodiscard]] bool second(const char* text);

  [[nodiscard]] long run();
  // A read of `size` bytes. `to`: where its data are to go, if that is in one piece; `copied` says how many
  // of them are there already, as they were copied while the service was still getting more. They may be more
  // than the answer's.
  [[nodiscard]] long run_read(std::byte* to, size_t size, size_t& copied);
  // A write of `size` bytes. `fill` is called with the copy method, and copies them into data().
  template <typename Fill>
  [[nodiscard]] long run_write(size_t size, Fill fill) {
    const uint64_t begin = size < CopyChooser::kLeastTimed ? 0 : monotonic_now();
    const CopyMethod method = write_method(size);
    fill(method);
    const long result = run();
    wrote(method, size, begin);
    return result;
  }

 private:
  [[nodiscard]] long finish(int32_t result);
  [[nodiscard]] CopyMethod write_method(size_t size) const;
  static void wrote(CopyMethod, size_t size, uint64_t begin);
  void begin(Mount& mount, Op op, bool as_now, bool wait);
  void put(const char* text, size_t size);

  Session* session_ = nullptr;
  RequestBuffer* buffer_ = nullptr;
  OpenFile* file_ = nullptr;
};

namespace calls {

void copy(void* to, const void* from, size_t size);

// Ends the service open file of the last reference. 0 or -errno: what close(2) reports.
int release(OpenFile& file);

// Attributes as the kernel tells them of a file on the mount: the service knows no device numbers.
void to_stat(const Mount& mount, const struct statx& from, struct stat& to);
void to_statx(const Mount& mount, const struct statx& from, unsigned mask, struct statx& to);

}  // namespace calls
}  // namespace poly
