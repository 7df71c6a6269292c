// utimensat(2), futimens(3): setting times, and who may.
#include <sys/time.h>

#include "test/conformance/suite/suite.hpp"

namespace {

int set_times(const char* path, timespec access, timespec change, int flags = 0) {
  const timespec times[2] = {access, change};
  return utimensat(AT_FDCWD, path, times, flags);
}

// Nanoseconds of the times as set; ext4 keeps all nine digits.
std::string times_of(const std::string& path) {
  const Stamps now = stamps(path);
  return text_of(now.atime) + " " + text_of(now.mtime);
}

constexpr timespec kNow{0, UTIME_NOW};
constexpr timespec kOmit{0, UTIME_OMIT};

}  // namespace

CASE(utimensat, every_kind) {
  for (const Kind kind : all_kinds()) {
    NOTE("%s", kind_name(kind));
    OK(make(kind, "x"));
    OK(set_times("x", {1960000000, 123456789}, {1950000000, 987654321}, AT_SYMLINK_NOFOLLOW));
    EQ(times_of("x"), "1960000000.123456789 1950000000.987654321");
    OK(remove_any("x"));
  }
}

CASE(utimensat, single_nanoseconds) {
  OK(make_file("f"));
  for (const long ns : {0L, 1L, 999L, 1000L, 999999999L}) {
    OK(set_times("f", {5, ns}, {6, ns}));
    EQ(times_of("f"), text_of(5000000000 + ns) + " " + text_of(6000000000 + ns));
  }
}

CASE(utimensat, before_1970_and_after_2038) {
  OK(make_file("f"));
  OK(set_times("f", {-1, 0}, {-100000, 5}));
  EQ(times_of("f"), "-1.000000000 -100000.000000005");
  OK(set_times("f", {0x80000000LL, 1}, {0x100000000LL, 2}));
  EQ(times_of("f"), "2147483648.000000001 4294967296.000000002");
  OK(set_times("f", {0, 0}, {0x7fffffffLL, 0}));
  EQ(times_of("f"), "0.000000000 2147483647.000000000");
}

CASE(utimensat, atime_before_and_after_mtime) {
  OK(make_file("f"));
  OK(set_times("f", {100, 0}, {200, 0}));
  EQ(times_of("f"), "100.000000000 200.000000000");
  OK(set_times("f", {200, 0}, {100, 0}));
  EQ(times_of("f"), "200.000000000 100.000000000");
}

CASE(utimensat, now) {
  OK(make_file("f"));
  OK(set_times("f", {100, 0}, {200, 0}));
  timespec before{}, after{};
  OK(clock_gettime(CLOCK_REALTIME, &before));
  OK(set_times("f", kNow, kNow));
  OK(clock_gettime(CLOCK_REALTIME, &after));
  const Stamps now = stamps("f");
  // The coarse clock may be a tick behind.
  CHECK(now.mtime >= before.tv_sec * 1000000000LL + before.tv_nsec - 20000000);
  CHECK(now.mtime <= after.tv_sec * 1000000000LL + after.tv_nsec);
  CHECK(now.atime == now.mtime);
}

CASE(utimensat, null_is_now) {
  OK(make_file("f"));
  OK(set_times("f", {100, 0}, {200, 0}));
  EQ(moved({"f"}, [] { OK(utimensat(AT_FDCWD, "f", nullptr, 0)); }), "f:mc");
  CHECK(stamps("f").atime > 200000000000);
}

CASE(utimensat, omit) {
  OK(make_file("f"));
  OK(set_times("f", {100, 1}, {200, 2}));
  OK(set_times("f", kOmit, {300, 3}));
  EQ(times_of("f"), "100.000000001 300.000000003");
  OK(set_times("f", {400, 4}, kOmit));
  EQ(times_of("f"), "400.000000004 300.000000003");
  EQ(moved({"f"}, [] { OK(set_times("f", kOmit, kOmit)); }), "f:-");
  EQ(times_of("f"), "400.000000004 300.000000003");
}

CASE(utimensat, now_and_omit_mixed) {
  OK(make_file("f"));
  OK(set_times("f", {100, 1}, {200, 2}));
  OK(set_times("f", kNow, kOmit));
  EQ(text_of(stamps("f").mtime), "200.000000002");
  CHECK(stamps("f").atime > 200000000000);
  OK(set_times("f", kOmit, kNow));
  CHECK(stamps("f").mtime > 200000000000);
}

CASE(utimensat, moves_ctime) {
  OK(make_file("f"));
  OK(set_times("f", {100, 0}, {200, 0}));
  EQ(moved({"f", "."}, [] { OK(set_times("f", {300, 0}, {200, 0})); }), "f:c .:-");
}

CASE(utimensat, symlinks) {
  OK(make_file("f"));
  OK(symlink("f", "link"));
  OK(set_times("link", {100, 0}, {200, 0}));
  EQ(times_of("f"), "100.000000000 200.000000000");
  OK(set_times("link", {300, 0}, {400, 0}, AT_SYMLINK_NOFOLLOW));
  EQ(text_of(stamps("link").mtime), "400.000000000");
  EQ(times_of("f"), "100.000000000 200.000000000");
}

CASE(utimensat, by_descriptor) {
  OK(make_file("f"));
  const Fd fd = OK(open("f", O_RDONLY)), dir = OK(open(".", O_PATH));
  const timespec times[2] = {{100, 1}, {200, 2}};
  OK(futimens(fd, times));
  EQ(times_of("f"), "100.000000001 200.000000002");
  const timespec later[2] = {{300, 3}, {400, 4}};
  OK(utimensat(dir, "f", later, 0));
  EQ(times_of("f"), "300.000000003 400.000000004");
  FAILS(EBADF, futimens(-1, times));
  FAILS(EBADF, utimensat(-1, "f", times, 0));
}

CASE(utimensat, microsecond_relatives) {
  OK(make_file("f"));
  const timeval times[2] = {{100, 5}, {200, 7}};
  OK(utimes("f", times));
  EQ(times_of("f"), "100.000005000 200.000007000");
}

CASE(utimensat, bad_arguments) {
  OK(make_file("f"));
  FAILS(EINVAL, set_times("f", {0, -5}, {0, 0}));
  FAILS(EINVAL, set_times("f", {0, 0}, {0, 1000000000}));
  FAILS(EINVAL, set_times("f", {0, 0}, {0, 0}, 0x8000));
}

CASE(utimensat, later_write_moves_mtime_again) {
  OK(make_file("f"));
  OK(set_times("f", {100, 0}, {4000000000, 0}));
  const Fd fd = OK(open("f", O_WRONLY));
  OK(write(fd, "x", 1));
  CHECK(stamps("f").mtime < 4000000000 * 1000000000LL);
  CHECK(stamps("f").mtime > 1000000000LL * 1000000000LL);
}

CASE(utimensat, set_while_open_survives_close) {
  const Fd keep = OK(open(".", O_RDONLY));
  {
    const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
    OK(write(fd, "text", 4));
    const timespec times[2] = {{100, 1}, {200, 2}};
    OK(futimens(fd, times));
  }
  EQ(text_of(stamps("f").mtime), "200.000000002");
}

CASE(utimensat, now_needs_write_permission_or_ownership, .root = true) {
  OK(make_file("f", "", 0644));
  as(kAlice, [] { FAILS(EACCES, set_times("f", kNow, kNow)); });
  as(kAlice, [] { FAILS(EACCES, utimensat(AT_FDCWD, "f", nullptr, 0)); });
  OK(chmod("f", 0666));
  as(kAlice, [] { OK(set_times("f", kNow, kNow)); });
  OK(chmod("f", 0444));
  OK(chown("f", kAlice.uid, kAlice.gid));
  as(kAlice, [] { OK(utimensat(AT_FDCWD, "f", nullptr, 0)); });
}

CASE(utimensat, explicit_times_need_ownership, .root = true) {
  OK(make_file("f", "", 0666));
  as(kAlice, [] {
    FAILS(EPERM, set_times("f", {1, 0}, {2, 0}));
    FAILS(EPERM, set_times("f", kNow, kOmit));
    FAILS(EPERM, set_times("f", kOmit, kNow));
    OK(set_times("f", kOmit, kOmit));
  });
  OK(chown("f", kAlice.uid, kAlice.gid));
  OK(chmod("f", 0));
  as(kAlice, [] { OK(set_times("f", {1, 0}, {2, 0})); });
  EQ(times_of("f"), "1.000000000 2.000000000");
}
