#include "preload/open_file.hpp"

#include "preload/arena.hpp"
#include "preload/calls.hpp"

namespace poly {
namespace open_files {
namespace {

std::atomic<uint32_t> fresh{0};  // records from here on were never used
// Head of the list of used and freed records: index + 1 below, a tag against ABA above.
std::atomic<uint64_t> free_list{0};

OpenFile* pop_free() {
  uint64_t head = free_list.load(std::memory_order_acquire);
  for (;;) {
    const auto number = static_cast<uint32_t>(head);
    if (number == 0) return nullptr;
    OpenFile& file = arena->files[number - 1];
    const uint64_t next = ((head >> 32) + 1) << 32 | file.next_free.load(std::memory_order_relaxed);
    if (free_list.compare_exchange_weak(head, next, std::memory_order_acquire)) return &file;
  }
}

OpenFile* take_fresh() {
  uint32_t index = fresh.load(std::memory_order_relaxed);
  do {
    if (index == Arena::kMaxFiles) return nullptr;
  } while (!fresh.compare_exchange_weak(index, index + 1, std::memory_order_relaxed));
  return &arena->files[index];
}

void push_free(OpenFile& file) {
  uint64_t head = free_list.load(std::memory_order_relaxed);
  uint64_t next;
  do {
    file.next_free.store(static_cast<uint32_t>(head), std::memory_order_relaxed);
    next = ((head >> 32) + 1) << 32 | (index_of(file) + 1);
  } while (!free_list.compare_exchange_weak(head, next, std::memory_order_release));
}

}  // namespace

FileRef make() {
  OpenFile* file = pop_free();
  if (file == nullptr) file = take_fresh();
  if (file == nullptr) return {};
  file->flags.store(0, std::memory_order_relaxed);
  file->offset.store(0, std::memory_order_relaxed);
  file->mount = nullptr;
  file->inode = 0;
  file->handle = 0;
  file->promoted.store(false, std::memory_order_relaxed);
  file->not_promotable.store(false, std::memory_order_relaxed);
  file->directory = false;
  file->references.store(1, std::memory_order_release);
  return FileRef(file);
}

OpenFile* at(uint32_t index) {
  return &arena->files[index];
}

uint32_t index_of(const OpenFile& file) {
  return static_cast<uint32_t>(&file - arena->files);
}

FileRef try_reference(uint32_t index) {
  OpenFile& file = arena->files[index];
  uint32_t count = file.references.load(std::memory_order_relaxed);
  do {
    if (count == 0) return {};
  } while (!file.references.compare_exchange_weak(count, count + 1, std::memory_order_acquire));
  return FileRef(&file);
}

void forget_all() {
  const uint32_t used = fresh.exchange(0);
  for (uint32_t i = 0; i < used; ++i) {
    arena->files[i].references.store(0, std::memory_order_relaxed);
    arena->files[i].position.reset();
  }
  free_list.store(0);
}

}  // namespace open_files

int FileRef::drop() {
  OpenFile* file = release();
  if (file == nullptr || file->references.fetch_sub(1, std::memory_order_acq_rel) != 1) return 0;
  int result = 0;
  // No handle: the open did not succeed.
  if (file->handle != 0 && !file->promoted.load(std::memory_order_acquire)) result = calls::release(*file);
  open_files::push_free(*file);
  return result;
}

}  // namespace poly
