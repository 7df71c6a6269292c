#include "native/fast/attached_client.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

namespace poly {

AttachedClient::~AttachedClient() {
  if (memory) munmap(memory, buffers * sizeof(RequestBuffer));
}

int AttachedClient::map(int memfd, uint32_t count) {
  if (count == 0 || count > kMaxBuffers) return -EINVAL;
  const size_t size = count * sizeof(RequestBuffer);
  const int seals = fcntl(memfd, F_GET_SEALS);  // fails on anything that is no memfd
  if (seals < 0 || (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) != (F_SEAL_SHRINK | F_SEAL_GROW)) return -EINVAL;
  // Huge pages are promised, not there: touching them can be SIGBUS.
  struct statfs fs;
  if (fstatfs(memfd, &fs) != 0 || fs.f_type != TMPFS_MAGIC) return -EINVAL;
  struct stat st;
  if (fstat(memfd, &st) != 0 || st.st_size != static_cast<off_t>(size)) return -EINVAL;
  void* shared = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memfd, 0);
  if (shared == MAP_FAILED) return -errno;
  memory = static_cast<RequestBuffer*>(shared);
  buffers = count;
  return 0;
}

}  // namespace poly
