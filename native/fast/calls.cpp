#include "native/fast/calls.hpp"

#include <array>
#include <chrono>

namespace poly {
namespace {

// Null: not served here.
constexpr auto make_table() {
  std::array<FastCall::Handler, kOpCount> t{};
  auto serve = [&t](Op op, FastCall::Handler handler) { t[static_cast<size_t>(op)] = handler; };
  serve(Op::lookup, call_getattr);
  serve(Op::getattr, call_getattr);
  serve(Op::setattr, call_setattr);
  serve(Op::readlink, call_readlink);
  serve(Op::mknod, call_mknod);
  serve(Op::mkdir, call_mkdir);
  serve(Op::symlink, call_symlink);
  serve(Op::link, call_link);
  serve(Op::unlink, call_unlink);
  serve(Op::rmdir, call_rmdir);
  serve(Op::rename, call_rename);
  serve(Op::create, call_open);
  serve(Op::open, call_open);
  serve(Op::read, call_read);
  serve(Op::write, call_write);
  serve(Op::flush, call_flush);
  serve(Op::fsync, call_fsync);
  serve(Op::release, call_release);
  serve(Op::opendir, call_opendir);
  serve(Op::readdir, call_readdir);
  serve(Op::releasedir, call_release);
  serve(Op::setxattr, call_setxattr);
  serve(Op::getxattr, call_getxattr);
  serve(Op::listxattr, call_listxattr);
  serve(Op::removexattr, call_removexattr);
  serve(Op::fallocate, call_fallocate);
  serve(Op::copy_file_range, call_copy_file_range);
  serve(Op::lseek, call_lseek);
  serve(Op::statfs, call_statfs);
  return t;
}
constexpr auto kTable = make_table();

constexpr auto kLongestTelling = std::chrono::seconds(2);

// As FUSE's table: has effects, or opens something that an unsent answer would leak.
constexpr bool keeps_record(Op op) {
  return kOpClasses[static_cast<size_t>(op)] == OpClass::kOnce || op == Op::write || op == Op::open ||
         op == Op::opendir;
}

uint64_t mixed(uint64_t x) {  // splitmix64's finaliser
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

// Inode number and device, as one number.
uint64_t identity_of(const Attr& attr) {
  const uint64_t device = uint64_t{attr.stx_dev_major} << 32 | attr.stx_dev_minor;
  return attr.stx_ino ^ mixed(device);
}

// Of a call, for exactly-once records: the same when it is posted again. Bit 62 is never set in FUSE's.
uint64_t call_identity(uint64_t client_key, uint32_t buffer, uint32_t sequence) {
  constexpr uint64_t kFast = 1ull << 62;
  return (mixed(client_key ^ mixed(uint64_t{buffer} << 32 | sequence)) & (kFast - 1)) | kFast;
}

}  // namespace

int32_t run_call(Dispatcher& dispatcher, FastClient& client, uint32_t buffer, uint32_t sequence,
                 const WireCall& call, std::string_view path, std::string_view path2,
                 std::span<std::byte> data, WireAnswer& answer, size_t shard, ReplayRecord*& record,
                 CopyTeller teller) {
  FastCall c(dispatcher, client, call, path, path2, data, answer, record);
  c.teller = teller;
  return answer.result = c.run(call_identity(client.key, buffer, sequence), shard);
}

FastCall::FastCall(Dispatcher& dispatcher, FastClient& client, const WireCall& call, std::string_view path,
                   std::string_view path2, std::span<std::byte> data, WireAnswer& answer,
                   ReplayRecord*& record)
    : dispatcher(dispatcher),
      client(client),
      call(call),
      path(path),
      path2(path2),
      data(data),
      answer(answer),
      view(client.view()),
      record_(record) {
  const Credentials& who = view->credentials;
  request.fast = true;
  request.caller = {who.uid, who.gid, view->pid, call.umask & 0777, std::span(who.groups)};
}

int32_t FastCall::run(uint64_t identity, size_t shard) {
  const uint64_t start = monotonic_ns();
  identity_ = identity;
  const Handler handler = call.op < kOpCount ? kTable[call.op] : nullptr;
  int32_t result = kDeclined;
  if (handler && path.size() < PATH_MAX && path2.size() < PATH_MAX) {
    if (!release_left(result)) {
      result = enter();
      if (result == 0) result = handler(*this);
    }
  }
  // The libservice cannot reach what it reached before: the kernel asks again from the root (ESTALE in
  // filename_lookup, fs/namei.c).
  if (result == -ESTALE) result = kDeclined;
  if (left_) take_up_left();
  const uint64_t took = monotonic_ns() - start;
  if (instance && result != kDeclined && result != kUnknownHandle)
    instance->stats.add(static_cast<Op>(call.op), shard, result < 0, took);
  client.stats.add(result == kDeclined, took);
  return result;
}

bool may_be_running(FastCall& c, const Entry& entry) {
  return (entry.attr.stx_mode & (S_IXUSR | S_IXGRP | S_IXOTH)) && c.dispatcher.kernel_holds(*entry.node);
}

int32_t FastCall::take_file(uint32_t handle, Dispatcher::ClientFile& out) {
  return dispatcher.client_file(client.key, handle, out) ? 0 : kUnknownHandle;
}

int32_t FastCall::enter() {
  if (by_handle()) {
    if (int32_t err = take_file(call.file, file)) return err;
    instance = dispatcher.use(file.instance);
    request.node = file.node;
    request.file = file.id;
  } else {
    const ClientView::Proof* proof = view->proof(call.instance);
    if (!proof) return kDeclined;
    proof_ = *proof;
    instance = dispatcher.use(call.instance);
  }
  if (!instance) return kDeclined;
  if (instance->host->released.load(std::memory_order_relaxed) && !gives_back(static_cast<Op>(call.op)))
    return -EIO;
  permissions_.emplace(instance->libservice(), view->credentials);
  request.permissions = &*permissions_;
  if (kOpEffects[call.op] == OpEffect::kChanges && read_only()) return kDeclined;
  if (call.resent) left_ = dispatcher.replays().find(instance->id, identity_);
  return 0;
}

int32_t FastCall::begin_at(uint32_t directory, Ref<Node>& out) {
  if (directory == 0) {
    out = dispatcher.nodes().get(instance->root, instance->id);
  } else {
    Dispatcher::ClientFile base;
    if (int32_t err = take_file(directory, base)) return err;
    if (!base.directory || base.instance != instance->id) return kUnknownHandle;
    out = dispatcher.client_node(base);
  }
  return out ? 0 : kDeclined;
}

int32_t FastCall::lookup(Entry& out) {
  Ref<Node> base;
  if (int32_t err = begin_at(call.directory, base)) return err;
  return walk(*base, path, call.walk).resolve(call.walk & kWalkFollow, out);
}

int32_t FastCall::look(Entry& out) {
  Ref<Node> base;
  if (int32_t err = begin_at(call.directory, base)) return err;
  return walk(*base, path, call.walk).resolve_attributes(call.walk & kWalkFollow, out);
}

// On a mount that follows no links (nosymfollow) the kernel says what it says of them.
Walk FastCall::walk(Node& base, std::string_view text, uint16_t flags) {
  const uint16_t links = mount_flags().no_symlinks ? kWalkNoLinks : 0;
  return Walk(instance->libservice(), instance->host->directories, permissions(), request.caller, base, text,
              flags | links);
}

// Most modes need nothing of the directory, whose attributes a network filesystem may have to ask for.
int32_t FastCall::set_mode(Walk& walk, mode_t mode) {
  constexpr mode_t kGroupExec = S_ISGID | S_IXGRP;
  request.mode = mode;
  if ((mode & kGroupExec) != kGroupExec) return 0;
  const Attr* directory;
  if (int err = walk.access(directory)) return err;
  request.mode = permissions().new_mode(*directory, mode);
  return 0;
}

int32_t FastCall::find(Entry& out) {
  if (!by_handle()) return lookup(out);
  out.node = dispatcher.client_node(file);
  return out.node ? instance->libservice().getattr(*out.node, nullptr, out.attr) : kDeclined;
}

void FastCall::note_release() {
  if (!record_) return;
  replay_start(*record_, instance->id, identity_, call.op);
  record_->offset = file.id;
  record_->phase.store(kChecked, std::memory_order_release);
}

bool FastCall::release_left(int32_t& result) {
  const Op op = static_cast<Op>(call.op);
  if (!call.resent || (op != Op::release && op != Op::releasedir)) return false;
  ReplayRecord* left = dispatcher.replays().find(call.instance, identity_);
  if (!left) return false;
  const bool begun = left->op == call.op && left->phase.load(std::memory_order_acquire) == kChecked;
  file = {left->offset, 0, call.instance, 0, op == Op::releasedir};
  instance = dispatcher.use(call.instance);
  if (begun && instance) result = dispatcher.close_client_file(*instance, file);
  dispatcher.replays().release(left);
  return begun && instance;
}

// A call that comes to be another operation now than in its first run takes back what that one left, and
// begins anew.
void FastCall::take_up_left() {
  if (record_) dispatcher.replays().release(record_);
  record_ = request.replay = std::exchange(left_, nullptr);
  request.resent = true;
  dispatcher.start_over(*instance, request);
  request.resent = false;
  record_->phase.store(kIdle, std::memory_order_release);
}

void FastCall::choose_record(Op op) {
  if (left_ && left_->op == static_cast<uint32_t>(op)) {
    if (record_) dispatcher.replays().release(record_);
    record_ = request.replay = std::exchange(left_, nullptr);
    request.resent = true;
    return;
  }
  if (left_) take_up_left();
  request.replay = record_;
  request.resent = false;
  if (record_) replay_start(*record_, instance->id, identity_, static_cast<uint32_t>(op));
}

int32_t FastCall::perform(Op op) {
  request.op = op;
  if (keeps_record(op)) choose_record(op);
  const int32_t result = dispatcher.perform(*instance, request, reply);
  // Somebody holds a lock in the kernel for longer than the dispatcher waits. The answer is held back, not
  // for ever: a server thread is not his to keep.
  if (reply.told) (void)reply.told->wait(kLongestTelling);
  return result;
}

bool FastCall::count_file() {
  if (client.open_files.fetch_add(1, std::memory_order_relaxed) < FastClient::kMaxFiles) return true;
  // Those that the kernel was given are still counted.
  const uint32_t open = dispatcher.count_client_files(client.key);
  const bool room = open < FastClient::kMaxFiles;
  client.open_files.store(open + room, std::memory_order_relaxed);
  return room;
}

// The device, mount and attributes are the host's and mean nothing to the client.
void FastCall::put_attributes(const Attr& attr) {
  answer.node = identity_of(attr);
  answer.attr = attr;
  answer.attr.stx_mask = attr.stx_mask & (STATX_BASIC_STATS | STATX_BTIME);
  answer.attr.stx_attributes = answer.attr.stx_attributes_mask = 0;
  answer.attr.stx_dev_major = answer.attr.stx_dev_minor = 0;
  answer.attr.stx_mnt_id = 0;
}

void FastCall::put_file() {
  answer.file = static_cast<uint32_t>(reply.file);
}

}  // namespace poly
