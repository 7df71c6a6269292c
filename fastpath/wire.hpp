// What the two sides of the fast path share: request buffers, calls and answers in them, and what is said on
// the attach socket. A change here is a new kWireAbi; both sides compare it when they meet.
//
// Who may write what. A client process makes its own request memory (a memfd whose size is sealed, so that
// the service, which maps it too, never meets SIGBUS) and shares queue memory (request_queue.hpp) with the
// other processes of its uid. All of it is hostile to the service: it copies a call out once, checks the
// copy, and uses nothing it has not copied but file data.
#pragma once

#include <sys/stat.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "fastpath/copy.hpp"
#include "fastpath/ops.hpp"

namespace poly {

inline constexpr uint32_t kWireMagic = 0x796c6f50;  // "Poly"
inline constexpr uint32_t kWireAbi = 2;

// A request buffer's state word: phase in the low two bits, sequence of the call above them. It is the truth
// about a call; queue slots are hints to look at it. It is the futex word the client sleeps on.
//   client: kIdle/kDone -> kPosted (new sequence)
//   service: kPosted -> kTaken by compare-and-swap (so that a call is run once however often it is posted),
//            kTaken -> kDone
enum class CallPhase : uint32_t { kIdle, kPosted, kTaken, kDone };

constexpr uint32_t call_state(uint32_t sequence, CallPhase phase) {
  return sequence << 2 | static_cast<uint32_t>(phase);
}
constexpr CallPhase phase_of(uint32_t state) {
  return static_cast<CallPhase>(state & 3);
}
constexpr uint32_t sequence_of(uint32_t state) {
  return state >> 2;
}

// How a path of a call is to be walked.
enum WalkFlags : uint16_t {
  kWalkFollow = 1u << 0,     // a symbolic link at the end is followed (lookups), not looked at
  kWalkDirectory = 1u << 1,  // the spelling ends in a slash: ENOTDIR for anything else
  kWalkNoLinks = 1u << 2,    // decline at any symbolic link or "..": other mounts are below this one
  kWalkRealUid = 1u << 3,    // access(2): decide with the real ids, not the effective ones
  kWalkHandle = 1u << 4,     // no path: the call is about `file`
};

// `file` and directory handles of a client are small numbers of its own; 0 is none (of directories: the
// instance's root).
struct WireCall {
  uint16_t op;  // Op
  uint16_t walk;
  uint32_t instance;
  uint32_t directory, directory2;  // where relative paths begin
  uint32_t file, file2;
  uint32_t path_size, path2_size;  // bytes in `paths`, without NULs; path2 follows path
  uint32_t flags;  // open, rename, xattr, fallocate, fsync, lseek's whence, access(2)'s mode in getattr,
                   // kReadInChunks
  uint32_t mode, umask;
  uint32_t resent;  // 1: asked again after the service died in the middle of it
  uint64_t device, offset, offset2, size;
  uint32_t set_mask, set_mode, set_uid, set_gid;  // SetAttrMask
  uint64_t set_size;
  int64_t atime_sec, mtime_sec;
  uint32_t atime_nsec, mtime_nsec;
};
static_assert(sizeof(WireCall) == 128 && std::atomic<uint32_t>::is_always_lock_free);

// In `flags` of a read: the client copies out what RequestBuffer::progress says is there.
inline constexpr uint32_t kReadInChunks = 1;

// Results that are no errno of the filesystem's. The library hands the call to the kernel.
inline constexpr int32_t kDeclined = -4096;
// The handle means nothing to this service (any more).
inline constexpr int32_t kUnknownHandle = -4097;

struct WireAnswer {
  int32_t result;  // 0, -errno, or one of the above
  uint32_t file;   // open: the handle
  uint64_t value;  // bytes read or written, lseek's offset, size of an xattr
  uint64_t
      node;  // what stands for the file's inode in this instance: equal for equal files while one is open
  struct statx attr;
};

// Longest path pair: two of PATH_MAX without their NULs. An xattr's name is path2.
inline constexpr uint32_t kMaxPaths = 2 * 4096;

// One per thread of the client. The service writes `answer`, `data` and `progress` of reads, and
// kTaken/kDone in `state`.
struct RequestBuffer {
  alignas(64) std::atomic<uint32_t> state;
  std::atomic<uint32_t> sleeping;    // the client sleeps in futex(2) on `state`, or is about to
  std::atomic<uint32_t> client_cpu;  // where the client was when it posted
  std::atomic<uint32_t> server_cpu;  // where the service thread was that answered last
  alignas(64) WireCall call;
  alignas(64) WireAnswer answer;
  alignas(64) CopyProgress progress;
  alignas(4096) char paths[kMaxPaths];
  alignas(4096) std::byte data[1u << 20];
};
inline constexpr size_t kDataSize = sizeof(RequestBuffer::data);
static_assert(sizeof(RequestBuffer) == kDataSize + 3 * 4096);

// Request memory: buffers only, nothing else to lie about.
inline constexpr uint32_t kMaxBuffers = 256;

// ---- The attach socket: SOCK_SEQPACKET, one message each way, descriptors by SCM_RIGHTS (unix(7)). ----
// The kernel vouches for pid, uid, gid and groups of who connected. A client whose credentials have changed
// connects again with its key; the open files stay its own.

enum class AttachKind : uint32_t {
  kHello = 1,  // with 1 descriptor: request memory -> AttachWelcome with 1 descriptor: queue memory
  kProve,      // with 1 descriptor, O_PATH, of an instance's root -> AttachProven. None answers unproven.
};

struct AttachHello {
  uint32_t magic, abi;
  AttachKind kind;
  uint32_t buffers;  // how many request memory has room for, 1 to kMaxBuffers
  uint64_t key;      // 0, or that of the client it was before its credentials changed or the service died
};

struct AttachWelcome {
  int32_t result;  // 0 or -errno: EPROTO another ABI, EPERM credentials the service cannot act for, EMFILE,
                   // EAGAIN it has not yet taken up all that its predecessor served
  uint32_t client;
  uint64_t key;
  uint32_t groups;       // queues in queue memory
  uint32_t capacity;     // of each queue
  uint32_t owner;        // what this client's process writes into slots it works on
  uint32_t incarnation;  // changes when the service is another process: what was proven to it is not any more
};

struct AttachProve {
  uint32_t magic, abi;
  AttachKind kind;
  uint32_t instance;
};

struct AttachProven {
  int32_t result;  // 0 or -errno: ENOENT no such instance, EXDEV not its root through its mount,
                   // EACCES a mount that is its owner's alone
  uint32_t read_only;
  // Opening CONTROL/HEX with O_CREAT through the kernel turns handle HEX into a kernel descriptor.
  char control[32];
};

}  // namespace poly
