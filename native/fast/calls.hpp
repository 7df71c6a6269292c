// One fast-path call: a WireCall in, a WireAnswer out. The sibling of native/fuse/session.hpp: what the
// kernel does there before it asks (path walk, permissions) is done here, what comes after is the same
// dispatcher.
//
// `call` and the paths are private copies, yet every field is the client's and may be anything: an operation,
// an instance, a handle, a size is checked before it is used. `data` is shared with the client and may change
// at any moment: file data goes through it, and nothing is read from it twice.
//
// Answers are 0, -errno, kUnknownHandle, or kDeclined: the kernel must be asked, because the call leads out
// of the instance, is not served here (open of anything but a regular file, O_DIRECT, devices, most xattr
// namespaces), changes a read-only instance, where the kernel knows best which error comes first, or cuts a
// file that the kernel may believe to be longer.
#pragma once

#include <span>
#include <string_view>

#include "fastpath/wire.hpp"
#include "native/core/dispatcher.hpp"
#include "native/core/walk.hpp"
#include "native/fast/client.hpp"

namespace poly {

// Runs the call that the client has posted in its `buffer` with that sequence. Returns what it has put into
// answer.result; `answer` is only written. `record` is the calling thread's for exactly-once
// (core/replay.hpp; null: none to be had). It keeps this call until the thread's next one, so that a death
// before the answer was seen finds it, and may be another afterwards.
int32_t run_call(Dispatcher& dispatcher, FastClient& client, uint32_t buffer, uint32_t sequence,
                 const WireCall& call, std::string_view path, std::string_view path2,
                 std::span<std::byte> data, WireAnswer& answer, size_t shard, ReplayRecord*& record,
                 CopyTeller teller = {});

class FastCall {
 public:
  FastCall(Dispatcher& dispatcher, FastClient& client, const WireCall& call, std::string_view path,
           std::string_view path2, std::span<std::byte> data, WireAnswer& answer, ReplayRecord*& record);
  int32_t run(uint64_t identity, size_t shard);

  // What handlers work with.
  using Handler = int32_t (*)(FastCall&);

  bool by_handle() const { return call.walk & kWalkHandle; }
  bool read_only() const {
    return instance->read_only.load(std::memory_order_relaxed) || proof_.flags.read_only;
  }
  // Of the mount the path leads through.
  const MountFlags& mount_flags() const { return proof_.flags; }
  const Permissions& permissions() const { return *permissions_; }  // after enter()
  // Instance of a call with a path, or that of `call.file`, and the file. 0, kDeclined or kUnknownHandle.
  [[nodiscard]] int32_t enter();
  [[nodiscard]] int32_t take_file(uint32_t handle, Dispatcher::ClientFile& out);
  // Where a path begins.
  [[nodiscard]] int32_t begin_at(uint32_t directory, Ref<Node>& out);
  // All of `path`; follows a last link if kWalkFollow says so.
  [[nodiscard]] int32_t lookup(Entry& out);
  // The same for the attributes alone: `out` may have no node.
  [[nodiscard]] int32_t look(Entry& out);
  // `path` or `file`, whichever the call has, for operations on either.
  [[nodiscard]] int32_t find(Entry& out);
  Walk walk(Node& base, std::string_view text, uint16_t flags);
  // The request's mode, of what is to be made in the directory the walk has come to (mode_strip_sgid).
  [[nodiscard]] int32_t set_mode(Walk&, mode_t mode);
  // Runs the request as `op`, with an exactly-once record if it needs one.
  int32_t perform(Op op);
  // Notes that the file is about to be closed: the handle may be another's when the call is posted again.
  void note_release();
  // What the first run of this call was, when that left a record; Op::kCount: none.
  Op left_op() const { return left_ ? static_cast<Op>(left_->op) : Op::kCount; }
  // May one more file be open? Counts it.
  bool count_file();
  void put_attributes(const Attr& attr);
  void put_file();

  Dispatcher& dispatcher;
  FastClient& client;
  const WireCall& call;
  const std::string_view path, path2;
  const std::span<std::byte> data;
  WireAnswer& answer;
  CopyTeller teller;  // who copies `data` out meanwhile
  const std::shared_ptr<const ClientView> view;
  Dispatcher::Use instance;
  Dispatcher::ClientFile file;  // by_handle()
  Request request;
  Reply reply;

 private:
  // A release that a predecessor began: ends it, whatever the handle means by now. False: it did not begin.
  [[nodiscard]] bool release_left(int32_t& result);
  void choose_record(Op op);
  void take_up_left();

  std::optional<Permissions> permissions_;
  ClientView::Proof proof_;
  uint64_t identity_ = 0;
  ReplayRecord*& record_;
  ReplayRecord* left_ = nullptr;  // by the call's first run
};

// A program that the kernel may be running: ETXTBSY is the kernel's to say.
bool may_be_running(FastCall&, const Entry&);

// Handlers, by what they are about (calls_*.cpp).
int32_t call_getattr(FastCall&);
int32_t call_setattr(FastCall&);
int32_t call_statfs(FastCall&);
int32_t call_setxattr(FastCall&);
int32_t call_getxattr(FastCall&);
int32_t call_listxattr(FastCall&);
int32_t call_removexattr(FastCall&);
int32_t call_readlink(FastCall&);
int32_t call_mknod(FastCall&);
int32_t call_mkdir(FastCall&);
int32_t call_symlink(FastCall&);
int32_t call_link(FastCall&);
int32_t call_unlink(FastCall&);
int32_t call_rmdir(FastCall&);
int32_t call_rename(FastCall&);
int32_t call_open(FastCall&);
int32_t call_opendir(FastCall&);
int32_t call_release(FastCall&);
int32_t call_read(FastCall&);
int32_t call_write(FastCall&);
int32_t call_flush(FastCall&);
int32_t call_fsync(FastCall&);
int32_t call_fallocate(FastCall&);
int32_t call_lseek(FastCall&);
int32_t call_copy_file_range(FastCall&);
int32_t call_readdir(FastCall&);

}  // namespace poly
