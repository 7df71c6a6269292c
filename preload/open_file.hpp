// OpenFile: the library's private side of an open (paper: library open file): which service open file it
// stands for, and the offset that the descriptors which share it have in common. Directories whose handles
// the library keeps for relative paths are OpenFiles too, without a descriptor.
//
// Records live in a fixed pool and are never unmapped, so a stale index reads a record, if a wrong one; a
// FileRef is only made while somebody holds a reference. References: one per descriptor number, one per call
// in flight, one per place in a cache. The last one ends the service open file, unless it was promoted.
//
// Lock order: OpenFile::position, then the descriptor table's (fd_table.hpp). Never the other way round.
#pragma once

#include <atomic>
#include <cstdint>

#include "preload/thread_lock.hpp"

namespace poly {

struct Mount;

struct alignas(64) OpenFile {
  std::atomic<uint32_t> references;
  std::atomic<uint32_t> next_free;  // in the pool's list
  // Like the kernel's f_pos_lock: guards `offset` over the calls that use it, and keeps them and promotion
  // apart.
  ThreadLock position;
  std::atomic<uint32_t> flags;  // as F_GETFL tells them
  std::atomic<int64_t> offset;
  Mount* mount;
  uint64_t inode;
  uint32_t handle;
  std::atomic<bool> promoted;        // the kernel has it: ask the kernel
  std::atomic<bool> not_promotable;  // the last attempt failed
  bool directory;
};

// Holds one reference.
class FileRef {
 public:
  FileRef() = default;
  // Takes over a reference that the caller has.
  explicit FileRef(OpenFile* file) : file_(file) {}
  FileRef(FileRef&& other) noexcept : file_(other.release()) {}
  FileRef& operator=(FileRef&& other) noexcept {
    if (this != &other) {
      drop();
      file_ = other.release();
    }
    return *this;
  }
  FileRef(const FileRef&) = delete;
  FileRef& operator=(const FileRef&) = delete;
  ~FileRef() { drop(); }

  explicit operator bool() const { return file_ != nullptr; }
  OpenFile* operator->() const { return file_; }
  OpenFile& operator*() const { return *file_; }
  OpenFile* get() const { return file_; }
  FileRef share() const {
    if (file_ != nullptr) file_->references.fetch_add(1, std::memory_order_relaxed);
    return FileRef(file_);
  }
  OpenFile* release() {
    OpenFile* file = file_;
    file_ = nullptr;
    return file;
  }
  // Gives the reference up; if it was the last, ends the service open file. 0 or -errno: what close(2) says.
  int drop();

 private:
  OpenFile* file_ = nullptr;
};

namespace open_files {

// A record with one reference and nothing else set, or null: all are in use.
[[nodiscard]] FileRef make();
// Valid only while referenced.
OpenFile* at(uint32_t index);
uint32_t index_of(const OpenFile& file);
// A reference to a record that may be going away: null when it has gone.
[[nodiscard]] FileRef try_reference(uint32_t index);
// For a forked child: all records are the parent's.
void forget_all();

}  // namespace open_files
}  // namespace poly
