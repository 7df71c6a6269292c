#include "native/fuse/init.hpp"

#include <algorithm>

#include "native/fuse/session.hpp"

namespace poly {
namespace {

// Wanted of every kernel that offers it. Not among them: AUTO_INVAL_DATA (the kernel drops cached pages when
// it sees a time that one of its own writes, still on its way, has made, and can read back what was there
// before; changes from below are told instead, Dispatcher::observe), EXPLICIT_INVAL_DATA (pages stay even
// when the size turns out to be another one: the page with the old end then shows zeros in place of what was
// appended), WRITEBACK_CACHE (excludes passthrough and breaks coherence with the fast path), SPLICE_* (a
// copy is cheaper at these sizes), EXPORT_SUPPORT (no lookup of "." and ".." by id),
// CACHE_SYMLINKS (cached links are followed in RCU mode, and when that has to start over the kernel counts
// them twice: ELOOP from 21 links in a path on instead of 41; Linux 6.18, CPython test_glob).
constexpr uint64_t kWanted = FUSE_ASYNC_READ | FUSE_POSIX_LOCKS | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES |
                             FUSE_DONT_MASK | FUSE_FLOCK_LOCKS | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO |
                             FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 |
                             FUSE_POSIX_ACL | FUSE_MAX_PAGES | FUSE_SETXATTR_EXT | FUSE_INIT_EXT |
                             kFuseHasResend | kFuseDirectIoAllowMmap;

constexpr uint32_t kMinMinor = 33;  // Linux 5.11: FUSE_SETXATTR_EXT, whose structure is the one we read

}  // namespace

int handle_init(Call& call) {
  // Older kernels send a shorter structure; only the first four words are always there.
  auto words = call.take_bytes(sizeof(fuse_init_in));
  if (words.size() < 4 * sizeof(uint32_t)) return -EPROTO;
  fuse_init_in in{};
  std::memcpy(&in, words.data(), words.size());
  auto& out = call.put<fuse_init_out>();
  out.major = FUSE_KERNEL_VERSION;
  out.minor = FUSE_KERNEL_MINOR_VERSION;
  if (in.major > FUSE_KERNEL_VERSION) return 0;  // the kernel asks again with our major
  if (in.major < FUSE_KERNEL_VERSION || in.minor < kMinMinor) return -EPROTO;

  uint64_t offered = in.flags | (in.flags & FUSE_INIT_EXT ? uint64_t{in.flags2} << 32 : 0);
  uint64_t flags = offered & kWanted;
  out.max_readahead = in.max_readahead;
  out.flags = static_cast<uint32_t>(flags);
  out.flags2 = static_cast<uint32_t>(flags >> 32);
  out.max_background = 64;
  out.congestion_threshold = 48;
  out.max_write = kMaxWrite;
  out.time_gran = 1;
  out.max_pages = kMaxWrite / 4096;
  if (InstanceRecord* record = call.connection.instance.record) record->init_flags.store(flags);
  call.connection.proto_minor.store(std::min<uint32_t>(in.minor, FUSE_KERNEL_MINOR_VERSION));
  call.connection.initialised.store(true, std::memory_order_release);
  return 0;
}

}  // namespace poly
