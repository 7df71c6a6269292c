// Every FUSE opcode with valid messages, with messages cut short anywhere, and with hostile contents.
#include "native/fuse/session.hpp"

#include <linux/fs.h>
#include <sys/xattr.h>

#include <functional>
#include <set>
#include <thread>

#include "native/fuse/opcodes.hpp"
#include "test/unit/fuse_rig.hpp"
#include "test/unit/jail.hpp"

using namespace rig;

namespace {

// A service with a few files, and a valid message of every opcode, by name.
struct Stage {
  explicit Stage(Where where = kEverywhere[2]) : rig(where, 64 << 20) {
    rig.local.host_write("file", "some text in a file");
    rig.local.host_write("victim", "");
    REQUIRE(rig.local.mkdir("dir") == 0 && rig.local.mkdir("empty") == 0);
    REQUIRE(::symlink("target", rig.local.host("link").c_str()) == 0);
    REQUIRE(::setxattr(rig.local.host("file").c_str(), "trusted.x", "value", 5, 0) == 0);
    file = rig.lookup("file");
    dir = rig.lookup("dir");
    link = rig.lookup("link");
    fh = rig.open(file);
    const Answer opened = rig.call(Message(FUSE_OPENDIR).with(fuse_open_in{}));
    dir_fh = opened.as<fuse_open_out>().fh;
    REQUIRE(file != 0 && dir != 0 && link != 0 && fh != 0 && dir_fh != 0);
  }

  std::vector<std::pair<std::string, Message>> messages() {
    std::vector<std::pair<std::string, Message>> all;
    const auto add = [&](const char* name, Message message) { all.emplace_back(name, std::move(message)); };
    fuse_init_in init{};
    init.major = FUSE_KERNEL_VERSION;
    init.minor = FUSE_KERNEL_MINOR_VERSION;
    init.max_readahead = 131072;
    init.flags = ~0u;
    init.flags2 = ~0u;
    add("init", Message(FUSE_INIT, 0).with(init));
    add("lookup", Message(FUSE_LOOKUP).text("file"));
    add("lookup of nothing", Message(FUSE_LOOKUP).text("nothing"));
    fuse_getattr_in getattr{};
    add("getattr", Message(FUSE_GETATTR, file).with(getattr));
    getattr.getattr_flags = FUSE_GETATTR_FH;
    getattr.fh = fh;
    add("getattr by file", Message(FUSE_GETATTR, file).with(getattr));
    add("statx", Message(kFuseStatx, file).with(FuseStatxIn{FUSE_GETATTR_FH, 0, fh, 0, STATX_ALL}));
    fuse_setattr_in setattr{};
    setattr.valid = FATTR_MODE | FATTR_MTIME | FATTR_SIZE | FATTR_FH;
    setattr.fh = fh;
    setattr.size = 19;
    setattr.mode = 0600;
    add("setattr", Message(FUSE_SETATTR, file).with(setattr));
    add("readlink", Message(FUSE_READLINK, link));
    add("symlink", Message(FUSE_SYMLINK).text("new-symlink").text("to/somewhere"));
    fuse_mknod_in mknod{};
    mknod.mode = S_IFIFO | 0644;
    add("mknod", Message(FUSE_MKNOD).with(mknod).text("new-fifo"));
    add("mkdir", Message(FUSE_MKDIR).with(fuse_mkdir_in{0755, 0}).text("new-dir"));
    add("unlink", Message(FUSE_UNLINK).text("victim"));
    add("rmdir", Message(FUSE_RMDIR).text("empty"));
    add("rename", Message(FUSE_RENAME).with(fuse_rename_in{dir}).text("new-dir").text("moved"));
    add("rename2",
        Message(FUSE_RENAME2, dir).with(fuse_rename2_in{1, RENAME_NOREPLACE, 0}).text("moved").text("back"));
    add("link", Message(FUSE_LINK).with(fuse_link_in{file}).text("new-link"));
    add("create", rig.create_message("new-file", O_RDWR | O_EXCL));
    add("tmpfile",
        Message(FUSE_TMPFILE).with(fuse_create_in{O_RDWR | O_TMPFILE, S_IFREG | 0600, 0, 0}).text("/"));
    add("open", Message(FUSE_OPEN, file).with(fuse_open_in{O_RDONLY, 0}));
    add("read", rig.read_message(FUSE_READ, file, fh, 5, 4));
    add("write", rig.write_message(file, fh, 0, "SOME"));
    add("statfs", Message(FUSE_STATFS));
    add("fsync", Message(FUSE_FSYNC, file).with(fuse_fsync_in{fh, 1, 0}));
    fuse_flush_in flush{};
    flush.fh = fh;
    flush.lock_owner = 7;
    add("flush", Message(FUSE_FLUSH, file).with(flush));
    fuse_setxattr_in setxattr{};
    setxattr.size = 3;
    add("setxattr", Message(FUSE_SETXATTR, file).with(setxattr).text("trusted.new").data("abc"));
    add("getxattr", Message(FUSE_GETXATTR, file).with(fuse_getxattr_in{100, 0}).text("trusted.x"));
    add("getxattr size", Message(FUSE_GETXATTR, file).with(fuse_getxattr_in{0, 0}).text("trusted.x"));
    add("listxattr", Message(FUSE_LISTXATTR, file).with(fuse_getxattr_in{100, 0}));
    add("removexattr", Message(FUSE_REMOVEXATTR, file).text("trusted.new"));
    add("opendir", Message(FUSE_OPENDIR, dir).with(fuse_open_in{}));
    add("readdir", rig.read_message(FUSE_READDIR, 1, dir_fh, 0, 4096));
    add("readdirplus", rig.read_message(FUSE_READDIRPLUS, 1, dir_fh, 0, 4096));
    add("fsyncdir", Message(FUSE_FSYNCDIR).with(fuse_fsync_in{dir_fh, 0, 0}));
    fuse_lk_in lock{};
    lock.fh = fh;
    lock.owner = 7;
    lock.lk = {0, 9, F_WRLCK, 77};
    add("setlk", Message(FUSE_SETLK, file).with(lock));
    add("setlkw", Message(FUSE_SETLKW, file).with(lock));
    lock.owner = 8;
    add("getlk", Message(FUSE_GETLK, file).with(lock));
    add("interrupt", Message(FUSE_INTERRUPT, 0).with(fuse_interrupt_in{4242}));
    add("fallocate", Message(FUSE_FALLOCATE, file).with(fuse_fallocate_in{fh, 0, 100, 0, 0}));
    add("lseek", Message(FUSE_LSEEK, file).with(fuse_lseek_in{fh, 0, SEEK_HOLE, 0}));
    add("copy_file_range",
        Message(FUSE_COPY_FILE_RANGE, file).with(fuse_copy_file_range_in{fh, 0, file, fh, 50, 4, 0}));
    add("syncfs", Message(FUSE_SYNCFS).with(fuse_syncfs_in{}));
    add("forget", Message(FUSE_FORGET, link).with(fuse_forget_in{0}));
    add("batch_forget", Message(FUSE_BATCH_FORGET, 0)
                            .with(fuse_batch_forget_in{2, 0})
                            .with(fuse_forget_one{link, 0})
                            .with(fuse_forget_one{file, 0}));
    fuse_release_in release{};
    release.fh = fh;
    add("release", Message(FUSE_RELEASE, file).with(release));
    release.fh = dir_fh;
    add("releasedir", Message(FUSE_RELEASEDIR).with(release));
    add("destroy", Message(FUSE_DESTROY, 0));
    return all;
  }

  FuseRig rig;
  uint64_t file, dir, link, fh, dir_fh;
};

const std::set<std::string> kSilent{"forget", "batch_forget", "interrupt"};

// The names in a READDIR or READDIRPLUS reply; -1 lookups: plain.
std::vector<std::string> entries_of(const Answer& answer, bool plus, std::vector<uint64_t>* nodes = nullptr,
                                    uint64_t* last = nullptr) {
  std::vector<std::string> names;
  for (size_t at = 0; at < answer.payload.size();) {
    const size_t skip = plus ? sizeof(fuse_entry_out) : 0;
    const auto entry = answer.as<fuse_dirent>(at + skip);
    const size_t name = at + skip + offsetof(fuse_dirent, name);
    REQUIRE(name + entry.namelen <= answer.payload.size());
    names.emplace_back(reinterpret_cast<const char*>(answer.payload.data()) + name, entry.namelen);
    if (plus && nodes != nullptr) nodes->push_back(answer.as<fuse_entry_out>(at).nodeid);
    if (last != nullptr) *last = entry.off;
    at += FUSE_DIRENT_ALIGN(skip + offsetof(fuse_dirent, name) + entry.namelen);
  }
  return names;
}

}  // namespace

TEST(every_opcode_is_answered) {
  for (const Where& where : kEverywhere) {
    Stage stage(where);
    const std::map<std::string, size_t> sizes{{"init", sizeof(fuse_init_out)},
                                              {"lookup", sizeof(fuse_entry_out)},
                                              {"getattr", sizeof(fuse_attr_out)},
                                              {"getattr by file", sizeof(fuse_attr_out)},
                                              {"statx", sizeof(FuseStatxOut)},
                                              {"setattr", sizeof(fuse_attr_out)},
                                              {"readlink", 6},
                                              {"create", sizeof(fuse_entry_out) + sizeof(fuse_open_out)},
                                              {"write", sizeof(fuse_write_out)},
                                              {"statfs", sizeof(fuse_statfs_out)},
                                              {"read", 4},
                                              {"getxattr", 5},
                                              {"getlk", sizeof(fuse_lk_out)},
                                              {"lseek", sizeof(fuse_lseek_out)},
                                              {"rename", 0},
                                              {"link", sizeof(fuse_entry_out)},
                                              {"mkdir", sizeof(fuse_entry_out)},
                                              {"getxattr size", sizeof(fuse_getxattr_out)},
                                              {"flush", 0},
                                              {"copy_file_range", sizeof(fuse_write_out)},
                                              {"release", 0},
                                              {"lookup of nothing", sizeof(fuse_entry_out)}};
    std::set<uint32_t> seen;
    for (auto& [name, message] : stage.messages()) {
      const Answer answer = stage.rig.call(message);
      if (!CHECK_EQ(answer.error, 0)) std::fprintf(stderr, "  %s\n", name.c_str());
      CHECK_EQ(answer.sent, !kSilent.contains(name));
      if (sizes.contains(name) && !CHECK_EQ(answer.payload.size(), sizes.at(name)))
        std::fprintf(stderr, "  %s\n", name.c_str());
      seen.insert(message.header.opcode);
    }
    for (uint32_t opcode = 0; opcode < 5000; opcode++)
      CHECK_EQ(find_opcode(opcode) != nullptr, seen.contains(opcode));
    CHECK(stage.rig.local.host_exists("back"));
  }
}

TEST(answers_say_what_happened) {
  Stage stage;
  FuseRig& rig = stage.rig;
  const Answer looked = rig.call(Message(FUSE_LOOKUP).text("file"));
  const auto entry = looked.as<fuse_entry_out>();
  CHECK_EQ(entry.nodeid, stage.file);
  CHECK_EQ(entry.generation, 0);
  CHECK_EQ(entry.entry_valid, 1);
  CHECK_EQ(entry.attr.ino, rig.local.host_stat("file").st_ino);
  CHECK_EQ(entry.attr.size, 19);
  CHECK_EQ(entry.attr.mode, S_IFREG | 0644);
  const auto nothing = rig.call(Message(FUSE_LOOKUP).text("nothing")).as<fuse_entry_out>();
  CHECK_EQ(nothing.nodeid, 0);
  CHECK_EQ(nothing.entry_valid, 1);
  CHECK_EQ(rig.call(rig.read_message(FUSE_READ, stage.file, stage.fh, 5, 4)).text(), "text");
  CHECK_EQ(rig.call(rig.read_message(FUSE_READ, stage.file, stage.fh, 5, 1u << 31)).text(), "text in a file");
  CHECK_EQ(rig.call(rig.write_message(stage.file, stage.fh, 19, "!")).as<fuse_write_out>().size, 1);
  CHECK_EQ(rig.call(rig.write_message(stage.file, stage.fh, 3, "!!", O_APPEND)).as<fuse_write_out>().size, 2);
  CHECK_EQ(rig.local.host_text("file"), "some text in a file!!!");
  CHECK_EQ(rig.call(Message(FUSE_READLINK, stage.link)).text(), "target");
  CHECK_EQ(
      rig.call(Message(FUSE_GETXATTR, stage.file).with(fuse_getxattr_in{100, 0}).text("trusted.x")).text(),
      "value");
  CHECK_EQ(rig.call(Message(FUSE_GETXATTR, stage.file).with(fuse_getxattr_in{4, 0}).text("trusted.x")).error,
           -ERANGE);
  CHECK_EQ(rig.call(Message(FUSE_GETXATTR, stage.file).with(fuse_getxattr_in{4, 0}).text("trusted.y")).error,
           -ENODATA);
  const auto init = rig.call(stage.messages()[0].second).as<fuse_init_out>();
  CHECK_EQ(init.major, FUSE_KERNEL_VERSION);
  CHECK_EQ(init.max_write, kMaxWrite);
  CHECK((init.flags & FUSE_WRITEBACK_CACHE) == 0);
  CHECK((init.flags & FUSE_POSIX_ACL) != 0);
}

TEST(initialisation_with_other_kernels) {
  Stage stage;
  fuse_init_in in{};
  in.major = 8;
  Answer answer = stage.rig.call(Message(FUSE_INIT, 0).with(in));
  CHECK_EQ(answer.error, 0);
  CHECK_EQ(answer.as<fuse_init_out>().major, FUSE_KERNEL_VERSION);
  in.major = 7;
  for (const uint32_t minor : {8u, 23u, 32u}) {  // structures that we do not know the layout of
    in.minor = minor;
    CHECK_EQ(stage.rig.call(Message(FUSE_INIT, 0).with(in)).error, -EPROTO);
  }
  in.major = 6;
  CHECK_EQ(stage.rig.call(Message(FUSE_INIT, 0).with(in)).error, -EPROTO);
  in.major = 7;
  in.minor = 99;  // a younger kernel; one that offers nothing
  answer = stage.rig.call(Message(FUSE_INIT, 0).with(in));
  CHECK_EQ(answer.error, 0);
  CHECK_EQ(answer.as<fuse_init_out>().flags, 0);
}

TEST(fractions_of_timeouts) {
  FuseRig rig;
  rig.options.attr_timeout = 0.25;
  rig.options.entry_timeout = 2.5;
  rig.restart();
  rig.local.host_write("f", "");
  const auto entry = rig.call(Message(FUSE_LOOKUP).text("f")).as<fuse_entry_out>();
  CHECK_EQ(entry.entry_valid, 2);
  CHECK_EQ(entry.entry_valid_nsec, 500'000'000);
  CHECK_EQ(entry.attr_valid_nsec, 250'000'000);
  CHECK_EQ(rig.call(Message(FUSE_GETATTR, entry.nodeid).with(fuse_getattr_in{}))
               .as<fuse_attr_out>()
               .attr_valid_nsec,
           250'000'000);
  CHECK_EQ(rig.call(Message(kFuseStatx, entry.nodeid).with(FuseStatxIn{})).as<FuseStatxOut>().attr_valid_nsec,
           250'000'000);
}

// Cut at every byte, once with the length of the header corrected and once not.
TEST(messages_cut_short) {
  Stage stage;
  const std::set<std::string> may_be_short{"init", "readlink", "statfs", "syncfs", "destroy"};
  for (auto& [name, message] : stage.messages()) {
    // Effects of uncut ones are not wanted here: each kind gets a fresh look at the same files.
    Message numbered = message;
    numbered.header.unique = stage.rig.next_unique += 2;
    const std::vector<std::byte> whole = numbered.bytes();
    for (size_t size = 0; size < whole.size(); size++) {
      std::vector<std::byte> cut(whole.begin(), whole.begin() + static_cast<long>(size));
      cut.shrink_to_fit();
      CHECK(!stage.rig.handle(cut).sent);  // claims to be longer than it is
      if (size < sizeof(fuse_in_header)) continue;
      const auto length = static_cast<uint32_t>(size);
      std::memcpy(cut.data(), &length, sizeof length);
      const Answer answer = stage.rig.handle(cut);
      if (may_be_short.contains(name)) continue;
      CHECK_EQ(answer.sent, !kSilent.contains(name));
      if (answer.sent && !CHECK_EQ(answer.error, -EINVAL))
        std::fprintf(stderr, "  %s cut to %zu of %zu\n", name.c_str(), size, whole.size());
    }
    // Longer than the header says: the rest is not looked at.
    std::vector<std::byte> longer = whole;
    longer.insert(longer.end(), 100, std::byte{0xff});
    if (name == "lookup" || name == "getattr") CHECK_EQ(stage.rig.handle(longer).error, 0);
  }
  for (const char* name : {"file", "victim", "empty", "dir"}) CHECK(stage.rig.local.host_exists(name));
  for (const char* name : {"new-dir", "new-link", "new-file", "new-symlink", "new-fifo"})
    CHECK(!stage.rig.local.host_exists(name));
  CHECK_EQ(stage.rig.local.host_text("file"), "some text in a file");
}

TEST(unknown_opcodes) {
  FuseRig rig;
  for (const uint32_t opcode : {0u, 7u, 19u, 40u, 41u, 48u, 49u, 53u, 63u, 64u, 4096u, 0x7fffffffu, ~0u})
    CHECK_EQ(rig.call(Message(opcode)).error, -ENOSYS);
}

TEST(foreign_ids_and_files) {
  Stage stage;
  FuseRig& rig = stage.rig;
  const uint64_t nonsense[]{
      0, 99, stage.file + 1000, stage.file | uint64_t{1} << 62, ~uint64_t{0}, uint64_t{0xffffffff}};
  for (auto& [name, message] : stage.messages()) {
    if (name == "init" || name == "destroy" || kSilent.contains(name)) continue;
    for (const uint64_t id : nonsense) {
      Message other = message;
      other.header.nodeid = id;
      const Answer answer = rig.call(other);
      // What goes by file handle alone needs no node.
      const bool by_file = message.body.size() >= 8 && std::memcmp(message.body.data(), &stage.fh, 8) == 0;
      const bool by_directory =
          message.body.size() >= 8 && std::memcmp(message.body.data(), &stage.dir_fh, 8) == 0;
      if (by_file || by_directory) continue;
      if (!CHECK_EQ(answer.error, -ESTALE))
        std::fprintf(stderr, "  %s on node %llx\n", name.c_str(), static_cast<unsigned long long>(id));
    }
  }
  Stage other;
  for (const uint64_t id : nonsense) {
    CHECK_EQ(other.rig.call(other.rig.read_message(FUSE_READ, other.file, id, 0, 10)).error, -EBADF);
    CHECK_EQ(other.rig.call(other.rig.write_message(other.file, id, 0, "x")).error, -EBADF);
    CHECK_EQ(other.rig.call(other.rig.read_message(FUSE_READDIR, 1, id, 0, 100)).error, -EBADF);
    CHECK_EQ(other.rig.call(Message(FUSE_FSYNC, other.file).with(fuse_fsync_in{id, 0, 0})).error, -EBADF);
    CHECK_EQ(other.rig.call(Message(FUSE_LSEEK, other.file).with(fuse_lseek_in{id, 0, SEEK_DATA, 0})).error,
             -EBADF);
    fuse_release_in release{};
    release.fh = id;
    CHECK_EQ(other.rig.call(Message(FUSE_RELEASE, other.file).with(release)).error, 0);  // nothing to do
    CHECK_EQ(other.rig.call(Message(FUSE_LINK).with(fuse_link_in{id}).text("l")).error, -ESTALE);
    CHECK_EQ(other.rig.call(Message(FUSE_RENAME).with(fuse_rename_in{id}).text("file").text("g")).error,
             -ESTALE);
    other.rig.forget(id, UINT64_MAX);
  }
  CHECK_EQ(other.rig.call(other.rig.read_message(FUSE_READ, other.file, other.dir_fh, 0, 10)).error, -EISDIR);
  CHECK_EQ(other.rig.call(other.rig.read_message(FUSE_READDIR, other.file, other.fh, 0, 100)).error,
           -ENOTDIR);
  CHECK_EQ(other.rig.call(rig.read_message(FUSE_READ, other.file, other.fh, 0, 4)).text(), "some");
}

namespace {

void send_bad_names() {
  REQUIRE(::mkdir("/prize", 0755) == 0 && ::mkdir("/prize/inner", 0755) == 0);
  for (const Where& where : {kEverywhere[0], kEverywhere[1]}) {
    Stage stage(where);
    FuseRig& rig = stage.rig;
    for (const std::string bad : {"", ".", "..", "../file", "dir/x", "/", "/prize", "/prize/new",
                                  "../../prize", "../../prize/inner"}) {
      CHECK_EQ(rig.call(Message(FUSE_LOOKUP).text(bad)).error, -EINVAL);
      CHECK_EQ(rig.call(Message(FUSE_MKDIR).with(fuse_mkdir_in{0755, 0}).text(bad)).error, -EINVAL);
      CHECK_EQ(rig.call(Message(FUSE_MKNOD).with(fuse_mknod_in{S_IFREG | 0644, 0, 0, 0}).text(bad)).error,
               -EINVAL);
      CHECK_EQ(rig.call(Message(FUSE_SYMLINK).text(bad).text("x")).error, -EINVAL);
      CHECK_EQ(rig.call(Message(FUSE_LINK).with(fuse_link_in{stage.file}).text(bad)).error, -EINVAL);
      CHECK_EQ(rig.call(Message(FUSE_UNLINK).text(bad)).error, -EINVAL);
      CHECK_EQ(rig.call(Message(FUSE_RMDIR).text(bad)).error, -EINVAL);
      CHECK_EQ(rig.call(Message(FUSE_RENAME).with(fuse_rename_in{1}).text(bad).text("x")).error, -EINVAL);
      CHECK_EQ(rig.call(Message(FUSE_RENAME).with(fuse_rename_in{1}).text("file").text(bad)).error, -EINVAL);
      CHECK_EQ(rig.call(rig.create_message(bad, O_RDWR)).error, -EINVAL);
      // And the libservice below, for itself.
      Local& fs = *rig.local.fs;
      Node& root = *rig.local.root;
      Entry entry, victim{rig.local.node("victim"), {}};
      Ref<File> file;
      const char* name = bad.c_str();
      CHECK_EQ(fs.lookup({}, root, name, entry), -EINVAL);
      CHECK_EQ(fs.mkdir({}, root, name, 0755, entry), -EINVAL);
      CHECK_EQ(fs.mknod({}, root, name, S_IFREG | 0644, 0, entry), -EINVAL);
      CHECK_EQ(fs.symlink({}, root, name, "x", entry), -EINVAL);
      CHECK_EQ(fs.link({}, *rig.local.node("file"), root, name, entry), -EINVAL);
      CHECK_EQ(fs.unlink({}, root, name, victim), -EINVAL);
      CHECK_EQ(fs.rmdir({}, root, name, victim), -EINVAL);
      CHECK_EQ(fs.rename({}, root, name, root, "x", 0), -EINVAL);
      CHECK_EQ(fs.rename({}, root, "file", root, name, 0), -EINVAL);
      CHECK_EQ(fs.create({}, root, name, O_RDWR, 0644, entry, file), -EINVAL);
    }
    CHECK(std::filesystem::is_directory("/prize/inner") && !std::filesystem::exists("/prize/new"));
    for (const char* odd : {"...", "..a", ".hidden", " ", "\xff\xfe", "new\nline", "-"})
      CHECK_EQ(rig.call(Message(FUSE_MKDIR).with(fuse_mkdir_in{0755, 0}).text(odd)).error, 0);
    CHECK_EQ(rig.call(Message(FUSE_LOOKUP).text(std::string(256, 'x'))).error, -ENAMETOOLONG);
    CHECK_EQ(rig.call(Message(FUSE_MKDIR).with(fuse_mkdir_in{0755, 0}).text(std::string(1024, 'x'))).error,
             -ENAMETOOLONG);
  }
}

}  // namespace

// The kernel checks names before it sends them. If ever one came that is no component, it must not lead
// anywhere.
TEST(names_that_are_no_components) {
  in_jail(send_bad_names);
}

TEST(lengths_that_lie) {
  Stage stage;
  FuseRig& rig = stage.rig;
  for (const uint32_t size : {5u, 4096u, 1u << 20, 1u << 31, ~0u}) {
    Message write = rig.write_message(stage.file, stage.fh, 0, "abcd");
    std::memcpy(write.body.data() + offsetof(fuse_write_in, size), &size, sizeof size);
    CHECK_EQ(rig.call(write).error, -EINVAL);
    fuse_setxattr_in setxattr{};
    setxattr.size = size;
    CHECK_EQ(rig.call(Message(FUSE_SETXATTR, stage.file).with(setxattr).text("trusted.n").data("abcd")).error,
             -EINVAL);
    CHECK(!rig.call(Message(FUSE_BATCH_FORGET, 0).with(fuse_batch_forget_in{size, 0})).sent);
    CHECK(rig.call(rig.read_message(FUSE_READ, stage.file, stage.fh, 0, size)).payload.size() <= 19);
    CHECK(rig.call(Message(FUSE_GETXATTR, stage.file).with(fuse_getxattr_in{size, 0}).text("trusted.x"))
              .payload.size() == 5);
    CHECK_EQ(rig.call(Message(FUSE_LISTXATTR, stage.file).with(fuse_getxattr_in{size, 0})).error,
             size == 5 ? -ERANGE : 0);
  }
  CHECK_EQ(rig.local.host_text("file"), "some text in a file");
  fuse_lk_in lock{};
  lock.owner = 7;
  for (const fuse_file_lock range :
       {fuse_file_lock{5, 4, F_WRLCK, 0}, fuse_file_lock{0, 9, 3, 0}, fuse_file_lock{0, 9, ~0u, 0}}) {
    lock.lk = range;
    CHECK_EQ(rig.call(Message(FUSE_SETLK, stage.file).with(lock)).error, -EINVAL);
  }
  lock.lk = {0, ~uint64_t{0}, F_WRLCK, 0};
  CHECK_EQ(rig.call(Message(FUSE_SETLK, stage.file).with(lock)).error, 0);
  lock.lk = {~uint64_t{0}, ~uint64_t{0}, F_UNLCK, 0};
  CHECK_EQ(rig.call(Message(FUSE_SETLK, stage.file).with(lock)).error, 0);
  CHECK_EQ(
      rig.call(Message(FUSE_FALLOCATE, stage.file).with(fuse_fallocate_in{stage.fh, ~uint64_t{0}, 9, 0, 0}))
          .error,
      -EINVAL);
  CHECK_EQ(
      rig.call(Message(FUSE_FALLOCATE, stage.file).with(fuse_fallocate_in{stage.fh, 0, 1ull << 40, 0, 0}))
          .error,
      -ENOSPC);
  const Answer beyond = rig.call(rig.write_message(stage.file, stage.fh, ~uint64_t{0} - 1, "abcd"));
  CHECK(beyond.error < 0);
}

TEST(directories_in_rooms_of_any_size) {
  for (const bool plus : {false, true}) {
    FuseRig rig;
    std::set<std::string> expected{".", ".."};
    for (int i = 0; i < 40; i++) {
      const std::string name = std::string(static_cast<size_t>(1 + i * 6), 'n') + std::to_string(i);
      rig.local.host_write(name, "");
      expected.insert(name);
    }
    const uint64_t fh = rig.call(Message(FUSE_OPENDIR).with(fuse_open_in{})).as<fuse_open_out>().fh;
    const uint32_t opcode = plus ? FUSE_READDIRPLUS : FUSE_READDIR;
    for (uint32_t size = 0; size < 700; size++) {
      const Answer answer = rig.call(rig.read_message(opcode, 1, fh, 0, size));
      CHECK_EQ(answer.error, 0);
      CHECK(answer.payload.size() <= size);
      std::vector<uint64_t> nodes;
      (void)entries_of(answer, plus, &nodes);
      for (const uint64_t node : nodes) {
        if (node != 0) rig.forget(node);
      }
    }
    CHECK_EQ(rig.nodes(), 1);
    for (const uint32_t size : {450u, 4096u, ~0u}) {
      std::set<std::string> seen;
      std::vector<uint64_t> nodes;
      for (uint64_t cookie = 0;;) {
        const Answer answer = rig.call(rig.read_message(opcode, 1, fh, cookie, size));
        const auto names = entries_of(answer, plus, &nodes, &cookie);
        if (names.empty()) break;
        for (auto& name : names) CHECK(seen.insert(name).second);
      }
      CHECK(seen == expected);
      CHECK_EQ(rig.nodes(), plus ? 41 : 1);
      for (const uint64_t node : nodes) {
        if (node != 0) rig.forget(node);
      }
      CHECK_EQ(rig.nodes(), 1);
    }
    const Answer strange = rig.call(rig.read_message(opcode, 1, fh, ~uint64_t{0}, 4096));
    CHECK(strange.error == 0 || strange.error == -EINVAL);
  }
}

TEST(lookups_and_forgets_balance) {
  Stage stage;
  FuseRig& rig = stage.rig;
  const uint64_t before = rig.nodes();
  for (int i = 0; i < 5; i++) CHECK_EQ(rig.lookup("victim"), rig.lookup("victim"));
  const uint64_t victim = rig.lookup("victim");
  CHECK_EQ(rig.nodes(), before + 1);
  rig.forget(victim, 10);
  CHECK_EQ(rig.nodes(), before + 1);
  rig.call(Message(FUSE_BATCH_FORGET, 0)
               .with(fuse_batch_forget_in{2, 0})
               .with(fuse_forget_one{victim, 1})
               .with(fuse_forget_one{stage.link, 1}));
  CHECK_EQ(rig.nodes(), before - 1);
  CHECK_EQ(rig.call(Message(FUSE_GETATTR, victim).with(fuse_getattr_in{})).error, -ESTALE);
  rig.forget(1, UINT64_MAX);  // the root stays
  CHECK(rig.lookup("victim") != 0);
}

TEST(a_read_only_instance) {
  Stage stage;
  stage.rig.life->instance->read_only = true;
  const std::set<std::string> refused{
      "setattr", "symlink", "mknod",   "mkdir", "unlink",   "rmdir",       "rename",    "rename2",
      "link",    "create",  "tmpfile", "write", "setxattr", "removexattr", "fallocate", "copy_file_range"};
  for (auto& [name, message] : stage.messages()) {
    const Answer answer = stage.rig.call(message);
    if (!CHECK_EQ(answer.error, refused.contains(name) ? -EROFS : 0))
      std::fprintf(stderr, "  %s\n", name.c_str());
  }
  CHECK_EQ(stage.rig.call(Message(FUSE_OPEN, stage.file).with(fuse_open_in{O_RDWR, 0})).error, -EROFS);
  CHECK_EQ(stage.rig.call(Message(FUSE_OPEN, stage.file).with(fuse_open_in{O_RDONLY | O_TRUNC, 0})).error,
           -EROFS);
}

// The kernel asks for ACLs to judge by them; where the backend has none, "not supported" would be its
// verdict.
TEST(a_backend_without_acls_has_none) {
  class Plain final : public ForwardingLibservice {
   public:
    using ForwardingLibservice::ForwardingLibservice;
    ssize_t getxattr(Node&, const char*, std::span<std::byte>) override { return -EOPNOTSUPP; }
  };
  FuseRig rig;
  rig.life->host->libservice = std::make_unique<Plain>(static_cast<Libservice&>(*rig.local.fs));
  auto ask = [&](const char* name) {
    return rig.call(Message(FUSE_GETXATTR).with(fuse_getxattr_in{4096, 0}).text(name)).error;
  };
  CHECK_EQ(ask("system.posix_acl_access"), -ENODATA);
  CHECK_EQ(ask("system.posix_acl_default"), -ENODATA);
  CHECK_EQ(ask("user.x"), -EOPNOTSUPP);
}

TEST(lock_waits_are_parked_and_ended) {
  Stage stage;
  FuseRig& rig = stage.rig;
  fuse_lk_in lock{};
  lock.fh = stage.fh;
  lock.lk = {0, 9, F_WRLCK, 70};
  lock.owner = 1;
  CHECK_EQ(rig.call(Message(FUSE_SETLK, stage.file).with(lock)).error, 0);
  lock.owner = 2;
  CHECK_EQ(rig.call(Message(FUSE_SETLK, stage.file).with(lock)).error, -EAGAIN);
  CHECK(!rig.call(Message(FUSE_SETLKW, stage.file, 1000).with(lock)).sent);
  lock.owner = 3;
  CHECK(!rig.call(Message(FUSE_SETLKW, stage.file, 1002).with(lock)).sent);
  lock.owner = 4;
  // Interrupts that come before their request, and those of resent requests.
  CHECK(!rig.call(Message(FUSE_INTERRUPT, 0, 1005).with(fuse_interrupt_in{1004})).sent);
  CHECK_EQ(rig.call(Message(FUSE_SETLKW, stage.file, 1004).with(lock)).error, -EINTR);
  CHECK(!rig.received().sent);
  CHECK(!rig.call(Message(FUSE_INTERRUPT, 0, 1001).with(fuse_interrupt_in{1000 | kFuseUniqueResend})).sent);
  Answer ended = rig.received();
  CHECK(ended.sent);
  CHECK_EQ(ended.unique, 1000);
  CHECK_EQ(ended.error, -EINTR);
  fuse_flush_in flush{};
  flush.fh = stage.fh;
  flush.lock_owner = 1;
  CHECK_EQ(rig.call(Message(FUSE_FLUSH, stage.file).with(flush)).error, 0);
  ended = rig.received();
  CHECK_EQ(ended.unique, 1002);
  CHECK_EQ(ended.error, 0);
  CHECK(!rig.received().sent);
}

namespace {

// Every file is to be written past the page cache.
struct Uncached final : ForwardingLibservice {
  using ForwardingLibservice::ForwardingLibservice;
  bool uncached(File&) override { return true; }
};

}  // namespace

TEST(uncached_files_are_written_past_the_page_cache) {
  FuseRig rig;
  rig.local.host_write("file", "some text");
  rig.die();
  rig.local.start();
  Uncached uncached(static_cast<Libservice&>(*rig.local.fs));
  rig.wrapper = &uncached;
  rig.start();
  const uint64_t file = rig.lookup("file");
  const auto open = [&](uint32_t flags) {
    return rig.call(Message(FUSE_OPEN, file).with(fuse_open_in{flags, 0})).as<fuse_open_out>();
  };
  CHECK(open(O_WRONLY).open_flags & FOPEN_DIRECT_IO);
  // Where the kernel refused to map it shared then, it stays in the cache.
  CHECK(!(open(O_RDWR).open_flags & FOPEN_DIRECT_IO));
  InstanceRecord record{};
  rig.life->instance->record = &record;
  fuse_init_in init{};
  init.major = FUSE_KERNEL_VERSION;
  init.minor = FUSE_KERNEL_MINOR_VERSION;
  init.flags = init.flags2 = ~0u;
  CHECK_EQ(rig.call(Message(FUSE_INIT, 0).with(init)).error, 0);
  const auto both = open(O_RDWR);
  CHECK(both.open_flags & FOPEN_DIRECT_IO);
  CHECK(!(both.open_flags & FOPEN_PARALLEL_DIRECT_WRITES));

  // What another program has brought into the cache goes before the writer hears that it is written.
  CHECK_EQ(rig.call(rig.read_message(FUSE_READ, file, both.fh, 0, 9)).text(), "some text");
  fuse_write_in in{};
  in.fh = both.fh;
  in.offset = 5;
  in.size = 4;
  in.write_flags = FUSE_WRITE_LOCKOWNER;
  Message write = Message(FUSE_WRITE, file, 4242).with(in).data("TEXT");
  const auto bytes = write.bytes();
  std::vector<std::byte> out(kReplyRoom);
  Call call(*rig.life->connection, *rig.life->dispatcher, 0, 0, bytes, out);
  CHECK(call.run(rig.life->record));
  CHECK_EQ(call.send(), 0);
  call.finish();
  const auto next = [&] {
    for (int i = 0; i < 500; i++) {
      if (const Answer answer = rig.received(); answer.sent) return answer;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return Answer{};
  };
  const Answer first = next();
  CHECK_EQ(first.unique, 0u);
  CHECK_EQ(first.error, FUSE_NOTIFY_INVAL_INODE);
  CHECK_EQ(first.as<fuse_notify_inval_inode_out>().off, 5);
  CHECK_EQ(next().unique, 4242u);
  rig.die();
}

CHECK_MAIN()
