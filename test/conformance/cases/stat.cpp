// stat(2), statx(2), statfs(2).
#include <sys/statfs.h>
#include <sys/statvfs.h>

#include "test/conformance/suite/suite.hpp"

namespace {

std::int64_t nanoseconds(const statx_timestamp& time) {
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

struct statx extended(const char* path, unsigned mask = STATX_BASIC_STATS | STATX_BTIME) {
  struct statx stx {};
  OK(statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, mask, &stx));
  return stx;
}

}  // namespace

CASE(stat, three_calls_agree) {
  for (const Kind kind : all_but({Kind::socket})) {
    NOTE("%s", kind_name(kind));
    OK(make(kind, "x"));
    struct stat a {
    }, b{}, c{};
    OK(lstat("x", &a));
    const Fd fd = OK(open("x", O_PATH | O_NOFOLLOW));
    OK(fstat(fd, &b));
    OK(fstatat(AT_FDCWD, "x", &c, AT_SYMLINK_NOFOLLOW));
    CHECK(a.st_ino == b.st_ino && b.st_ino == c.st_ino);
    CHECK(a.st_dev == b.st_dev && b.st_dev == c.st_dev);
    CHECK(a.st_mode == b.st_mode && b.st_mode == c.st_mode);
    CHECK(a.st_ctim.tv_nsec == b.st_ctim.tv_nsec);
    OK(remove_any("x"));
  }
}

CASE(stat, directory_and_its_dot_agree) {
  OK(mkdir("d", 0755));
  CHECK(same_file("d", "d/."));
  CHECK(same_file(".", "d/.."));
  struct stat here_stat {
  }, in{};
  OK(stat(".", &here_stat));
  OK(stat("d", &in));
  CHECK(here_stat.st_dev == in.st_dev);
  CHECK(here_stat.st_ino != in.st_ino);
}

CASE(stat, block_size_and_blocks) {
  OK(make_file("f", pattern(100000)));
  const Fd fd = OK(open("f", O_RDONLY));
  OK(fsync(fd));
  struct stat st {};
  OK(stat("f", &st));
  CHECK(st.st_blksize >= 512);
  CHECK(st.st_blocks * 512 >= 100000);
  CHECK(st.st_blocks * 512 <= 1000000);
}

CASE(stat, sparse_file_has_few_blocks) {
  OK(make_file("f"));
  OK(truncate("f", 1 << 30));
  struct stat st {};
  OK(stat("f", &st));
  CHECK(st.st_blocks * 512 < 1 << 20);
}

CASE(stat, inode_numbers_differ_and_stay) {
  OK(make_file("a"));
  OK(make_file("b"));
  CHECK(inode("a") != inode("b"));
  const auto before = inode("a");
  OK(rename("a", "c"));
  OK(chmod("c", 0600));
  OK(make_file("c", "text"));
  CHECK(inode("c") == before);
}

CASE(statx, basic_fields_are_those_of_stat) {
  OK(make_file("f", "text", 0640));
  struct stat st {};
  OK(stat("f", &st));
  const struct statx stx = extended("f");
  CHECK((stx.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
  CHECK(stx.stx_ino == st.st_ino && stx.stx_mode == st.st_mode && stx.stx_nlink == st.st_nlink);
  CHECK(stx.stx_uid == st.st_uid && stx.stx_gid == st.st_gid);
  CHECK(stx.stx_size == 4u);
  CHECK(nanoseconds(stx.stx_mtime) == stamps("f").mtime);
  CHECK(nanoseconds(stx.stx_ctime) == stamps("f").ctime);
}

CASE(statx, birth_time) {
  OK(make_file("f", "text"));
  const struct statx before = extended("f");
  if (!(before.stx_mask & STATX_BTIME)) SKIP("no birth time");
  CHECK(nanoseconds(before.stx_btime) <= nanoseconds(before.stx_ctime));
  CHECK(nanoseconds(before.stx_btime) > nanoseconds(before.stx_ctime) - 10000000000);
  tick();
  OK(chmod("f", 0600));
  OK(make_file("f", "longer"));
  OK(rename("f", "g"));
  const timespec old[2] = {{100, 0}, {200, 0}};
  OK(utimensat(AT_FDCWD, "g", old, 0));
  CHECK(nanoseconds(extended("g").stx_btime) == nanoseconds(before.stx_btime));
}

CASE(statx, birth_times_are_ordered) {
  OK(make_file("a"));
  tick();
  OK(mkdir("b", 0755));
  const struct statx a = extended("a"), b = extended("b");
  if (!(a.stx_mask & STATX_BTIME)) SKIP("no birth time");
  CHECK(nanoseconds(b.stx_btime) > nanoseconds(a.stx_btime));
}

CASE(statx, empty_path_and_errors) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDONLY));
  struct statx stx {};
  OK(statx(fd, "", AT_EMPTY_PATH, STATX_SIZE, &stx));
  EQ(stx.stx_size, 4u);
  FAILS(ENOENT, statx(fd, "", 0, STATX_SIZE, &stx));
  FAILS(EBADF, statx(-1, "", AT_EMPTY_PATH, STATX_SIZE, &stx));
  FAILS(EINVAL, statx(AT_FDCWD, "f", 0x100000, STATX_SIZE, &stx));
  FAILS(EINVAL, statx(AT_FDCWD, "f", AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC, STATX_SIZE, &stx));
}

CASE(statx, sync_flags) {
  OK(make_file("f", "text"));
  struct statx stx {};
  OK(statx(AT_FDCWD, "f", AT_STATX_FORCE_SYNC, STATX_SIZE, &stx));
  EQ(stx.stx_size, 4u);
  OK(statx(AT_FDCWD, "f", AT_STATX_DONT_SYNC, STATX_SIZE, &stx));
  EQ(stx.stx_size, 4u);
}

CASE(statfs, makes_sense) {
  struct statfs st {};
  struct statvfs sv {};
  OK(statfs(".", &st));
  OK(statvfs(".", &sv));
  EQ(static_cast<long>(st.f_namelen), 255);
  EQ(sv.f_namemax, 255ul);
  CHECK(st.f_bsize > 0);
  CHECK(st.f_bfree <= st.f_blocks);
  CHECK(st.f_bavail <= st.f_bfree);
  CHECK(st.f_ffree <= st.f_files);
}

CASE(statfs, same_by_descriptor_and_path) {
  OK(make_file("f"));
  const Fd fd = OK(open("f", O_RDONLY));
  struct statfs a {
  }, b{}, c{};
  OK(statfs(".", &a));
  OK(statfs("f", &b));
  OK(fstatfs(fd, &c));
  CHECK(a.f_type == b.f_type && b.f_type == c.f_type);
  CHECK(a.f_blocks == b.f_blocks && b.f_blocks == c.f_blocks);
  CHECK(std::memcmp(&a.f_fsid, &c.f_fsid, sizeof a.f_fsid) == 0);
  FAILS(EBADF, fstatfs(-1, &a));
}

CASE(statfs, room_shrinks_by_what_is_written) {
  struct statfs before {
  }, after{};
  OK(statfs(".", &before));
  if (before.f_blocks == 0) SKIP_OPTIONAL("no limit on this filesystem");
  OK(make_file("f", pattern(8 << 20)));
  const Fd fd = OK(open("f", O_RDONLY));
  OK(fsync(fd));
  OK(statfs(".", &after));
  // Other programs use the same filesystem: a sign, not an exact amount.
  if (after.f_bfree >= before.f_bfree) SKIP_OPTIONAL("somebody else freed room at the same time");
  CHECK(after.f_blocks == before.f_blocks);
}

CASE(stat, pathconf) {
  EQ(OK(pathconf(".", _PC_NAME_MAX)), 255);
  EQ(OK(pathconf(".", _PC_PATH_MAX)), 4096);
  EQ(OK(pathconf(".", _PC_NO_TRUNC)), 1);
  EQ(OK(pathconf(".", _PC_CHOWN_RESTRICTED)), 1);
}
