// Fast-path calls: whose handles are whose, what is proven, promotion to the kernel, restarts, exactly-once,
// and fields that lie. That they do what the kernel does is in fast_twin_test.
#include <linux/fs.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <chrono>
#include <set>

#include "test/unit/fast_rig.hpp"
#include "test/unit/jail.hpp"

using namespace rig;

namespace {

constexpr uint64_t kOtherKey = 0xaaaa'bbbb'cccc'dddd;

// A FUSE message about what is in the client's control directory.
struct Control {
  explicit Control(FastRig& rig, uint64_t key) : rig(rig) {
    control_name(rig.life->instance->control, key, name);
  }
  uint64_t node() { return rig.lookup(name); }
  Message create(uint64_t directory, uint32_t handle, uint32_t flags) {
    char text[16];
    std::snprintf(text, sizeof text, "%x", handle);
    return Message(FUSE_CREATE, directory).with(fuse_create_in{flags | O_CREAT, S_IFREG, 0, 0}).text(text);
  }
  FastRig& rig;
  char name[32];
};

void release_fuse(FastRig& rig, const Answer& opened) {
  const auto entry = opened.as<fuse_entry_out>();
  rig.release(entry.nodeid, opened.as<fuse_open_out>(sizeof entry).fh);
  rig.forget(entry.nodeid);
}

}  // namespace

TEST(a_file_from_open_to_close) {
  FastRig rig;
  const uint64_t nodes = rig.nodes();
  const uint32_t file = rig.open("f", O_RDWR | O_CREAT, 0640);
  CHECK_EQ(rig.answer.attr.stx_mode, S_IFREG | 0640);
  CHECK_EQ(rig.open_files(), 1);
  CHECK_EQ(rig.nodes(), nodes + 1);
  CHECK_EQ(rig.write(file, "hello", 3), 0);
  CHECK_EQ(rig.answer.value, 5);
  CHECK_EQ(rig.read(file, 3), "hello");
  CHECK_EQ(rig.write(file, "+end", 0, O_APPEND), 0);
  CHECK_EQ(rig.answer.attr.stx_size, 12);  // where the offset is now
  CHECK_EQ(rig.run(Ask(Op::getattr).of(file)), 0);
  CHECK_EQ(rig.answer.attr.stx_size, 12);
  CHECK_EQ(rig.answer.attr.stx_mnt_id, 0);
  const uint64_t node = rig.answer.node;
  CHECK_EQ(rig.run(Ask(Op::getattr).at("f")), 0);
  CHECK_EQ(rig.answer.node, node);
  CHECK_EQ(rig.run(Ask(Op::unlink).at("f")), 0);
  CHECK_EQ(rig.run(Ask(Op::getattr).at("f")), -ENOENT);
  CHECK_EQ(rig.read(file, 3, 5), "hello");
  rig.release(file);
  CHECK_EQ(rig.open_files(), 0);
  CHECK_EQ(rig.nodes(), nodes);
  CHECK_EQ(rig.client->open_files.load(), 0);
  CHECK_EQ(rig.run(Ask(Op::release).of(file)), kUnknownHandle);
  CHECK_EQ(rig.life->instance->stats.totals(Op::getattr).count, 3);
  CHECK_EQ(rig.life->instance->stats.totals(Op::getattr).errors, 1);
  CHECK_EQ(rig.life->instance->stats.totals(Op::open).count, 1);
}

TEST(handles_are_their_clients) {
  FastRig rig;
  const uint32_t file = rig.open("f", O_RDWR | O_CREAT);
  rig.attach(kOtherKey);
  CHECK_EQ(rig.run(Ask(Op::getattr).of(file)), kUnknownHandle);
  CHECK_EQ(rig.write(file, "x", 0), kUnknownHandle);
  CHECK_EQ(rig.run(Ask(Op::release).of(file)), kUnknownHandle);
  const uint32_t own = rig.open("g", O_RDWR | O_CREAT);
  Ask copy(Op::copy_file_range);
  copy.of(own);
  copy.call.file2 = file;
  copy.call.size = 10;
  CHECK_EQ(rig.run(copy), kUnknownHandle);
  // FUSE's files are nobody's.
  const uint64_t node = rig.lookup("f"), fh = rig.open(node);
  CHECK_EQ(rig.run(Ask(Op::getattr).of(static_cast<uint32_t>(fh))), kUnknownHandle);
  CHECK_EQ(rig.life->dispatcher->clients_with_files().size(), 2);
  CHECK_EQ(rig.life->dispatcher->close_client(kOtherKey), 1);
  CHECK_EQ(rig.open_files(), 2);
  CHECK_EQ(rig.run(Ask(Op::getattr).of(own)), kUnknownHandle);
}

TEST(access_modes_bind) {
  FastRig rig;
  const uint32_t writer = rig.open("f", O_WRONLY | O_CREAT), reader = rig.open("f", O_RDONLY);
  CHECK_EQ(rig.read(writer), "E9");
  CHECK_EQ(rig.write(reader, "x", 0), -EBADF);
  Ask truncate(Op::setattr);
  truncate.of(reader);
  truncate.call.set_mask = kSetSize;
  CHECK_EQ(rig.run(truncate), -EINVAL);
  // A file stays as it was opened.
  CHECK_EQ(::chmod(rig.local.host("f").c_str(), 0), 0);
  rig.become({1001, 2001, {}, false});
  CHECK_EQ(rig.write(writer, "x", 0), 0);
  CHECK_EQ(rig.run(Ask(Op::open).at("f").flags(O_RDONLY)), -EACCES);
}

// In path mode a file is found through its directories, and no kernel knows those that only walks have
// passed.
TEST(open_files_in_directories_of_their_own_survive_restarts) {
  for (const Where& where : kEverywhere) {
    FastRig rig(where);
    const uint64_t nodes = rig.nodes();
    for (const char* path : {"d", "d/e", "d/e/f", "d/g"})
      CHECK_EQ(rig.run(Ask(Op::mkdir).at(path).mode(0755)), 0);
    const uint32_t file = rig.open("d/e/f/file", O_RDWR | O_CREAT),
                   moved = rig.open("d/e/m", O_RDWR | O_CREAT);
    CHECK_EQ(rig.write(file, "text", 0), 0);
    CHECK_EQ(rig.write(moved, "moved", 0), 0);
    for (const auto& [from, to] : {std::pair{"d/e/m", "d/g/m"}, {"d/e", "e"}, {"d/g", "e/f/g"}}) {
      CHECK_EQ(rig.run(Ask(Op::rename).at(from).and_at(to)), 0);
      rig.restart();
      rig.attach();
      CHECK_EQ(rig.read(file, 0, 4), "text");
      CHECK_EQ(rig.read(moved, 0, 5), "moved");
    }
    rig.release(file);
    rig.release(moved);
    CHECK_EQ(rig.nodes(), nodes);  // what they held of their directories is given back
  }
}

// The kernel would read zeros up to the end it believes in.
TEST(what_the_kernel_believes_longer_is_cut_by_the_kernel) {
  FastRig rig;
  const auto cut = [&](Ask ask, uint64_t size) {
    ask.call.set_mask = kSetSize;
    ask.call.set_size = size;
    return rig.run(ask);
  };
  const uint32_t file = rig.open("f", O_RDWR | O_CREAT);
  CHECK_EQ(rig.write(file, std::string(1000, 'x'), 0), 0);
  CHECK_EQ(cut(Ask(Op::setattr).of(file), 600), 0);  // no kernel knows it
  (void)rig.lookup("f");
  CHECK_EQ(cut(Ask(Op::setattr).of(file), 500), kDeclined);
  CHECK_EQ(cut(Ask(Op::setattr).at("f"), 500), kDeclined);
  CHECK_EQ(rig.run(Ask(Op::open).at("f").flags(O_WRONLY | O_TRUNC)), kDeclined);
  CHECK_EQ(rig.local.host_stat("f").st_size, 600);
  CHECK_EQ(cut(Ask(Op::setattr).at("f"), 600), 0);
  CHECK_EQ(cut(Ask(Op::setattr).of(file), 900), 0);
  CHECK_EQ(cut(Ask(Op::setattr).of(file), 700), 0);  // it has not been told of 900
  fuse_setattr_in set{};
  set.valid = FATTR_SIZE;
  CHECK_EQ(rig.call(Message(FUSE_SETATTR, rig.lookup("f")).with(set)).error, 0);
  CHECK_EQ(rig.run(Ask(Op::open).at("f").flags(O_WRONLY | O_TRUNC)), 0);
  // After a restart nobody knows what it believes.
  CHECK_EQ(rig.write(file, "x", 0), 0);
  rig.restart();
  CHECK_EQ(cut(Ask(Op::setattr).of(file), 0), kDeclined);
}

TEST(only_what_is_proven_is_walked) {
  FastRig rig;
  rig.client->set_credentials(0, 0, {}, ::getpid());
  CHECK_EQ(rig.run(Ask(Op::getattr).at("")), kDeclined);
  rig.client->prove(2, {});
  CHECK_EQ(rig.run(Ask(Op::getattr).at("")), kDeclined);
  rig.client->prove(1, {.read_only = true});
  CHECK_EQ(rig.run(Ask(Op::getattr).at("")), 0);
  CHECK_EQ(rig.run(Ask(Op::mkdir).at("d")), kDeclined);  // read-only where the client has it mounted
  CHECK_EQ(rig.run(Ask(Op::open).at("f").flags(O_RDONLY | O_CREAT)), kDeclined);
  rig.client->prove(1, {});
  CHECK_EQ(rig.run(Ask(Op::mkdir).at("d").mode(0755)), 0);
  rig.life->instance->read_only = true;
  CHECK_EQ(rig.run(Ask(Op::rmdir).at("d")), kDeclined);
  CHECK_EQ(rig.run(Ask(Op::getattr).at("d").flags(2)), kDeclined);
  CHECK_EQ(rig.run(Ask(Op::getattr).at("d").flags(4)), 0);
}

// Names that walks have passed are believed where only the dispatcher changes them: by both front ends.
TEST(what_walks_remember_is_forgotten_in_time) {
  FastRig rig;
  rig.life->instance->host->private_backend = true;
  CHECK_EQ(rig.run(Ask(Op::mkdir).at("a").mode(0755)), 0);
  CHECK_EQ(rig.run(Ask(Op::mkdir).at("a/b").mode(0755)), 0);
  const uint32_t file = rig.open("a/b/f", O_WRONLY | O_CREAT);
  CHECK_EQ(rig.run(Ask(Op::getattr).at("a/b/f")), 0);
  const Ask there = Ask(Op::getattr).at("a/b/f");
  CHECK_EQ(rig.run(Ask(Op::rename).at("a").and_at("c")), 0);
  CHECK_EQ(rig.run(there), -ENOENT);
  CHECK_EQ(rig.run(Ask(Op::getattr).at("c/b/f")), 0);
  CHECK_EQ(rig.run(Ask(Op::mkdir).at("a").mode(0755)), 0);
  CHECK_EQ(rig.run(there), -ENOENT);
  CHECK_EQ(rig.run(Ask(Op::rename).at("c/b").and_at("a/b")), 0);
  CHECK_EQ(rig.run(there), 0);
  CHECK_EQ(rig.run(Ask(Op::getattr).at("c/b/f")), -ENOENT);
  // A directory is searched by who may now, not by who might then.
  rig.become({1001, 2001, {}, false});
  CHECK_EQ(rig.run(there), 0);
  CHECK_EQ(::chmod(rig.local.host("a").c_str(), 0700), 0);
  CHECK_EQ(rig.run(there), -EACCES);
  rig.become({0, 0, {}, true});
  CHECK_EQ(rig.run(Ask(Op::unlink).at("a/b/f")), 0);
  CHECK_EQ(rig.run(Ask(Op::rmdir).at("a/b")), 0);
  CHECK_EQ(rig.run(there), -ENOENT);
  CHECK_EQ(rig.run(Ask(Op::symlink).at("c").and_at("a/b")), -EEXIST);
  CHECK_EQ(rig.run(Ask(Op::release).of(file)), 0);
}

// Two directories change places while others walk through them: who has made the change sees it.
TEST(walks_beside_renames) {
  FastRig rig;
  Dispatcher& dispatcher = *rig.life->dispatcher;
  rig.life->instance->host->private_backend = true;
  uint64_t inodes[2];
  for (const char* name : {"x", "y"}) {
    CHECK_EQ(rig.run(Ask(Op::mkdir).at(name).mode(0755)), 0);
    CHECK_EQ(rig.run(Ask(Op::mkdir).at(std::string(name) + "/mark").mode(0755)), 0);
    CHECK_EQ(rig.run(Ask(Op::getattr).at(std::string(name) + "/mark")), 0);
    inodes[*name - 'x'] = rig.answer.attr.stx_ino;
  }
  auto run = [&](const Ask& ask, WireAnswer& answer, ReplayRecord*& record, uint32_t buffer,
                 uint32_t& sequence) {
    std::vector<std::byte> none;
    return run_call(dispatcher, *rig.client, buffer, ++sequence, ask.call, ask.path, ask.path2, none, answer,
                    0, record);
  };
  std::atomic<bool> over{false};
  auto walks = [&](uint32_t buffer) {
    WireAnswer answer{};
    ReplayRecord* record = nullptr;
    uint32_t sequence = 0;
    while (!over.load()) CHECK_EQ(run(Ask(Op::getattr).at("x/mark"), answer, record, buffer, sequence), 0);
  };
  std::thread first(walks, 1), second(walks, 2);
  WireAnswer answer{};
  ReplayRecord* record = nullptr;
  uint32_t sequence = 0;
  for (int i = 1; i <= 20000; i++) {
    REQUIRE(run(Ask(Op::rename).at("x").and_at("y").flags(RENAME_EXCHANGE), answer, record, 0, sequence) ==
            0);
    REQUIRE(run(Ask(Op::getattr).at("x/mark"), answer, record, 0, sequence) == 0);
    REQUIRE(answer.attr.stx_ino == inodes[i % 2]);
  }
  over = true;
  first.join();
  second.join();
}

TEST(directory_handles_are_places) {
  FastRig rig;
  CHECK_EQ(rig.run(Ask(Op::mkdir).at("d").mode(0711)), 0);
  rig.become({1001, 2001, {}, false});
  CHECK_EQ(rig.run(Ask(Op::opendir).at("d")), 0);  // searching is enough
  const uint32_t place = rig.answer.file;
  Ask look(Op::getattr);
  look.call.directory = place;
  CHECK_EQ(rig.run(look), 0);
  CHECK_EQ(rig.run(look.at("..")), kDeclined);
  CHECK_EQ(rig.run(look.at("x")), -ENOENT);
  rig.become({0, 0, {}, true});
  CHECK_EQ(rig.run(Ask(Op::rename).at("d").and_at("e")), 0);
  Ask make(Op::mkdir);
  make.call.directory = place;
  CHECK_EQ(rig.run(make.at("x").mode(0755)), 0);
  CHECK(rig.local.host_exists("e/x"));
  CHECK_EQ(rig.read(place), "E9");
  CHECK_EQ(rig.run(Ask(Op::rmdir).at("e/x")), 0);
  CHECK_EQ(rig.run(Ask(Op::rmdir).at("e")), 0);
  CHECK_EQ(rig.run(make), -ENOENT);
  CHECK_EQ(rig.run(Ask(Op::opendir).at("nowhere")), -ENOENT);
  look.call.directory = rig.open("f", O_RDWR | O_CREAT);
  CHECK_EQ(rig.run(look), kUnknownHandle);
  CHECK_EQ(rig.run(Ask(Op::releasedir).of(place)), 0);
}

TEST(open_files_outlive_the_service) {
  FastRig rig;
  const uint32_t file = rig.open("f", O_RDWR | O_CREAT), gone = rig.open("g", O_RDWR | O_CREAT);
  CHECK_EQ(rig.run(Ask(Op::opendir).at("")), 0);
  const uint32_t place = rig.answer.file;
  CHECK_EQ(rig.write(file, "kept", 0), 0);
  CHECK_EQ(rig.write(gone, "kept too", 0), 0);
  CHECK_EQ(rig.run(Ask(Op::unlink).at("g")), 0);
  const uint64_t nodes = rig.nodes();
  rig.restart();
  rig.attach(kOtherKey);
  CHECK_EQ(rig.read(file), "E4097");
  rig.attach();
  CHECK_EQ(rig.client->open_files.load(), 3);
  CHECK_EQ(rig.nodes(), nodes);
  CHECK_EQ(rig.read(file), "kept");
  CHECK_EQ(rig.read(gone), "kept too");
  Ask look(Op::getattr);
  look.call.directory = place;
  CHECK_EQ(rig.run(look.at("f")), 0);
  rig.release(file);
  rig.release(gone);
  rig.release(place);
  CHECK_EQ(rig.open_files(), 0);
  CHECK_EQ(rig.nodes(), 1);
}

// ---- Promotion ----

TEST(a_promoted_file_is_the_kernels) {
  FastRig rig;
  Control control(rig, rig.client->key);
  const uint32_t file = rig.open("f", O_RDWR | O_CREAT);
  CHECK_EQ(rig.write(file, "fast", 0), 0);
  const uint64_t directory = control.node();
  REQUIRE(directory != 0 && directory != FUSE_ROOT_ID);
  char hex[16];
  std::snprintf(hex, sizeof hex, "%x", file);
  CHECK_EQ(rig.call(Message(FUSE_LOOKUP, directory).text(hex)).error, -ENOENT);
  const Answer opened = rig.call(control.create(directory, file, O_RDWR));
  REQUIRE(opened.error == 0);
  const auto entry = opened.as<fuse_entry_out>();
  CHECK_EQ(entry.entry_valid, 0);
  CHECK_EQ(entry.attr.size, 4);
  CHECK_EQ(rig.lookup("f"), entry.nodeid);
  rig.forget(entry.nodeid);
  const uint64_t fh = opened.as<fuse_open_out>(sizeof entry).fh;
  CHECK_EQ(static_cast<uint32_t>(fh), file);
  CHECK_EQ(rig.call(rig.read_message(FUSE_READ, entry.nodeid, fh, 0, 100)).text(), "fast");
  // No longer the client's, in no way.
  CHECK_EQ(rig.read(file), "E4097");
  CHECK_EQ(rig.run(Ask(Op::release).of(file)), kUnknownHandle);
  CHECK_EQ(rig.call(control.create(directory, file, O_RDWR)).error, -ENOENT);
  CHECK_EQ(rig.life->dispatcher->close_client(rig.client->key), 0);
  CHECK_EQ(rig.open_files(), 1);
  release_fuse(rig, opened);
  CHECK_EQ(rig.open_files(), 0);
  CHECK_EQ(rig.nodes(), 1);
}

// The first FLUSH of a promoted file is of the descriptor that promotion spares, also when a death makes the
// kernel ask for it again: the locks that the process has through another descriptor stay.
TEST(the_spare_descriptor_takes_no_locks_along) {
  FastRig rig;
  Control control(rig, rig.client->key);
  const uint32_t file = rig.open("f", O_RDWR | O_CREAT);
  const uint64_t node = rig.lookup("f"), other = rig.FuseRig::open(node);
  fuse_lk_in lock{};
  lock.fh = other;
  lock.owner = 1;
  lock.lk = {0, 9, F_WRLCK, 70};
  CHECK_EQ(rig.call(Message(FUSE_SETLK, node).with(lock)).error, 0);
  const Answer opened = rig.call(control.create(control.node(), file, O_RDWR));
  REQUIRE(opened.error == 0);
  fuse_flush_in flush{};
  flush.fh = opened.as<fuse_open_out>(sizeof(fuse_entry_out)).fh;
  flush.lock_owner = 1;
  Message message = Message(FUSE_FLUSH, node).with(flush);
  message.header.unique = 5000;
  CHECK_EQ(rig.call(message, false).error, 0);
  rig.restart();
  rig.attach();
  CHECK_EQ(rig.resend(message).error, 0);
  lock.owner = 2;
  CHECK_EQ(rig.call(Message(FUSE_SETLK, node).with(lock)).error, -EAGAIN);
  message.header.unique = 5002;  // close(2)
  CHECK_EQ(rig.call(message).error, 0);
  CHECK_EQ(rig.call(Message(FUSE_SETLK, node).with(lock)).error, 0);
  release_fuse(rig, opened);
  rig.FuseRig::release(node, other);
  rig.forget(node);
}

TEST(nobody_promotes_what_is_not_his) {
  FastRig rig;
  const uint32_t file = rig.open("f", O_RDONLY | O_CREAT);
  Control own(rig, rig.client->key), other(rig, kOtherKey);
  const uint64_t directory = own.node();
  CHECK_EQ(rig.call(other.create(other.node(), file, O_RDONLY)).error, -ENOENT);
  CHECK_EQ(rig.call(own.create(directory, file, O_RDWR)).error, -EACCES);
  CHECK_EQ(rig.call(own.create(directory, file, O_WRONLY)).error, -EACCES);
  CHECK_EQ(rig.call(own.create(directory, file + 1, O_RDONLY)).error, -ENOENT);
  CHECK_EQ(rig.call(own.create(directory, 0, O_RDONLY)).error, -ENOENT);
  CHECK_EQ(rig.call(own.create(directory, UINT32_MAX, O_RDONLY)).error, -ENOENT);
  for (const char* name : {"x", "1x", "-1", "", "100000002"})
    CHECK(rig.call(Message(FUSE_CREATE, directory).with(fuse_create_in{O_CREAT, S_IFREG, 0, 0}).text(name))
              .error < 0);
  // Names that nobody was given.
  std::string name = own.name;
  for (size_t i = 0; i < name.size(); i++) {
    std::string wrong = name;
    wrong[i] = wrong[i] == '0' ? '1' : '0';
    CHECK_EQ(rig.lookup(wrong), 0);
  }
  CHECK_EQ(rig.lookup(name + "0"), 0);
  rig.life->instance->control = {};
  CHECK_EQ(rig.lookup(name), 0);
  CHECK_EQ(rig.read(file), "");  // still the client's
}

TEST(nothing_else_is_in_the_control_directory) {
  FastRig rig;
  Control control(rig, rig.client->key);
  const uint64_t directory = control.node();
  const auto attr = rig.call(Message(FUSE_GETATTR, directory).with(fuse_getattr_in{})).as<fuse_attr_out>();
  CHECK_EQ(attr.attr.mode, S_IFDIR | 0777);
  CHECK(attr.attr_valid > 1000000);
  CHECK_EQ(rig.call(Message(FUSE_OPENDIR, directory).with(fuse_open_in{})).error, -EPERM);
  CHECK_EQ(rig.call(Message(FUSE_MKDIR, directory).with(fuse_mkdir_in{0755, 0}).text("x")).error, -EPERM);
  CHECK_EQ(rig.call(Message(FUSE_UNLINK, directory).text("x")).error, -EPERM);
  CHECK_EQ(rig.call(Message(FUSE_SETATTR, directory).with(fuse_setattr_in{})).error, -EPERM);
  CHECK_EQ(
      rig.call(
             Message(FUSE_GETXATTR, directory).with(fuse_getxattr_in{100, 0}).text("system.posix_acl_access"))
          .error,
      -ENODATA);
  CHECK_EQ(rig.call(Message(FUSE_STATFS, directory)).error, 0);
  rig.forget(directory);
  CHECK_EQ(rig.call(Message(FUSE_GETATTR, directory).with(fuse_getattr_in{})).error, 0);
  // The fast path knows nothing of it.
  CHECK_EQ(rig.run(Ask(Op::getattr).at(control.name)), -ENOENT);
}

TEST(a_read_only_mount_looks_its_files_up) {
  FastRig rig;
  rig.local.host_write("f", "text");
  const uint32_t file = rig.open("f", O_RDONLY);
  rig.life->instance->read_only = true;
  Control control(rig, rig.client->key);
  char hex[16];
  std::snprintf(hex, sizeof hex, "%x", file);
  const Answer found = rig.call(Message(FUSE_LOOKUP, control.node()).text(hex));
  REQUIRE(found.error == 0);
  const uint64_t node = found.as<fuse_entry_out>().nodeid, fh = rig.open(node, O_RDONLY);
  CHECK_EQ(rig.call(rig.read_message(FUSE_READ, node, fh, 0, 100)).text(), "text");
  CHECK_EQ(rig.read(file), "text");  // the client's until it lets go
  rig.release(file);
  rig.release(node, fh);
  rig.forget(node);
  CHECK_EQ(rig.nodes(), 1);
}

// The service may die anywhere in it: asked again, it is promoted once.
TEST(promotion_once) {
  for (int n = 0;; n++) {
    FastRig rig;
    const uint32_t file = rig.open("f", O_RDWR | O_CREAT);
    Control control(rig, rig.client->key);
    Message message = control.create(control.node(), file, O_RDWR);
    message.header.unique = 5000;
    const pid_t pid = ::fork();
    if (pid == 0) {
      struct Mortal final : ForwardingLibservice {
        Mortal(Libservice& next, int lives) : ForwardingLibservice(next), lives(lives) {}
        void before() override { occasion(); }
        void after() override { occasion(); }
        void occasion() {
          if (lives-- == 0) ::_exit(1);
        }
        int lives;
      } mortal(*rig.local.fs, n);
      rig.life->host->libservice = std::make_unique<ForwardingLibservice>(static_cast<Libservice&>(mortal));
      const auto bytes = message.bytes();
      std::vector<std::byte> out(kReplyRoom);
      Call call(*rig.life->connection, *rig.life->dispatcher, 0, 0, bytes, out);
      (void)call.run(rig.life->record);
      ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    rig.restart();
    rig.attach();
    const Answer opened = rig.resend(message);
    if (CHECK_EQ(opened.error, 0)) release_fuse(rig, opened);
    CHECK_EQ(rig.open_files(), 0);
    CHECK_EQ(rig.nodes(), 1);
    if (WEXITSTATUS(status) == 0) break;
  }
}

// ---- Exactly once ----

namespace {

struct Scene {
  const char* name;
  Ask ask;
  int32_t result;
  std::function<void(FastRig&)> prepare, check;
};

class Mortal final : public ForwardingLibservice {
 public:
  Mortal(Libservice& next, int lives) : ForwardingLibservice(next), lives_(lives) {}
  void before() override { occasion(); }
  void after() override { occasion(); }

 private:
  void occasion() {
    if (lives_-- == 0) ::_exit(1);
  }
  int lives_;
};

// The service dies at occasion `n` of the call, or after it, and the call is posted again. False: there was
// no such occasion.
bool die_at(const Scene& scene, int n) {
  FastRig rig;
  scene.prepare(rig);
  const uint64_t files = rig.open_files(), nodes = rig.nodes();
  const pid_t pid = ::fork();
  if (pid == 0) {
    Mortal mortal(*rig.local.fs, n);
    rig.life->host->libservice = std::make_unique<ForwardingLibservice>(static_cast<Libservice&>(mortal));
    std::vector<std::byte> data(kDataSize);
    std::memcpy(data.data(), "appended", 8);
    WireAnswer answer{};
    (void)run_call(*rig.life->dispatcher, *rig.client, 0, 77, scene.ask.call, scene.ask.path, scene.ask.path2,
                   data, answer, 0, rig.life->record);
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid && WIFEXITED(status));
  rig.restart();
  rig.attach();
  Ask again = scene.ask;
  again.call.resent = 1;
  std::memcpy(rig.data.data(), "appended", 8);
  if (!CHECK_EQ(rig.run(again, 77), scene.result)) std::fprintf(stderr, "  %s at %d\n", scene.name, n);
  scene.check(rig);
  const auto op = static_cast<Op>(again.call.op);
  const bool opens = scene.result == 0 && (op == Op::open || op == Op::opendir);
  CHECK_EQ(rig.open_files(), files + opens);
  if (opens) rig.release(rig.answer.file);
  CHECK(rig.nodes() <= nodes + 1);  // a death may leave one lookup of a node
  return WEXITSTATUS(status) != 0;
}

}  // namespace

TEST(calls_run_once) {
  auto nothing = [](FastRig&) {};
  auto make = [](const char* name) { return [name](FastRig& rig) { rig.local.host_write(name, "text"); }; };
  auto exists = [](const char* name, bool expected) {
    return [name, expected](FastRig& rig) { CHECK_EQ(rig.local.host_exists(name), expected); };
  };
  Ask append(Op::write);
  append.call.walk |= kWalkHandle;
  append.call.flags = O_APPEND;
  append.call.size = 8;
  append.call.file = 2;
  Ask xattr(Op::setxattr);
  xattr.at("f").and_at("user.x").flags(XATTR_CREATE);
  xattr.call.size = 4;
  const Scene scenes[]{
      {"mkdir", Ask(Op::mkdir).at("d").mode(0755), 0, nothing, exists("d", true)},
      {"mkdir of what is there", Ask(Op::mkdir).at("f"), -EEXIST, make("f"), exists("f", true)},
      {"symlink", Ask(Op::symlink).at("l").and_at("t"), 0, nothing, exists("l", true)},
      {"unlink", Ask(Op::unlink).at("f"), 0, make("f"), exists("f", false)},
      {"unlink of nothing", Ask(Op::unlink).at("f"), -ENOENT, nothing, nothing},
      {"rename", Ask(Op::rename).at("f").and_at("g"), 0, make("f"), exists("g", true)},
      {"link", Ask(Op::link).at("f").and_at("g"), 0, make("f"), exists("g", true)},
      {"create", Ask(Op::open).at("f").flags(O_RDWR | O_CREAT | O_EXCL).mode(0644), 0, nothing,
       exists("f", true)},
      {"create or open", Ask(Op::open).at("f").flags(O_RDWR | O_CREAT).mode(0644), 0, nothing,
       exists("f", true)},
      {"open", Ask(Op::open).at("f").flags(O_RDWR), 0, make("f"), exists("f", true)},
      {"open exclusively what is there", Ask(Op::open).at("f").flags(O_RDWR | O_CREAT | O_EXCL), -EEXIST,
       make("f"), nothing},
      {"opendir", Ask(Op::opendir).at(""), 0, nothing, nothing},
      {"append", append, 0,
       [](FastRig& rig) {
         rig.local.host_write("f", "text");
         CHECK_EQ(rig.open("f", O_RDWR), 2);
       },
       [](FastRig& rig) { CHECK_EQ(rig.local.host_text("f"), "textappended"); }},
      {"setxattr", xattr, 0, make("f"), nothing},
  };
  for (Scene scene : scenes) {
    // An exclusive open that finds its own file, or another's: only the latter fails.
    for (int n = 0; die_at(scene, n); n++) REQUIRE(n < 100);
  }
}

namespace {

// The call's first run, by a service that dies before the answer is seen.
void run_and_die(FastRig& rig, const Ask& ask) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    std::vector<std::byte> data(kDataSize);
    WireAnswer answer{};
    ::_exit(run_call(*rig.life->dispatcher, *rig.client, 0, 77, ask.call, ask.path, ask.path2, data, answer,
                     0, rig.life->record) == 0
                ? 0
                : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  CHECK_EQ(status, 0);
  rig.restart();
  rig.attach();
}

int32_t run_again(FastRig& rig, Ask ask) {
  ask.call.resent = 1;
  return rig.run(ask, 77);
}

}  // namespace

// What another thread has opened meanwhile under the same handle stays open.
TEST(a_file_is_closed_once) {
  FastRig rig;
  const uint32_t file = rig.open("f", O_RDWR | O_CREAT);
  const Ask close = Ask(Op::release).of(file);
  run_and_die(rig, close);
  const uint32_t other = rig.open("g", O_RDWR | O_CREAT);
  CHECK_EQ(other, file);
  CHECK_EQ(run_again(rig, close), 0);
  CHECK_EQ(rig.read(other), "");
  CHECK_EQ(rig.open_files(), 1);
  // Not begun before the death.
  rig.restart();
  rig.attach();
  CHECK_EQ(run_again(rig, close), 0);
  CHECK_EQ(rig.open_files(), 0);
  CHECK_EQ(rig.nodes(), 1);
}

// A kernel that may believe in the name, and in the other name's link count, is told before the answer.
TEST(a_removal_before_a_death_is_told) {
  FastRig rig;
  rig.local.host_write("f", "text");
  CHECK_EQ(rig.run(Ask(Op::link).at("f").and_at("g")), 0);
  const uint64_t node = rig.lookup("f");
  const Ask unlink = Ask(Op::unlink).at("f");
  run_and_die(rig, unlink);
  CHECK_EQ(run_again(rig, unlink), 0);
  bool name = false, attributes = false;
  for (Answer told = rig.received(); told.sent; told = rig.received()) {
    name |= told.error == FUSE_NOTIFY_INVAL_ENTRY;
    attributes |= told.error == FUSE_NOTIFY_INVAL_INODE && told.as<fuse_notify_inval_inode_out>().ino == node;
  }
  CHECK(name);
  CHECK(attributes);
}

// ---- Lies ----

namespace {

struct Liar {
  uint64_t number() {
    constexpr uint64_t kLikely[]{
        0, 1, 2, 3, 4, 7, 64, 4096, 1u << 20, (1u << 20) + 1, UINT32_MAX, INT64_MAX, UINT64_MAX};
    return below(4) == 0 ? check::random()() : kLikely[below(std::size(kLikely))];
  }
  uint32_t word() { return static_cast<uint32_t>(number()); }
  std::string path() {
    constexpr const char* kParts[]{
        "a", "b", "c", "..", ".", "/", "//", "", "user.x", "system.posix_acl_access", "trusted.t", "."};
    std::string text;
    for (auto n = below(5); n-- > 0;) {
      text += below(30) == 0 ? std::string(below(5000), 'n') : kParts[below(std::size(kParts))];
      if (below(2)) text += '/';
    }
    if (below(10) == 0) text += static_cast<char>(1 + below(255));
    return text;
  }
  Ask ask() {
    Ask ask(Op::lookup);
    WireCall& call = ask.call;
    call.op = static_cast<uint16_t>(below(10) == 0 ? number() : below(kOpCount));
    call.walk = static_cast<uint16_t>(below(3) == 0 ? number() : below(32));
    if (below(3)) call.walk &= static_cast<uint16_t>(~kWalkHandle);
    call.instance = below(10) == 0 ? word() : 1;
    call.directory = below(4) == 0 ? word() : 0;
    call.directory2 = below(4) == 0 ? word() : 0;
    call.file = below(4) == 0 ? word() : static_cast<uint32_t>(2 + below(8));
    call.file2 = below(4) == 0 ? word() : static_cast<uint32_t>(2 + below(8));
    call.flags = below(2) ? word() : static_cast<uint32_t>(below(2) ? O_CREAT | O_RDWR : 0);
    call.mode = below(2) ? word() : S_IFREG | 0644;
    call.umask = word();
    call.resent = below(4) == 0;
    call.device = number();
    call.offset = below(2) ? number() : below(5000);
    call.offset2 = below(2) ? number() : below(5000);
    call.size = below(2) ? number() : below(5000);
    call.set_mask = below(2) ? word() : 1u << below(10);
    call.set_mode = word();
    call.set_uid = word();
    call.set_gid = word();
    call.set_size = below(2) ? number() : below(10000);
    call.atime_sec = static_cast<int64_t>(number());
    call.mtime_nsec = word();
    ask.at(path()).and_at(path());
    return ask;
  }
};

void lies() {
  FastRig rig(kEverywhere[2], 16 << 20);  // a small tmpfs of its own, as files may be given any size
  Liar liar;
  std::array<uint64_t, kOpCount> fine{};
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(4);
  rig.thread([&] {
    for (int i = 0; std::chrono::steady_clock::now() < end; i++) {
      if (i % 16 == 0) rig.become(random_credentials());
      const Ask ask = liar.ask();
      const int32_t result = rig.run_here(ask, 1 + static_cast<uint32_t>(below(8)));
      CHECK(result <= 0 && (result > -200 || result == kDeclined || result == kUnknownHandle));
      if (result == 0) fine[ask.call.op]++;
    }
  });
  for (size_t op = 0; op < kOpCount; op++) {
    if (fine[op])
      std::printf("%s %llu, ", std::string(kOpNames[op]).c_str(), static_cast<unsigned long long>(fine[op]));
  }
  std::printf("were fine\n");
  // It works as before.
  rig.become({0, 0, {}, true});
  const uint32_t file = rig.open("after", O_RDWR | O_CREAT);
  CHECK_EQ(rig.write(file, "x", 0), 0);
  rig.life->dispatcher->close_client(rig.client->key);
  CHECK_EQ(rig.open_files(), 0);
  CHECK_EQ(rig.nodes(), 1);
}

}  // namespace

TEST(lies) {
  in_jail(lies);
}

// Calls of one client from many threads, which close under each other's hands.
TEST(threads_of_one_client) {
  FastRig rig;
  std::vector<std::thread> threads;
  std::atomic<uint32_t> shared[4]{};
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([&, t] {
      prepare_thread_identity();
      std::mt19937_64 random(check::seed() + static_cast<uint64_t>(t));
      std::vector<std::byte> data(4096);
      ReplayRecord* record = rig.life->dispatcher->replays().reserve();
      uint32_t sequence = 0;
      auto run = [&](const Ask& ask, WireAnswer& answer) {
        return run_call(*rig.life->dispatcher, *rig.client, static_cast<uint32_t>(t), ++sequence, ask.call,
                        ask.path, ask.path2, data, answer, static_cast<size_t>(t), record);
      };
      for (int i = 0; i < 2000; i++) {
        WireAnswer answer{};
        auto& slot = shared[random() % 4];
        const std::string name = std::string("f") + static_cast<char>('0' + random() % 3);
        switch (random() % 8) {
          case 0:
            if (run(Ask(Op::open).at(name).flags(O_RDWR | O_CREAT).mode(0644), answer) == 0) {
              if (uint32_t old = slot.exchange(answer.file)) (void)run(Ask(Op::release).of(old), answer);
            }
            break;
          case 1:
            if (uint32_t old = slot.exchange(0)) (void)run(Ask(Op::release).of(old), answer);
            break;
          case 2:
            (void)run(Ask(Op::unlink).at(name), answer);
            break;
          case 3:
            (void)run(Ask(Op::rename).at(name).and_at("d/" + name), answer);
            break;
          case 4:
            (void)run(Ask(random() % 2 ? Op::mkdir : Op::rmdir).at("d").mode(0755), answer);
            break;
          case 5:
            (void)run(Ask(Op::getattr).at("d/../" + name), answer);
            break;
          case 6:
            if (i % 50 == 0) rig.become({0, 0, {}, true});
            break;
          default: {
            Ask ask(random() % 2 ? Op::read : Op::write);
            ask.of(slot.load()).flags(O_APPEND);
            ask.call.size = 10;
            (void)run(ask, answer);
          }
        }
      }
      if (record) rig.life->dispatcher->replays().release(record);
    });
  }
  for (auto& thread : threads) thread.join();
  rig.life->dispatcher->close_client(rig.client->key);
  CHECK_EQ(rig.open_files(), 0);
  CHECK_EQ(rig.nodes(), 1);
}

CHECK_MAIN()
