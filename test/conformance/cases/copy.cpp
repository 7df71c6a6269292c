// copy_file_range(2), sendfile(2), splice(2): data moved without passing through the caller.
#include <sys/sendfile.h>

#include "test/conformance/suite/suite.hpp"

namespace {

struct Pair {
  Fd from;
  Fd to;
};

Pair open_pair(const std::string& text) {
  OK(make_file("a", text));
  return {OK(open("a", O_RDONLY)), OK(open("b", O_CREAT | O_RDWR, 0644))};
}

// These calls may copy less than asked.
template <typename Step>
std::size_t repeat(std::size_t length, Step step) {
  std::size_t done = 0;
  while (done < length) {
    const ssize_t n = step(length - done);
    if (n <= 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

}  // namespace

CASE(copy_file_range, whole_file) {
  const std::string text = pattern(500000);
  const Pair p = open_pair(text);
  EQ(repeat(text.size(),
            [&](std::size_t left) { return copy_file_range(p.from, nullptr, p.to, nullptr, left, 0); }),
     500000u);
  CHECK(content("b") == text);
  EQ(lseek(p.from, 0, SEEK_CUR), 500000);
  EQ(lseek(p.to, 0, SEEK_CUR), 500000);
  EQ(OK(copy_file_range(p.from, nullptr, p.to, nullptr, 10, 0)), 0);
}

CASE(copy_file_range, offsets) {
  const Pair p = open_pair("0123456789");
  off_t in = 3, out = 5;
  EQ(OK(copy_file_range(p.from, &in, p.to, &out, 4, 0)), 4);
  EQ(in, 7);
  EQ(out, 9);
  EQ(content("b"), std::string(5, '\0') + "3456");
  EQ(lseek(p.from, 0, SEEK_CUR), 0);
  EQ(lseek(p.to, 0, SEEK_CUR), 0);
  EQ(OK(copy_file_range(p.from, &in, p.to, &out, 100, 0)), 3);
  EQ(content("b"), std::string(5, '\0') + "3456789");
}

// Neither call is preceded by a stat(2) that would ask for the size. A file that has been mapped has a
// descriptor of the kernel's on every front end.
CASE(copy_file_range, of_what_another_descriptor_has_just_written) {
  const Pair p = open_pair("1");
  const Fd writer = OK(open("a", O_WRONLY));
  OK(munmap(OK(mmap(nullptr, 1, PROT_READ, MAP_SHARED, p.from, 0)), 1));
  EQ(OK(pwrite(writer, "0123456789", 10, 0)), 10);
  EQ(OK(copy_file_range(p.from, nullptr, p.to, nullptr, 100, 0)), 10);
  EQ(OK(pwrite(writer, "abcdefghij", 10, 10)), 10);
  off_t from = 10;
  EQ(OK(sendfile(p.to, p.from, &from, 100)), 10);
  EQ(content("b"), "0123456789abcdefghij");
}

CASE(copy_file_range, within_one_file) {
  OK(make_file("f", "0123456789"));
  const Fd a = OK(open("f", O_RDWR)), b = OK(open("f", O_RDWR));
  off_t in = 0, out = 10;
  EQ(OK(copy_file_range(a, &in, b, &out, 5, 0)), 5);
  EQ(content("f"), "012345678901234");
  in = 0, out = 2;
  FAILS(EINVAL, copy_file_range(a, &in, b, &out, 5, 0));
}

CASE(copy_file_range, errors) {
  const Pair p = open_pair("text");
  const Fd reader = OK(open("b", O_RDONLY)), appender = OK(open("b", O_WRONLY | O_APPEND));
  const Fd dir = OK(open(".", O_RDONLY));
  FAILS(EBADF, copy_file_range(p.from, nullptr, reader, nullptr, 4, 0));
  FAILS(EBADF, copy_file_range(p.from, nullptr, appender, nullptr, 4, 0));
  FAILS(EBADF, copy_file_range(-1, nullptr, p.to, nullptr, 4, 0));
  FAILS(EISDIR, copy_file_range(dir, nullptr, p.to, nullptr, 4, 0));
  FAILS(EINVAL, copy_file_range(p.from, nullptr, p.to, nullptr, 4, 1));
  int ends[2];
  OK(pipe(ends));
  FAILS(EINVAL, copy_file_range(ends[0], nullptr, p.to, nullptr, 4, 0));
  EQ(size("b"), 0);
}

CASE(copy_file_range, appending_comes_and_goes) {
  OK(make_file("a", "text"));
  const Fd from = OK(open("a", O_RDONLY));
  const Fd to = OK(open("b", O_CREAT | O_RDWR | O_APPEND, 0644));
  FAILS(EBADF, copy_file_range(from, nullptr, to, nullptr, 2, 0));
  OK(fcntl(to, F_SETFL, 0));
  EQ(copy_file_range(from, nullptr, to, nullptr, 4, 0), 4);
  EQ(content("b"), "text");
  OK(fcntl(to, F_SETFL, O_APPEND));
  FAILS(EBADF, copy_file_range(from, nullptr, to, nullptr, 2, 0));
}

CASE(copy_file_range, stamps) {
  const Pair p = open_pair("text");
  EQ(moved({"a", "b"}, [&] { OK(copy_file_range(p.from, nullptr, p.to, nullptr, 4, 0)); }), "a:- b:mc");
}

CASE(copy_file_range, sparse_source) {
  const Pair p = open_pair("x");
  OK(truncate("a", 1 << 20));
  EQ(repeat(1 << 20,
            [&](std::size_t left) { return copy_file_range(p.from, nullptr, p.to, nullptr, left, 0); }),
     1u << 20);
  CHECK(content("b") == "x" + std::string((1 << 20) - 1, '\0'));
}

CASE(copy_file_range, overwrites_cached_data) {
  const Pair p = open_pair(pattern(10000));
  OK(make_file("b", std::string(10000, 'z')));
  const Fd reader = OK(open("b", O_RDONLY));
  CHECK(content(static_cast<int>(reader)) == std::string(10000, 'z'));
  off_t in = 100, out = 4000;
  EQ(OK(copy_file_range(p.from, &in, p.to, &out, 3000, 0)), 3000);
  CHECK(content(static_cast<int>(reader)) ==
        std::string(4000, 'z') + pattern(10000).substr(100, 3000) + std::string(3000, 'z'));
}

CASE(sendfile, file_to_file) {
  const std::string text = pattern(300000);
  const Pair p = open_pair(text);
  EQ(repeat(text.size(), [&](std::size_t left) { return sendfile(p.to, p.from, nullptr, left); }), 300000u);
  CHECK(content("b") == text);
}

CASE(sendfile, offset_pointer) {
  const Pair p = open_pair("0123456789");
  off_t at = 4;
  EQ(OK(sendfile(p.to, p.from, &at, 3)), 3);
  EQ(at, 7);
  EQ(lseek(p.from, 0, SEEK_CUR), 0);
  EQ(content("b"), "456");
}

CASE(sendfile, file_to_pipe) {
  const Pair p = open_pair("0123456789");
  int ends[2];
  OK(pipe(ends));
  EQ(OK(sendfile(ends[1], p.from, nullptr, 10)), 10);
  char buffer[16];
  EQ(OK(read(ends[0], buffer, 16)), 10);
  EQ(std::string(buffer, 10), "0123456789");
}

CASE(splice, file_to_pipe_to_file) {
  const std::string text = pattern(200000);
  const Pair p = open_pair(text);
  int ends[2];
  OK(pipe(ends));
  const auto step = [&](std::size_t left) -> ssize_t {
    const ssize_t in = splice(p.from, nullptr, ends[1], nullptr, left, 0);
    return in <= 0 ? in : splice(ends[0], nullptr, p.to, nullptr, static_cast<std::size_t>(in), 0);
  };
  EQ(repeat(text.size(), step), 200000u);
  CHECK(content("b") == text);
}

CASE(splice, offsets_and_errors) {
  const Pair p = open_pair("0123456789");
  int ends[2];
  OK(pipe(ends));
  loff_t at = 3;
  EQ(OK(splice(p.from, &at, ends[1], nullptr, 4, 0)), 4);
  EQ(at, 7);
  at = 2;
  EQ(OK(splice(ends[0], nullptr, p.to, &at, 4, 0)), 4);
  EQ(content("b"), std::string("\0\0", 2) + "3456");
  FAILS(EINVAL, splice(p.from, nullptr, p.to, nullptr, 4, 0));
  FAILS(EBADF, splice(p.from, nullptr, -1, nullptr, 4, 0));
}

CASE(splice, append_target_is_einval) {
  OK(make_file("f"));
  const Fd fd = OK(open("f", O_WRONLY | O_APPEND));
  int ends[2];
  OK(pipe(ends));
  OK(write(ends[1], "x", 1));
  FAILS(EINVAL, splice(ends[0], nullptr, fd, nullptr, 1, 0));
}
