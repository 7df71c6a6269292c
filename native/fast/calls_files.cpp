// Calls on open files, by handle.
#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>

#include "native/fast/calls.hpp"

namespace poly {
namespace {

bool readable(const Dispatcher::ClientFile& file) {
  return !file.directory && (file.flags & O_ACCMODE) != O_WRONLY;
}
bool writable(const Dispatcher::ClientFile& file) {
  return !file.directory && (file.flags & O_ACCMODE) != O_RDONLY;
}

// rw_verify_area (fs/read_write.c)
bool in_range(uint64_t offset, uint64_t size) {
  return offset <= INT64_MAX && size <= INT64_MAX - offset;
}

bool opened(const FastCall& c) {
  return c.by_handle() && !c.file.directory;
}

// Puts entries together as getdents64(2) does. They are written once and not read again: the client may
// change them meanwhile.
class Packer final : public EntrySink {
 public:
  explicit Packer(std::span<std::byte> room) : room_(room) {}
  bool fits(size_t name_size) const override { return record_size(name_size) <= room_.size() - used_; }
  void add(const DirEntry& from, const EntryReply*) override {
    dirent64 entry;
    entry.d_ino = from.ino;
    entry.d_off = static_cast<off64_t>(from.next);
    entry.d_reclen = static_cast<uint16_t>(record_size(from.name.size()));
    entry.d_type = static_cast<uint8_t>(from.type);
    std::byte* at = room_.data() + used_;
    std::memcpy(at, &entry, kHeader);
    std::memset(at + kHeader, 0, entry.d_reclen - kHeader);
    std::memcpy(at + kHeader, from.name.data(), from.name.size());
    used_ += entry.d_reclen;
  }
  size_t used() const { return used_; }

 private:
  static constexpr size_t kHeader = offsetof(dirent64, d_name);
  static size_t record_size(size_t name_size) { return (kHeader + name_size + 1 + 7) & ~size_t{7}; }
  const std::span<std::byte> room_;
  size_t used_ = 0;
};

}  // namespace

int32_t call_read(FastCall& c) {
  if (!c.by_handle() || !readable(c.file)) return -EBADF;
  if (!in_range(c.call.offset, c.call.size) || c.call.size > c.data.size()) return -EINVAL;
  if (c.call.size == 0) return 0;
  c.request.offset = c.call.offset;
  c.reply.buffer = c.data.first(c.call.size);
  if (c.call.flags & kReadInChunks) c.reply.teller = c.teller;
  if (int32_t err = c.perform(Op::read)) return err;
  c.answer.value = c.reply.size;
  return 0;
}

// Where O_APPEND is among the call's flags the offset means nothing: fcntl(2) may have changed what open(2)
// said. attr.stx_size answers where the file offset is afterwards.
int32_t call_write(FastCall& c) {
  if (!c.by_handle() || !writable(c.file)) return -EBADF;
  if (!in_range(c.call.offset, c.call.size) || c.call.size > c.data.size()) return -EINVAL;
  if (c.call.size == 0) return 0;
  c.request.offset = c.call.offset;
  c.request.flags = c.call.flags & O_APPEND;
  c.request.data = c.data.first(c.call.size);
  c.request.kill_priv = !c.permissions().who.capable;
  if (int32_t err = c.perform(Op::write)) return err;
  c.answer.value = c.reply.value;
  c.answer.attr.stx_size = c.reply.end;
  return 0;
}

int32_t call_flush(FastCall& c) {
  return opened(c) ? c.perform(Op::flush) : -EBADF;
}

int32_t call_fsync(FastCall& c) {
  if (!opened(c)) return -EBADF;
  c.request.flags = c.call.flags & 1;
  return c.perform(Op::fsync);
}

// What both vfs_fallocate (fs/open.c) and fuse_file_fallocate (fs/fuse/file.c) let through.
int32_t call_fallocate(FastCall& c) {
  const uint32_t mode = c.call.flags;
  const bool served = (mode & ~uint32_t{FALLOC_FL_KEEP_SIZE}) == 0 ||
                      (mode & ~uint32_t{FALLOC_FL_KEEP_SIZE}) == FALLOC_FL_ZERO_RANGE ||
                      mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
  if (!opened(c) || !served) return kDeclined;
  if (c.call.offset > INT64_MAX || c.call.size > INT64_MAX || c.call.size == 0) return -EINVAL;
  if (!writable(c.file)) return -EBADF;
  c.request.offset = c.call.offset;
  c.request.size = c.call.size;
  c.request.flags = mode;
  c.request.kill_priv = !c.permissions().who.capable;
  return c.perform(Op::fallocate);
}

int32_t call_lseek(FastCall& c) {
  if (!opened(c)) return -EBADF;
  if (c.call.flags != SEEK_DATA && c.call.flags != SEEK_HOLE) return kDeclined;
  c.request.offset = c.call.offset;
  c.request.flags = c.call.flags;
  if (int32_t err = c.perform(Op::lseek)) return err;
  c.answer.value = c.reply.value;
  return 0;
}

// Within one instance; where the libservice cannot, the kernel copies by reading and writing. That O_APPEND
// forbids it is the library's to say: fcntl(2) may have changed what open(2) said.
int32_t call_copy_file_range(FastCall& c) {
  Dispatcher::ClientFile to;
  if (!opened(c)) return -EBADF;
  if (int32_t err = c.take_file(c.call.file2, to)) return err;
  if (to.instance != c.file.instance) return kDeclined;
  if (!readable(c.file) || !writable(to)) return -EBADF;
  if (!in_range(c.call.offset, c.call.size) || !in_range(c.call.offset2, c.call.size)) return kDeclined;
  c.request.offset = c.call.offset;
  c.request.offset2 = c.call.offset2;
  c.request.file2 = to.id;
  c.request.node2 = to.node;
  c.request.size = std::min<uint64_t>(c.call.size, UINT32_MAX & ~4095u);
  c.request.kill_priv = !c.permissions().who.capable;
  const int32_t err = c.perform(Op::copy_file_range);
  if (err == -EXDEV || err == -EOPNOTSUPP || err == -ENOSYS) return kDeclined;
  c.answer.value = c.reply.value;
  return err;
}

// A directory of which only names were to be looked up is the kernel's to read.
int32_t call_readdir(FastCall& c) {
  if (!c.by_handle() || !c.file.directory) return -ENOTDIR;
  if (c.file.flags & O_PATH) return kDeclined;
  if (c.call.size < sizeof(dirent64) || c.call.size > c.data.size()) return -EINVAL;
  Packer packer(c.data.first(c.call.size));
  c.request.offset = c.call.offset;
  c.reply.sink = &packer;
  if (int32_t err = c.perform(Op::readdir)) return err;
  c.answer.value = packer.used();
  return 0;
}

}  // namespace poly
