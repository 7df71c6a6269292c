// Handlers of operations on open files and directories.
#include <fcntl.h>

#include <algorithm>

#include "native/core/dispatcher.hpp"

namespace poly {

// As the kernel does for a write, truncate or chown by a process without CAP_FSETID; most files have nothing
// to clear.
int Dispatcher::strip_set_ids(Instance& instance, const Request& request, Node& node, File* file) {
  Attr attr;
  if (int err = instance.libservice().getattr(node, file, attr)) return err;
  if ((attr.stx_mode & (S_ISUID | S_ISGID)) == 0) return 0;
  std::lock_guard guard(node.change_lock);
  SetAttr set;
  set.mask = kSetKillPriv;
  return instance.libservice().setattr(request.caller, node, file, set, attr);
}

int Dispatcher::open_node(Instance& instance, Request& request, Reply& reply, int flags, bool directory) {
  if (instance.read_only.load(std::memory_order_relaxed) &&
      ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC)))
    return -EROFS;
  Ref<Node> n;
  if (int err = first_node(instance, request, n)) return err;
  undo_unanswered(instance, request);
  // Truncated before a death already: others may have written since.
  bool again = request.resent && request.replay->phase.load(std::memory_order_acquire) == kDone;
  Ref<File> opened;
  if (flags & O_TRUNC) n->changed_by_us.store(true);
  if (int err = instance.libservice().open(request.caller, *n, flags, again, opened)) return err;
  if ((flags & O_TRUNC) && request.replay) request.replay->phase.store(kDone, std::memory_order_release);
  if (request.kill_priv && (flags & O_TRUNC)) {
    if (int err = strip_set_ids(instance, request, *n, opened.get())) return err;
  }
  if (flags & O_TRUNC) changed(instance, *n, 0, 0);
  if (!directory && !instance.private_backend()) {
    Attr attr;
    if (int err = instance.libservice().getattr(*n, opened.get(), attr)) return err;
    reply.stale = observe(instance, *n, attr);
  }
  reply.uncached = !directory && instance.libservice().uncached(*opened);
  uint64_t id = request.node;
  if (request.client) {
    if (int err = hold(instance, request, *n, id)) return err;
  }
  int err = register_file(instance, request, id, static_cast<uint32_t>(flags), directory, std::move(opened),
                          reply.file);
  if (err && request.client) nodes_.forget(instance.id, id, 1);
  return err;
}

int Dispatcher::op_open(Instance& instance, Request& request, Reply& reply) {
  return open_node(instance, request, reply, static_cast<int>(request.flags) & ~(O_CREAT | O_EXCL), false);
}

// A client's directory handle stands for a place to begin walks at: nothing is opened in the libservice
// before it is read. Flags with O_PATH: it is not to be read.
int Dispatcher::open_place(Instance& instance, Request& request, Reply& reply) {
  Ref<Node> n;
  if (int err = first_node(instance, request, n)) return err;
  undo_unanswered(instance, request);
  uint64_t id;
  if (int err = hold(instance, request, *n, id)) return err;
  int err = register_file(instance, request, id, request.flags, true, nullptr, reply.file);
  if (err) nodes_.forget(instance.id, id, 1);
  return err;
}

int Dispatcher::op_opendir(Instance& instance, Request& request, Reply& reply) {
  if (request.client) return open_place(instance, request, reply);
  return open_node(instance, request, reply, O_RDONLY | O_DIRECTORY, true);
}

int Dispatcher::op_release(Instance& instance, Request& request, Reply&) {
  if (Ref<Node> n = nodes_.get(request.node, instance.id)) {
    if (request.lock_owner.id) give_up_locks(instance, *n, request.file, request.lock_owner);
    locks_.release_file(*n, request.file);
  }
  unregister_file(instance.id, request.file);
  return 0;
}

int Dispatcher::op_releasedir(Instance& instance, Request& request, Reply&) {
  unregister_file(instance.id, request.file);
  return 0;
}

bool Dispatcher::appended_since(Instance& instance, const Request& request, uint64_t began) {
  if (request.fast) return false;
  const Ref<Node> n = nodes_.get(request.node, instance.id);
  return n && n->uncached_change.load() >= began;
}

namespace {

// In chunks while somebody copies them out on another CPU, where a backend minds that little.
ssize_t read(Libservice& libservice, File& file, uint64_t offset, const Reply& reply) {
  const std::span<std::byte> out = reply.buffer;
  if (!reply.teller || !libservice.reads_in_chunks()) return libservice.read(file, offset, out);
  const size_t full = copy_chunk(out.size());
  size_t done = 0;
  while (done < out.size()) {
    const size_t chunk = std::min(full, out.size() - done);
    const ssize_t n = libservice.read(file, offset + done, out.subspan(done, chunk));
    if (n < 0) return done ? static_cast<ssize_t>(done) : n;
    done += static_cast<size_t>(n);
    if (static_cast<size_t>(n) < chunk) break;
    reply.teller.tell(done);
  }
  return static_cast<ssize_t>(done);
}

}  // namespace

int Dispatcher::op_read(Instance& instance, Request& request, Reply& reply) {
  Ref<File> f;
  if (int err = file(instance, request.file, f)) return err;
  const uint64_t began = coarse_ns();
  ssize_t n = read(instance.libservice(), *f, request.offset, reply);
  // It came to an end that an append may have moved meanwhile: the kernel, which knows of the append already,
  // would take what is missing for zeros.
  if (n >= 0 && static_cast<size_t>(n) < reply.buffer.size() && appended_since(instance, request, began))
    n = instance.libservice().read(*f, request.offset, reply.buffer);
  if (n < 0) return static_cast<int>(n);
  reply.size = static_cast<size_t>(n);
  if (n > 0) drop_unless_kept(instance, request, *f, request.offset, static_cast<uint64_t>(n));
  return 0;
}

// What the kernel is about to have in its cache goes again, behind the reply: until that is there the pages
// are locked, and the notification waits for them.
void Dispatcher::drop_unless_kept(Instance& instance, const Request& request, File& file, uint64_t offset,
                                  uint64_t length) {
  if (request.fast || request.past_cache || !instance.invalidator || instance.libservice().may_keep(file))
    return;
  instance.invalidator->invalidate_node(request.node, static_cast<int64_t>(offset),
                                        static_cast<int64_t>(length), nullptr);
}

int Dispatcher::write_at(Instance& instance, Request& request, Node& node, File& file, uint64_t offset,
                         uint64_t& written) {
  node.changed_by_us.store(true);  // before and after: others may look in between
  note_write(instance, request.file);
  ssize_t n = instance.libservice().write(file, offset, request.data);
  if (n < 0) return static_cast<int>(n);
  written = static_cast<uint64_t>(n);
  return request.kill_priv ? strip_set_ids(instance, request, node, &file) : 0;
}

// Appends go to the end of file as it is here, decided under a lock. A repeated one goes where the first one
// went.
int Dispatcher::append(Instance& instance, Request& request, Node& node, File& file, Reply& reply) {
  std::lock_guard guard(append_locks_[(reinterpret_cast<uintptr_t>(&node) >> 6) % append_locks_.size()]);
  ReplayRecord* replay = request.replay;
  uint64_t end;
  if (request.resent && replay && replay->phase.load(std::memory_order_acquire) == kChecked) {
    end = replay->offset;
  } else {
    Attr attr;
    if (int err = instance.libservice().getattr(node, &file, attr)) return err;
    end = attr.stx_size;
    if (replay) {
      replay->offset = end;
      replay->phase.store(kChecked, std::memory_order_release);
    }
  }
  int err = write_at(instance, request, node, file, end, reply.value);
  reply.end = end + reply.value;
  return err;
}

int Dispatcher::op_write(Instance& instance, Request& request, Reply& reply) {
  Ref<File> f;
  if (int err = file(instance, request.file, f)) return err;
  Ref<Node> n;
  if (int err = first_node(instance, request, n)) return err;
  int err;
  if (request.flags & O_APPEND) {
    err = append(instance, request, *n, *f, reply);
  } else {
    err = write_at(instance, request, *n, *f, request.offset, reply.value);
    reply.end = request.offset + reply.value;
  }
  if (err && reply.value == 0) return err;
  // Not under the append lock: a kernel that is told may be waiting for the answer to an append of its own.
  const uint64_t begin = reply.end - reply.value;
  changed(instance, *n, static_cast<int64_t>(begin), static_cast<int64_t>(reply.value));
  if (reply.value) drop_unless_kept(instance, request, *f, begin, reply.value);
  // The kernel that asked has cached the data where it believed the end to be.
  if (begin != request.offset && !request.fast && instance.invalidator)
    instance.invalidator->invalidate_node(request.node, static_cast<int64_t>(std::min(begin, request.offset)),
                                          0, nullptr);
  return err;
}

int Dispatcher::op_flush(Instance& instance, Request& request, Reply&) {
  if (!closes_spare_descriptor(request.file, request.identity)) {
    if (Ref<Node> n = nodes_.get(request.node, instance.id))
      give_up_locks(instance, *n, request.file, request.lock_owner);
  }
  Ref<File> f;
  if (int err = file(instance, request.file, f)) return err;
  return sync(
      instance, request.file, [](Libservice& l, File& file) { return l.flush(file); }, *f);
}

int Dispatcher::op_fsync(Instance& instance, Request& request, Reply&) {
  Ref<File> f;
  if (int err = file(instance, request.file, f)) return err;
  if (request.flags & 1)
    return sync(
        instance, request.file, [](Libservice& l, File& file) { return l.fsync(file, true); }, *f);
  return sync(
      instance, request.file, [](Libservice& l, File& file) { return l.fsync(file, false); }, *f);
}

int Dispatcher::op_fsyncdir(Instance& instance, Request& request, Reply& reply) {
  return op_fsync(instance, request, reply);
}

int Dispatcher::op_fallocate(Instance& instance, Request& request, Reply&) {
  Ref<File> f;
  if (int err = file(instance, request.file, f)) return err;
  note_write(instance, request.file);
  if (int err = instance.libservice().fallocate(*f, request.flags, request.offset, request.size)) return err;
  Ref<Node> n;
  if (first_node(instance, request, n) != 0) return 0;
  changed(instance, *n, static_cast<int64_t>(request.offset), static_cast<int64_t>(request.size));
  return request.kill_priv ? strip_set_ids(instance, request, *n, f.get()) : 0;
}

int Dispatcher::op_lseek(Instance& instance, Request& request, Reply& reply) {
  Ref<File> f;
  if (int err = file(instance, request.file, f)) return err;
  int64_t found =
      instance.libservice().lseek(*f, static_cast<int64_t>(request.offset), static_cast<int>(request.flags));
  if (found < 0) return static_cast<int>(found);
  reply.value = static_cast<uint64_t>(found);
  return 0;
}

int Dispatcher::op_copy_file_range(Instance& instance, Request& request, Reply& reply) {
  Ref<File> in, out;
  if (int err = file(instance, request.file, in)) return err;
  if (int err = file(instance, request.file2, out)) return err;
  ssize_t n = instance.libservice().copy_range(*in, request.offset, *out, request.offset2, request.size);
  if (n < 0) return static_cast<int>(n);
  reply.value = static_cast<uint64_t>(n);
  Ref<Node> to;
  if (second_node(instance, request, to) != 0) return 0;
  changed(instance, *to, static_cast<int64_t>(request.offset2), n);
  return request.kill_priv ? strip_set_ids(instance, request, *to, out.get()) : 0;
}

namespace {

class PlainSink final : public DirSink {
 public:
  explicit PlainSink(EntrySink& out) : out_(out) {}
  bool add(const DirEntry& entry) override {
    if (!out_.fits(entry.name.size())) return false;
    out_.add(entry, nullptr);
    return true;
  }

 private:
  EntrySink& out_;
};

// Looks every entry up and counts the lookup, as FUSE_READDIRPLUS means it. "." and ".." stay plain.
template <typename Lookup>
class PlusSink final : public DirSink {
 public:
  PlusSink(EntrySink& out, Lookup lookup) : out_(out), lookup_(lookup) {}
  bool add(const DirEntry& entry) override {
    if (!out_.fits(entry.name.size())) return false;
    EntryReply found;
    bool dots = entry.name == "." || entry.name == "..";
    out_.add(entry, !dots && lookup_(entry.name.data(), found) ? &found : nullptr);
    return true;
  }

 private:
  EntrySink& out_;
  Lookup lookup_;
};

}  // namespace

int Dispatcher::op_readdir(Instance& instance, Request& request, Reply& reply) {
  Ref<File> f;
  if (int err = file(instance, request.file, f)) return err;
  PlainSink sink(*reply.sink);
  return instance.libservice().readdir(*f, request.offset, sink);
}

int Dispatcher::op_readdirplus(Instance& instance, Request& request, Reply& reply) {
  Ref<File> f;
  if (int err = file(instance, request.file, f)) return err;
  Ref<Node> dir;
  if (int err = node(instance, request.node, dir)) return err;
  PlusSink sink(*reply.sink, [&](const char* name, EntryReply& out) {
    Entry entry;
    if (instance.libservice().lookup(request.caller, *dir, name, entry) != 0) return false;
    out.attr = entry.attr;
    return nodes_.remember(instance.libservice(), instance.id, *entry.node, out.node) == 0;
  });
  return instance.libservice().readdir(*f, request.offset, sink);
}

}  // namespace poly
