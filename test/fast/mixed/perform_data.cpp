#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "test/fast/mixed/perform.hpp"

namespace mixed {

int64_t Performer::read_some(const Request& r, uint64_t& hash) {
  std::string data(static_cast<size_t>(r.size), '\0');
  int64_t result;
  if (r.operation == Operation::pread) {
    result = pread(fd(r.slot), data.data(), data.size(), r.offset);
  } else if (r.operation == Operation::readv) {
    const size_t half = data.size() / 3;
    const iovec parts[]{{data.data(), half}, {data.data() + half, data.size() - half}};
    result = readv(fd(r.slot), parts, 2);
  } else {
    result = read(fd(r.slot), data.data(), data.size());
  }
  if (result < 0) return -errno;
  hash = hash_of(data.data(), static_cast<size_t>(result));
  return result;
}

// Where an append leaves the offset, FUSE's kernel reckons from the size it knows (generic_write_checks),
// which another front end may have changed since; what it wrote is at the end all the same. lseek(2) to the
// end goes by that size, too, when a notification crosses the kernel's question for it
// (fuse_change_attributes).
void Performer::settle_offset(int slot) {
  struct stat st;
  const int flags = fcntl(fd(slot), F_GETFL);
  if (flags >= 0 && (flags & O_APPEND) != 0 && fstat(fd(slot), &st) == 0)
    lseek(fd(slot), st.st_size, SEEK_SET);
}

int64_t Performer::write_some(const Request& r) {
  const int64_t result = write_once(r);
  settle_offset(r.slot);
  return result;
}

int64_t Performer::write_once(const Request& r) {
  std::string data = bytes(r.seed, r.size);
  if (r.operation == Operation::pwrite)
    return outcome(pwrite(fd(r.slot), data.data(), data.size(), r.offset));
  if (r.operation == Operation::writev) {
    const size_t part = data.size() / 3;
    const iovec parts[]{
        {data.data(), part}, {data.data() + part, 0}, {data.data() + part, data.size() - part}};
    return outcome(writev(fd(r.slot), parts, 3));
  }
  return outcome(write(fd(r.slot), data.data(), data.size()));
}

// What a directory's offsets are each filesystem decides.
int64_t Performer::seek(const Request& r) {
  struct stat st;
  if (fstat(fd(r.slot), &st) == 0 && S_ISDIR(st.st_mode)) return 0;
  return outcome(lseek(fd(r.slot), r.offset, r.flags % 3));
}

// Both may move less than asked for: until nothing more comes. They go by the size that the kernel knows,
// without asking FUSE for it: first ask. Into the very file that it reads, sendfile(2) overwrites pages that
// it has yet to copy, in pieces of each filesystem's own size: nobody says what comes of that.
int64_t Performer::transfer(const Request& r) {
  struct stat st, to;
  if (fstat(fd(r.slot), &st) != 0) return -errno;
  if (fstat(fd(r.slot2), &to) != 0) return -errno;
  if (r.operation == Operation::send && st.st_ino == to.st_ino) return 0;
  // To copy nothing clears set-id bits on FUSE (__fuse_copy_file_range, fs/fuse/file.c), and on no other.
  // Only of files: how long a directory is each filesystem decides.
  if (r.operation == Operation::copy_range && S_ISREG(st.st_mode) && r.offset >= st.st_size) return 0;
  int64_t done = 0;
  while (done < r.size) {
    const auto left = static_cast<size_t>(r.size - done);
    off_t from = r.offset + done;
    const ssize_t moved = r.operation == Operation::send
                              ? sendfile(fd(r.slot2), fd(r.slot), &from, left)
                              : copy_file_range(fd(r.slot), &from, fd(r.slot2), nullptr, left, 0);
    if (moved < 0) return done > 0 ? done : -errno;
    if (moved == 0) break;
    done += moved;
  }
  return done;
}

// All of a file, by name.
int64_t Performer::content(const Request& r, uint64_t& hash) {
  const Name name = first(r);
  const int fd = openat(name.base, name.path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return -errno;
  std::vector<char> data(static_cast<size_t>(std::max<int64_t>(r.size, 512)));
  int64_t total = 0, result;
  hash = hash_of(nullptr, 0);
  while ((result = outcome(read(fd, data.data(), data.size()))) > 0) {
    hash = hash_of(data.data(), static_cast<size_t>(result), hash);
    total += result;
  }
  close(fd);
  return result < 0 ? result : total;
}

int64_t Performer::map_read(const Request& r, uint64_t& hash) {
  struct stat st;
  if (fstat(fd(r.slot), &st) != 0) return -errno;
  if (!S_ISREG(st.st_mode) || st.st_size == 0) return 0;
  void* at = mmap(nullptr, static_cast<size_t>(st.st_size), PROT_READ, MAP_SHARED, fd(r.slot), 0);
  if (at == MAP_FAILED) return -errno;
  hash = hash_of(at, static_cast<size_t>(st.st_size));
  munmap(at, static_cast<size_t>(st.st_size));
  return st.st_size;
}

// Afterwards the times are set: tmpfs does not move them for a store into a mapping.
int64_t Performer::map_write(const Request& r) {
  struct stat st;
  if (fstat(fd(r.slot), &st) != 0) return -errno;
  if (!S_ISREG(st.st_mode) || st.st_size == 0) return 0;
  const auto length = static_cast<size_t>(st.st_size);
  void* at = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd(r.slot), 0);
  if (at == MAP_FAILED) return -errno;
  const size_t from = static_cast<size_t>(r.offset) % length;
  const std::string data = bytes(r.seed, std::min<int64_t>(r.size, st.st_size - static_cast<int64_t>(from)));
  std::copy(data.begin(), data.end(), static_cast<char*>(at) + from);
  const int64_t synced = outcome(msync(at, length, MS_SYNC));
  munmap(at, length);
  const timespec times[]{{1000, 0}, {2000, 500}};
  const int64_t set = outcome(futimens(fd(r.slot), times));
  return synced < 0 ? synced : set < 0 ? set : static_cast<int64_t>(data.size());
}

void Performer::on_data(const Request& r, Result& out) {
  switch (r.operation) {
    case Operation::read:
    case Operation::pread:
    case Operation::readv:
      out.value = read_some(r, out.hash);
      break;
    case Operation::write:
    case Operation::pwrite:
    case Operation::writev:
      out.value = write_some(r);
      break;
    case Operation::seek:
      out.value = seek(r);
      break;
    case Operation::ftruncate:
      out.value = outcome(ftruncate(fd(r.slot), r.offset));
      break;
    case Operation::fallocate:
      out.value =
          outcome(fallocate(fd(r.slot), (r.flags & 1) != 0 ? FALLOC_FL_KEEP_SIZE : 0, r.offset, r.size));
      break;
    case Operation::sync:
      out.value = outcome((r.flags & 1) != 0 ? fsync(fd(r.slot)) : fdatasync(fd(r.slot)));
      break;
    case Operation::copy_range:
    case Operation::send:
      out.value = transfer(r);
      break;
    case Operation::content:
      out.value = content(r, out.hash);
      break;
    case Operation::map_read:
      out.value = map_read(r, out.hash);
      break;
    case Operation::map_write:
      out.value = map_write(r);
      break;
    default:
      on_names(r, out);
  }
}

}  // namespace mixed
