// read(2), write(2) and their relatives, and the offsets they move.
#include <sys/uio.h>

#include "test/conformance/suite/suite.hpp"

CASE(io, write_then_read_back) {
  const std::string text = pattern(300000);
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  EQ(OK(write(fd, text.data(), text.size())), 300000);
  EQ(size("f"), 300000);
  CHECK(content(static_cast<int>(fd)) == text);
  CHECK(content("f") == text);
}

CASE(io, odd_sizes_and_offsets) {
  std::string model;
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  unsigned at = 0;
  for (unsigned i = 1; i < 60; ++i) {
    const std::string piece = pattern(i * 611 % 9000 + 1, i);
    at = at * 37 % 50021 + i;
    if (model.size() < at + piece.size()) model.resize(at + piece.size());
    model.replace(at, piece.size(), piece);
    if (pwrite(fd, piece.data(), piece.size(), at) != static_cast<ssize_t>(piece.size())) break;
  }
  CHECK(content("f") == model);
  std::string reread(7001, 'z');
  EQ(OK(pread(fd, reread.data(), reread.size(), 4093)), 7001);
  CHECK(reread == model.substr(4093, 7001));
}

CASE(io, positional_calls_leave_the_offset) {
  OK(make_file("f", "0123456789"));
  const Fd fd = OK(open("f", O_RDWR));
  char buffer[16] = {};
  EQ(OK(pread(fd, buffer, 4, 3)), 4);
  EQ(std::string(buffer, 4), "3456");
  EQ(OK(pwrite(fd, "xx", 2, 5)), 2);
  EQ(lseek(fd, 0, SEEK_CUR), 0);
  EQ(OK(read(fd, buffer, 10)), 10);
  EQ(std::string(buffer, 10), "01234xx789");
  EQ(lseek(fd, 0, SEEK_CUR), 10);
}

CASE(io, end_of_file) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDONLY));
  char buffer[16];
  EQ(OK(read(fd, buffer, 16)), 4);
  EQ(OK(read(fd, buffer, 16)), 0);
  EQ(OK(pread(fd, buffer, 16, 4)), 0);
  EQ(OK(pread(fd, buffer, 16, 4000000)), 0);
  EQ(OK(pread(fd, buffer, 16, 3)), 1);
}

CASE(io, end_of_file_moves_when_the_file_grows) {
  OK(make_file("f", "text"));
  const Fd reader = OK(open("f", O_RDONLY));
  char buffer[16];
  OK(read(reader, buffer, 16));
  EQ(OK(read(reader, buffer, 16)), 0);
  const Fd writer = OK(open("f", O_WRONLY | O_APPEND));
  OK(write(writer, "more", 4));
  EQ(OK(read(reader, buffer, 16)), 4);
  EQ(std::string(buffer, 4), "more");
}

CASE(io, seeking) {
  OK(make_file("f", "0123456789"));
  const Fd fd = OK(open("f", O_RDWR));
  EQ(OK(lseek(fd, 4, SEEK_SET)), 4);
  EQ(OK(lseek(fd, 3, SEEK_CUR)), 7);
  EQ(OK(lseek(fd, -2, SEEK_END)), 8);
  EQ(OK(lseek(fd, 100, SEEK_END)), 110);
  FAILS(EINVAL, lseek(fd, -1, SEEK_SET));
  FAILS(EINVAL, lseek(fd, -200, SEEK_CUR));
  FAILS(EINVAL, lseek(fd, 0, 99));
  EQ(OK(lseek(fd, 0, SEEK_CUR)), 110);
  OK(write(fd, "x", 1));
  EQ(size("f"), 111);
  EQ(content("f").substr(8, 4), std::string("89\0\0", 4));
}

CASE(io, vectors) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  char one[] = "one", two[] = "", three[] = "three";
  const iovec out[] = {{one, 3}, {two, 0}, {three, 5}};
  EQ(OK(writev(fd, out, 3)), 8);
  EQ(content("f"), "onethree");
  char a[4] = {}, b[10] = {};
  const iovec in[] = {{a, 4}, {b, 10}};
  OK(lseek(fd, 0, SEEK_SET));
  EQ(OK(readv(fd, in, 2)), 8);
  EQ(std::string(a, 4) + "|" + std::string(b, 4), "onet|hree");
  EQ(OK(preadv(fd, in, 2, 3)), 5);
  EQ(std::string(a, 4) + "|" + std::string(b, 1), "thre|e");
  EQ(OK(pwritev(fd, out, 3, 2)), 8);
  EQ(content("f"), "ononethree");
  EQ(lseek(fd, 0, SEEK_CUR), 8);
  EQ(OK(writev(fd, out, 0)), 0);
  FAILS(EINVAL, writev(fd, out, hidden(-1)));
  FAILS(EINVAL, readv(fd, in, hidden(1025)));
}

CASE(io, vectors_of_many_pieces) {
  const std::string text = pattern(1024 * 33);
  std::vector<iovec> pieces;
  for (std::size_t i = 0; i < 1024; ++i) pieces.push_back({const_cast<char*>(text.data()) + i * 33, 33});
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  EQ(OK(writev(fd, pieces.data(), 1024)), 1024 * 33);
  CHECK(content("f") == text);
}

CASE(io, preadv2_and_pwritev2) {
  OK(make_file("f", "0123456789"));
  const Fd fd = OK(open("f", O_RDWR));
  char text[] = "xy";
  const iovec piece{text, 2};
  EQ(OK(pwritev2(fd, &piece, 1, -1, 0)), 2);
  EQ(lseek(fd, 0, SEEK_CUR), 2);
  EQ(OK(pwritev2(fd, &piece, 1, 4, RWF_DSYNC)), 2);
  EQ(OK(pwritev2(fd, &piece, 1, 0, RWF_APPEND)), 2);
  EQ(content("f"), "xy23xy6789xy");
  EQ(OK(preadv2(fd, &piece, 1, 6, RWF_HIPRI)), 2);
  EQ(std::string(text), "67");
  FAILS(EOPNOTSUPP, preadv2(fd, &piece, 1, 0, 0x40000000));
  FAILS(EINVAL, preadv2(fd, &piece, 1, -2, 0));
}

CASE(io, zero_bytes) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR));
  char byte;
  EQ(moved({"f"},
           [&] {
             EQ(OK(write(fd, "", 0)), 0);
             EQ(OK(read(fd, &byte, 0)), 0);
             EQ(OK(pwrite(fd, "", 0, 100)), 0);
           }),
     "f:-");
  EQ(size("f"), 4);
}

CASE(io, bad_arguments) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR));
  char byte;
  FAILS(EBADF, read(-1, &byte, 1));
  FAILS(EBADF, write(-1, "x", 1));
  FAILS(EBADF, lseek(-1, 0, SEEK_SET));
  FAILS(EINVAL, pread(fd, &byte, 1, -1));
  FAILS(EINVAL, pwrite(fd, "x", 1, -1));
  char* const nowhere = hidden(reinterpret_cast<char*>(1));
  FAILS(EFAULT, read(fd, nowhere, 1));
  FAILS(EFAULT, write(fd, nowhere, 1));
  EQ(content("f"), "text");
}

CASE(io, dup_shares_the_offset_open_does_not) {
  OK(make_file("f", "0123456789"));
  const Fd a = OK(open("f", O_RDONLY)), c = OK(open("f", O_RDONLY));
  const Fd b = OK(dup(a));
  char byte;
  OK(read(a, &byte, 1));
  OK(read(b, &byte, 1));
  EQ(std::string(1, byte), "1");
  OK(read(c, &byte, 1));
  EQ(std::string(1, byte), "0");
  EQ(lseek(a, 0, SEEK_CUR), 2);
}

CASE(io, fork_shares_the_offset) {
  OK(make_file("f", "0123456789"));
  const Fd fd = OK(open("f", O_RDWR));
  in_child([&] {
    char buffer[4];
    EQ(OK(read(fd, buffer, 4)), 4);
  });
  EQ(lseek(fd, 0, SEEK_CUR), 4);
  OK(write(fd, "x", 1));
  in_child([&] { EQ(lseek(fd, 0, SEEK_CUR), 5); });
}

CASE(io, written_data_is_seen_by_another_process) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  OK(write(fd, "one", 3));
  in_child([] {
    EQ(content("f"), "one");
    OK(make_file("f", "from the child"));
  });
  EQ(content(static_cast<int>(fd)), "from the child");
}

CASE(io, stamps) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR));
  EQ(moved({"f", "."}, [&] { OK(write(fd, "x", 1)); }), "f:mc .:-");
  EQ(moved({"f"}, [&] { OK(pwrite(fd, "x", 1, 100)); }), "f:mc");
  char byte;
  EQ(moved({"f"}, [&] { OK(pread(fd, &byte, 1, 0)); }), "f:-");
}

CASE(io, atime_never_goes_back) {
  OK(make_file("f", "text"));
  const Stamps before = stamps("f");
  tick();
  EQ(content("f"), "text");
  CHECK(stamps("f").atime >= before.atime);
}

CASE(io, copies_of_every_small_size) {
  std::string wrong;
  for (std::size_t length = 0; length < 70; ++length) {
    const std::string text = pattern(length, static_cast<unsigned>(length));
    if (make_file("f", text) != 0 || content("f") != text) wrong += std::to_string(length) + " ";
  }
  EQ(wrong, "");
}

CASE(io, one_large_write) {
  const std::string text = pattern(5 << 20);
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  EQ(OK(write(fd, text.data(), text.size())), 5 << 20);
  std::string back(text.size(), '\0');
  EQ(OK(pread(fd, back.data(), back.size(), 0)), 5 << 20);
  CHECK(back == text);
}

CASE(io, closing) {
  int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  OK(close(fd));
  FAILS(EBADF, close(fd));
  FAILS(EBADF, write(fd, "x", 1));
  FAILS(EBADF, fcntl(fd, F_GETFL));
}
