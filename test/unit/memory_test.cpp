// The private tmpfs of `memory`: its limits are the kernel's, its root is as asked for, and nothing of it is
// mounted.
#include "libservices/memory/memory.hpp"

#include <fstream>

#include "test/unit/fuse_rig.hpp"

using namespace rig;

namespace {

size_t mounts() {
  std::ifstream file("/proc/self/mountinfo");
  size_t n = 0;
  for (std::string line; std::getline(file, line);) n++;
  return n;
}

}  // namespace

TEST(its_root_is_as_asked_for) {
  const size_t before = mounts();
  MemoryOptions options;
  options.mode = 01770;
  options.uid = 12;
  options.gid = 34;
  Fd root;
  REQUIRE(make_memory(options, root) == 0);
  struct stat st {};
  REQUIRE(::fstat(root.get(), &st) == 0);
  CHECK_EQ(st.st_mode, S_IFDIR | 01770);
  CHECK_EQ(st.st_uid, 12);
  CHECK_EQ(st.st_gid, 34);
  CHECK_EQ(mounts(), before);
  CHECK((::fcntl(root.get(), F_GETFD) & FD_CLOEXEC) != 0);
  Fd other;
  REQUIRE(make_memory(options, other) == 0);
  struct stat of_other {};
  REQUIRE(::fstat(other.get(), &of_other) == 0);
  CHECK(st.st_dev != of_other.st_dev);
}

TEST(a_full_one_says_enospc) {
  FuseRig rig(kEverywhere[2], 1 << 20);
  const Answer made = rig.call(rig.create_message("f", O_RDWR));
  const uint64_t node = made.as<fuse_entry_out>().nodeid,
                 fh = made.as<fuse_open_out>(sizeof(fuse_entry_out)).fh;
  const std::string block(65536, 'x');
  uint64_t size = 0;
  int error = 0;
  for (; size < 4 << 20;) {
    const Answer written = rig.call(rig.write_message(node, fh, size, block));
    error = written.error;
    if (error != 0) break;
    size += written.as<fuse_write_out>().size;
  }
  CHECK_EQ(error, -ENOSPC);
  CHECK_EQ(size, 1 << 20);
  struct statvfs st {};
  CHECK_EQ(rig.local.fs->statfs(*rig.local.root, st), 0);
  CHECK_EQ(st.f_bfree, 0);
  CHECK_EQ(st.f_blocks * st.f_frsize, 1 << 20);
  CHECK_EQ(rig.call(Message(FUSE_FALLOCATE, node).with(fuse_fallocate_in{fh, size, 4096, 0, 0})).error,
           -ENOSPC);
  fuse_setattr_in truncate{};
  truncate.valid = FATTR_SIZE;
  CHECK_EQ(rig.call(Message(FUSE_SETATTR, node).with(truncate)).error, 0);
  CHECK_EQ(rig.call(rig.write_message(node, fh, 0, block)).error, 0);  // there is room again
}

TEST(inodes_have_a_limit_of_their_own) {
  MemoryOptions options;
  options.inodes = 20;
  Fd root;
  REQUIRE(make_memory(options, root) == 0);
  std::unique_ptr<Local> fs;
  REQUIRE(Local::create(std::move(root), {}, fs) == 0);
  Entry top, entry;
  REQUIRE(fs->root("", top) == 0);
  int made = 0, err = 0;
  for (; made < 100; made++) {
    err = fs->mkdir({}, *top.node, ("d" + std::to_string(made)).c_str(), 0755, entry);
    if (err != 0) break;
  }
  CHECK_EQ(err, -ENOSPC);
  CHECK(made >= 10 && made < 20);
  Entry victim;
  CHECK_EQ(fs->lookup({}, *top.node, "d0", victim), 0);
  CHECK_EQ(fs->rmdir({}, *top.node, "d0", victim), 0);
  victim.node = nullptr;  // or its inode is still in use
  CHECK_EQ(fs->mkdir({}, *top.node, "again", 0755, entry), 0);
}

TEST(contents_outlive_the_service) {
  FuseRig rig(kEverywhere[2], 1 << 20);
  const Answer made = rig.call(rig.create_message("f", O_RDWR));
  const uint64_t node = made.as<fuse_entry_out>().nodeid,
                 fh = made.as<fuse_open_out>(sizeof(fuse_entry_out)).fh;
  CHECK_EQ(rig.call(rig.write_message(node, fh, 0, "kept")).error, 0);
  for (int life = 0; life < 3; life++) {
    rig.restart();
    CHECK_EQ(rig.call(rig.read_message(FUSE_READ, node, fh, 0, 10)).text(), "kept");
  }
  // Without its name too, for as long as it is open.
  CHECK_EQ(rig.call(Message(FUSE_UNLINK).text("f")).error, 0);
  for (int life = 0; life < 3; life++) {
    rig.restart();
    CHECK_EQ(rig.call(rig.read_message(FUSE_READ, node, fh, 0, 10)).text(), "kept");
  }
  rig.release(node, fh);
  rig.forget(node);
  CHECK_EQ(rig.local.parking.size(), 0);
}

CHECK_MAIN()
