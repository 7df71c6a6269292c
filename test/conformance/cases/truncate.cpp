// truncate(2) and ftruncate(2).
#include <sys/resource.h>

#include "test/conformance/suite/suite.hpp"

CASE(truncate, shrinks_and_grows) {
  const std::string text = pattern(10000);
  OK(make_file("f", text));
  OK(truncate("f", 567));
  EQ(size("f"), 567);
  CHECK(content("f") == text.substr(0, 567));
  OK(truncate("f", 12345));
  CHECK(content("f") == text.substr(0, 567) + std::string(12345 - 567, '\0'));
  OK(truncate("f", 0));
  EQ(content("f"), "");
}

CASE(truncate, tail_of_a_page_is_zeroed) {
  OK(make_file("f", std::string(8192, 'x')));
  for (const off_t cut : {1, 511, 512, 4095, 4096, 4097, 8191}) {
    OK(make_file("f", std::string(8192, 'x')));
    OK(truncate("f", cut));
    OK(truncate("f", 8192));
    const std::string now = content("f");
    NOTE("cut at %lld", static_cast<long long>(cut));
    CHECK(now == std::string(cut, 'x') + std::string(8192 - cut, '\0'));
  }
}

CASE(truncate, by_descriptor) {
  OK(make_file("f", pattern(1000)));
  const Fd fd = OK(open("f", O_RDWR));
  OK(lseek(fd, 500, SEEK_SET));
  OK(ftruncate(fd, 10));
  EQ(lseek(fd, 0, SEEK_CUR), 500);
  OK(write(fd, "x", 1));
  EQ(size("f"), 501);
  CHECK(content("f") == pattern(10) + std::string(490, '\0') + "x");
}

CASE(truncate, stamps) {
  OK(make_file("f", "text"));
  EQ(moved({"f"}, [] { OK(truncate("f", 2)); }), "f:mc");
  EQ(moved({"f"}, [] { OK(truncate("f", 100)); }), "f:mc");
  const Fd fd = OK(open("f", O_RDWR));
  EQ(moved({"f"}, [&] { OK(ftruncate(fd, 7)); }), "f:mc");
  EQ(moved({"f"}, [&] { OK(ftruncate(fd, 7)); }), "f:mc");
}

// Linux marks the times even when the size stays (POSIX asks for it of ftruncate, leaves truncate open).
CASE(truncate, same_size_stamps) {
  OK(make_file("f", "text"));
  const std::string change = moved({"f"}, [] { OK(truncate("f", 4)); });
  CHECK(change == "f:mc" || change == "f:-");
}

CASE(truncate, failure_changes_nothing, .root = true) {
  OK(make_file("f", "text", 0444));
  EQ(moved({"f"}, [] { as(kAlice, [] { FAILS(EACCES, truncate("f", 1)); }); }), "f:-");
  EQ(content("f"), "text");
}

CASE(truncate, other_kinds) {
  OK(mkdir("d", 0755));
  OK(mkfifo("fifo", 0644));
  OK(make(Kind::socket, "socket"));
  FAILS(EISDIR, truncate("d", 0));
  FAILS(EINVAL, truncate("fifo", 0));
  FAILS(EINVAL, truncate("socket", 0));
  OK(make_file("f", "text"));
  OK(symlink("f", "link"));
  OK(truncate("link", 1));
  EQ(content("f"), "t");
}

CASE(truncate, negative_and_enormous_sizes) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR));
  FAILS(EINVAL, truncate("f", -1));
  FAILS(EINVAL, ftruncate(fd, -1));
  FAILS(one_of(EFBIG, EINVAL, 0), ftruncate(fd, 0x7fffffffffffffff));
  OK(ftruncate(fd, 4));
  EQ(content("f"), "text");
}

CASE(truncate, descriptor_must_be_writable) {
  OK(make_file("f", "text"));
  const Fd reader = OK(open("f", O_RDONLY)), path = OK(open("f", O_PATH)), dir = OK(open(".", O_RDONLY));
  FAILS(EINVAL, ftruncate(reader, 0));
  FAILS(EBADF, ftruncate(path, 0));
  FAILS(one_of(EINVAL, EISDIR), ftruncate(dir, 0));
  FAILS(EBADF, ftruncate(-1, 0));
}

CASE(truncate, needs_write_permission, .root = true) {
  OK(make_file("f", "text", 0644));
  as(kAlice, [] { FAILS(EACCES, truncate("f", 0)); });
  OK(chown("f", kAlice.uid, kAlice.gid));
  OK(chmod("f", 0444));
  as(kAlice, [] { FAILS(EACCES, truncate("f", 0)); });
  OK(chmod("f", 0200));
  as(kAlice, [] { OK(truncate("f", 0)); });
}

// The mode is checked when the file is opened, not when it is truncated.
CASE(truncate, open_descriptor_needs_no_permission) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR));
  OK(chmod("f", 0));
  OK(ftruncate(fd, 1));
  EQ(size("f"), 1);
}

CASE(truncate, seen_by_other_descriptors) {
  OK(make_file("f", pattern(5000)));
  const Fd a = OK(open("f", O_RDWR)), b = OK(open("f", O_RDONLY));
  CHECK(content(static_cast<int>(b)) == pattern(5000));
  OK(ftruncate(a, 100));
  CHECK(content(static_cast<int>(b)) == pattern(100));
  OK(ftruncate(a, 200));
  CHECK(content(static_cast<int>(b)) == pattern(100) + std::string(100, '\0'));
  EQ(size(static_cast<int>(b)), 200);
}
