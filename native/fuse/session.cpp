#include "native/fuse/session.hpp"

#include <cstring>

#include "native/fuse/control.hpp"
#include "native/fuse/opcodes.hpp"

namespace poly {

bool is_urgent(uint32_t opcode) {
  return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT ||
         opcode == FUSE_RELEASE || opcode == FUSE_RELEASEDIR || opcode == FUSE_INIT || opcode == FUSE_DESTROY;
}

const char* Call::take_name() {
  auto* name = reinterpret_cast<const char*>(body_.data());
  size_t length = strnlen(name, body_.size());
  if (length == body_.size()) return nullptr;
  body_ = body_.subspan(length + 1);
  return name;
}

const char* Call::take_component() {
  const char* name = take_name();
  return name && is_component(name) ? name : nullptr;
}

std::span<const std::byte> Call::take_bytes(size_t size) {
  auto bytes = body_.first(std::min(size, body_.size()));
  body_ = body_.subspan(bytes.size());
  return bytes;
}

std::span<std::byte> Call::payload(size_t limit) {
  size_t used = sizeof(fuse_out_header) + size_;
  return out_.subspan(used, std::min(limit, out_.size() - used));
}

bool Call::take_header() {
  auto* header = take<fuse_in_header>();
  if (!header) return false;
  in = *header;
  if (in.len < sizeof in || in.len - sizeof in > body_.size()) return false;
  body_ = body_.first(in.len - sizeof in);
  // Extensions (security context, supplementary groups) stand at the end; none is negotiated, so none is
  // expected.
  request.caller = {in.uid, in.gid, static_cast<pid_t>(in.pid), 0};
  request.node = connection.node_in(in.nodeid);
  request.identity = in.unique & ~kFuseUniqueResend;
  return true;
}

// A request that is asked again continues with the record its first run left; any other uses the thread's
// own.
void Call::choose_record(ReplayRecord* own_record) {
  uint32_t instance = connection.instance.id;
  if (in.unique & kFuseUniqueResend) {
    request.replay = dispatcher.replays().find(instance, request.identity);
    request.resent = adopted_record_ = request.replay != nullptr;
    if (request.resent) return;
  }
  request.replay = own_record;
  if (own_record) replay_start(*own_record, instance, request.identity, in.opcode);
}

bool Call::run(ReplayRecord* own_record) {
  if (!take_header()) return false;  // shorter than a header: there is nobody to answer
  int error;
  if (const Opcode* opcode = find_opcode(in.opcode)) {
    if (opcode->replays) choose_record(own_record);
    error = tag_of_control_node(in.nodeid) ? handle_control(*this) : opcode->handle(*this);
  } else {
    error = -ENOSYS;
  }
  if (error == LockTable::kParked) silent_ = true;
  auto& header = *reinterpret_cast<fuse_out_header*>(out_.data());
  if (error < 0) size_ = 0;
  header.len = static_cast<uint32_t>(sizeof header + size_);
  header.error = error < 0 ? error : 0;
  header.unique = in.unique;
  return !silent_;
}

std::span<const std::byte> Call::reply() const {
  return out_.first(sizeof(fuse_out_header) + size_);
}

void Call::finish() {
  if (adopted_record_)
    dispatcher.replays().release(request.replay);
  else if (request.replay)
    request.replay->phase.store(kIdle, std::memory_order_release);
}

void Call::put_timeout(double seconds, uint64_t& whole, uint32_t& nanoseconds) {
  whole = static_cast<uint64_t>(seconds);
  nanoseconds = static_cast<uint32_t>((seconds - static_cast<double>(whole)) * 1e9);
}

void Call::put_entry(uint64_t directory, std::string_view name) {
  auto& out = put<fuse_entry_out>();
  const auto believed = dispatcher.told_entry(connection.instance, directory, name, answer.entry.node,
                                              answer.entry.attr, began_);
  if (believed.name) put_timeout(connection.options.entry_timeout, out.entry_valid, out.entry_valid_nsec);
  if (answer.entry.node == 0) return;  // a negative entry, cached for as long as a positive one
  out.nodeid = connection.node_out(answer.entry.node);
  out.generation = 0;  // ids are never used twice
  if (believed.attributes) put_timeout(connection.options.attr_timeout, out.attr_valid, out.attr_valid_nsec);
  fill_attr(answer.entry.attr, out.attr);
}

double Call::attr_timeout() {
  const bool current = dispatcher.told_attributes(connection.instance, request.node, began_);
  return current ? connection.options.attr_timeout : 0;
}

void Call::tell_size() {
  const Attr& attr = answer.entry.attr;
  if (S_ISREG(attr.stx_mode))
    drop_from_ = dispatcher.told_size(connection.instance, request.node, attr.stx_size);
}

void Call::drop_pages(uint64_t offset) {
  // What a READ has noted before our data were there it has noted before we look here.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (dispatcher.view().held(request.node).pages) drop_from_ = offset;
}

int Call::send() const {
  const auto out = reply();
  if (in_order_) return connection.send_in_order(queue, out.data(), out.size());
  if (drop_from_)
    return connection.send_after_pages(request.node, *drop_from_, queue, out.data(), out.size());
  return connection.send(queue, out.data(), out.size());
}

void Call::put_attr() {
  auto& out = put<fuse_attr_out>();
  put_timeout(attr_timeout(), out.attr_valid, out.attr_valid_nsec);
  fill_attr(answer.entry.attr, out.attr);
}

void Call::put_open(uint32_t flags) {
  auto& out = put<fuse_open_out>();
  out.fh = answer.file;
  out.open_flags = flags;
}

namespace {

bool maps_direct(const Instance& instance) {
  return instance.record &&
         (instance.record->init_flags.load(std::memory_order_relaxed) & kFuseDirectIoAllowMmap);
}

}  // namespace

// The page cache is kept over opens: what changes behind the kernel's back it is told. Not used by who only
// appends: the kernel sends such writes whole (up to kMaxWrite) instead of page by page, so that others' do
// not come in between, and caches nothing where it wrongly believes the end to be. Nor where the libservice
// says so, unless a shared mapping would be refused; such writes come one at a time, as through the cache.
void Call::put_open_file(uint32_t flags) {
  const bool writes_only = (flags & O_ACCMODE) == O_WRONLY;
  const bool past_cache = answer.uncached && (writes_only || maps_direct(connection.instance));
  const bool direct = past_cache || (writes_only && (flags & O_APPEND));
  put_open((answer.stale ? 0 : FOPEN_KEEP_CACHE) | (past_cache ? 0 : FOPEN_PARALLEL_DIRECT_WRITES) |
           (direct ? FOPEN_DIRECT_IO : 0));
}

}  // namespace poly
