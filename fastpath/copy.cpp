#include "fastpath/copy.hpp"

#include <linux/capability.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace poly {

const char* copy_method_name(CopyMethod method) {
  switch (method) {
    case CopyMethod::kSmc:
      return "smc";
    case CopyMethod::kSmcPipelined:
      return "smc-pipelined";
    case CopyMethod::kSmo:
      return "smo";
    case CopyMethod::kCma:
      return "cma";
    case CopyMethod::kAuto:
      return "auto";
  }
  return "?";
}

void copy_crossing(CopyMethod method, void* to, const void* from, size_t size) {
  if (method == CopyMethod::kSmo) return smo_copy(smo_form(), to, from, size);
  if (size != 0) std::memcpy(to, from, size);
}

void copy_chunks(CopyProgress& progress, uint32_t sequence, void* shared, const void* from, size_t size) {
  const size_t full = copy_chunk(size);
  for (size_t done = 0; done < size;) {
    const size_t chunk = std::min(full, size - done);
    std::memcpy(static_cast<std::byte*>(shared) + done, static_cast<const std::byte*>(from) + done, chunk);
    done += chunk;
    progress.publish(sequence, done);
  }
}

size_t ChunkReader::step() {
  const size_t there = progress_.published(sequence_, size_);
  if (there > done_) {  // a liar's word may also go back
    const size_t chunk = std::min(kCopyChunk, there - done_);
    std::memcpy(static_cast<std::byte*>(to_) + done_, static_cast<const std::byte*>(shared_) + done_, chunk);
    done_ += chunk;
  }
  return done_;
}

namespace {

bool may_trace_anybody() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  if (syscall(SYS_capget, &header, data) != 0) return true;
  return (data[0].effective >> CAP_SYS_PTRACE & 1) != 0;
}

using Transfer = decltype(&process_vm_readv);

// A transfer that ends early does so at a page the kernel could not get: the next one says why.
ssize_t transfer(Transfer call, pid_t pid, void* here, void* there, size_t size) {
  size_t done = 0;
  while (done < size) {
    const iovec local = {static_cast<std::byte*>(here) + done, size - done};
    const iovec remote = {static_cast<std::byte*>(there) + done, size - done};
    const ssize_t moved = call(pid, &local, 1, &remote, 1, 0);
    if (moved < 0 && done == 0) return -errno;
    if (moved <= 0) break;
    done += static_cast<size_t>(moved);
  }
  return static_cast<ssize_t>(done);
}

}  // namespace

int cma_probe(pid_t pid) {
  if (may_trace_anybody()) return -EPERM;
  // The kernel looks at credentials before it looks at memory (mm/process_vm_access.c), so that a byte of the
  // page at 0, which nobody has, tells: EFAULT from those who may.
  std::byte byte;
  const int64_t result = cma_read(pid, &byte, nullptr, 1);
  return result == 1 || result == -EFAULT ? 0 : static_cast<int>(result);
}

ssize_t cma_write(pid_t pid, void* remote, const void* from, size_t size) {
  return transfer(process_vm_writev, pid, const_cast<void*>(from), remote, size);
}

ssize_t cma_read(pid_t pid, void* to, const void* remote, size_t size) {
  return transfer(process_vm_readv, pid, to, const_cast<void*>(remote), size);
}

}  // namespace poly
