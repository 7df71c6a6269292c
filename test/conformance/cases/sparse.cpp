// Holes: reading them, finding them with lseek, making them with fallocate. Block counts are the filesystem's
// own business; what SEEK_DATA and SEEK_HOLE may answer is checked against the file's content.
#include "test/conformance/suite/suite.hpp"

namespace {

constexpr off_t kMega = 1 << 20;

bool all_zero(const std::string& text) {
  return text.find_first_not_of('\0') == std::string::npos;
}

int allocate(int fd, int mode, off_t offset, off_t length) {
  const int result = fallocate(fd, mode, offset, length);
  if (result != 0 && errno == EOPNOTSUPP) SKIP_OPTIONAL("no such fallocate mode");
  return result;
}

}  // namespace

CASE(sparse, hole_reads_as_zeros) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  OK(pwrite(fd, "end", 3, 3 * kMega));
  EQ(size("f"), 3 * kMega + 3);
  std::string hole(kMega, 'x');
  EQ(OK(pread(fd, hole.data(), hole.size(), kMega)), kMega);
  CHECK(all_zero(hole));
}

CASE(sparse, filling_a_hole) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  OK(ftruncate(fd, 100000));
  OK(pwrite(fd, "middle", 6, 50000));
  const std::string text = content("f");
  EQ(text.size(), 100000u);
  EQ(text.substr(50000, 6), "middle");
  CHECK(all_zero(text.substr(0, 50000)) && all_zero(text.substr(50006)));
}

// lseek(2): data is never inside a reported hole; the end of file counts as a hole.
CASE(sparse, seek_data_and_hole) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  OK(pwrite(fd, pattern(4096).data(), 4096, 2 * kMega));
  OK(ftruncate(fd, 4 * kMega));
  const off_t data = OK(lseek(fd, 0, SEEK_DATA));
  CHECK(data <= 2 * kMega);
  const off_t hole = OK(lseek(fd, 2 * kMega, SEEK_HOLE));
  CHECK(hole >= 2 * kMega + 4096 && hole <= 4 * kMega);
  EQ(OK(lseek(fd, 2 * kMega + 17, SEEK_DATA)), 2 * kMega + 17);
  EQ(OK(lseek(fd, 0, SEEK_CUR)), 2 * kMega + 17);
  FAILS(ENXIO, lseek(fd, 4 * kMega, SEEK_DATA));
  FAILS(ENXIO, lseek(fd, 4 * kMega, SEEK_HOLE));
  FAILS(ENXIO, lseek(fd, 5 * kMega, SEEK_DATA));
  FAILS(ENXIO, lseek(fd, -1, SEEK_DATA));
}

CASE(sparse, exact_holes) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  OK(pwrite(fd, pattern(65536).data(), 65536, kMega));
  OK(ftruncate(fd, 2 * kMega));
  EQ(OK(lseek(fd, 0, SEEK_HOLE)), 0);
  EQ(OK(lseek(fd, 0, SEEK_DATA)), kMega);
  EQ(OK(lseek(fd, kMega, SEEK_HOLE)), kMega + 65536);
  FAILS(ENXIO, lseek(fd, kMega + 65536, SEEK_DATA));
}

CASE(sparse, seek_in_a_full_file) {
  OK(make_file("f", pattern(10000)));
  const Fd fd = OK(open("f", O_RDONLY));
  EQ(OK(lseek(fd, 0, SEEK_DATA)), 0);
  EQ(OK(lseek(fd, 5000, SEEK_DATA)), 5000);
  EQ(OK(lseek(fd, 0, SEEK_HOLE)), 10000);
  EQ(OK(lseek(fd, 9999, SEEK_HOLE)), 10000);
}

CASE(sparse, seek_in_an_empty_file) {
  OK(make_file("f"));
  const Fd fd = OK(open("f", O_RDONLY));
  FAILS(ENXIO, lseek(fd, 0, SEEK_DATA));
  FAILS(ENXIO, lseek(fd, 0, SEEK_HOLE));
}

CASE(sparse, seek_follows_new_data) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  OK(ftruncate(fd, 4 * kMega));
  FAILS(ENXIO, lseek(fd, 0, SEEK_DATA));
  OK(pwrite(fd, "x", 1, 3 * kMega));
  const off_t data = OK(lseek(fd, 0, SEEK_DATA));
  CHECK(data <= 3 * kMega && data > 2 * kMega);
}

CASE(fallocate, allocates_and_grows) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR));
  OK(fallocate(fd, 0, 0, 100000));
  EQ(size("f"), 100000);
  EQ(content("f").substr(0, 4), "text");
  CHECK(all_zero(content("f").substr(4)));
  OK(fallocate(fd, 0, 50, 100));
  EQ(size("f"), 100000);
  OK(fallocate(fd, 0, 200000, 1000));
  EQ(size("f"), 201000);
}

CASE(fallocate, keep_size) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR));
  OK(allocate(fd, FALLOC_FL_KEEP_SIZE, 0, kMega));
  EQ(size("f"), 4);
  OK(pwrite(fd, "end", 3, 1000));
  EQ(size("f"), 1003);
  CHECK(all_zero(content("f").substr(4, 996)));
}

CASE(fallocate, punch_hole) {
  const std::string text = pattern(5 * 4096);
  OK(make_file("f", text));
  const Fd fd = OK(open("f", O_RDWR));
  OK(allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 2 * 4096));
  EQ(size("f"), 5 * 4096);
  CHECK(content("f") == text.substr(0, 4096) + std::string(2 * 4096, '\0') + text.substr(3 * 4096));
  EQ(OK(lseek(fd, 0, SEEK_HOLE)), 4096);
  EQ(OK(lseek(fd, 4096, SEEK_DATA)), 3 * 4096);
}

CASE(fallocate, punch_part_of_a_block) {
  std::string text = pattern(20000);
  OK(make_file("f", text));
  const Fd fd = OK(open("f", O_RDWR));
  OK(allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1000, 10000));
  text.replace(1000, 10000, 10000, '\0');
  CHECK(content("f") == text);
  OK(allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 19990, 100000));
  text.replace(19990, 10, 10, '\0');
  CHECK(content("f") == text);
}

CASE(fallocate, punch_hole_must_keep_size) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR));
  FAILS(one_of(EOPNOTSUPP, EINVAL), fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 4));
}

CASE(fallocate, zero_range) {
  std::string text = pattern(20000);
  OK(make_file("f", text));
  const Fd fd = OK(open("f", O_RDWR));
  OK(allocate(fd, FALLOC_FL_ZERO_RANGE, 1000, 10000));
  text.replace(1000, 10000, 10000, '\0');
  CHECK(content("f") == text);
  OK(allocate(fd, FALLOC_FL_ZERO_RANGE, 15000, 10000));
  EQ(size("f"), 25000);
  OK(allocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 24000, 10000));
  EQ(size("f"), 25000);
  CHECK(all_zero(content("f").substr(15000)));
}

CASE(fallocate, errors) {
  OK(make_file("f", "text"));
  OK(mkfifo("fifo", 0600));
  const Fd fd = OK(open("f", O_RDWR)), reader = OK(open("f", O_RDONLY));
  const Fd fifo = OK(open("fifo", O_RDWR)), dir = OK(open(".", O_RDONLY));
  FAILS(EINVAL, fallocate(fd, 0, 0, 0));
  FAILS(EINVAL, fallocate(fd, 0, -1, 10));
  FAILS(EINVAL, fallocate(fd, 0, 0, -1));
  FAILS(EBADF, fallocate(reader, 0, 0, 10));
  FAILS(EBADF, fallocate(-1, 0, 0, 10));
  FAILS(ESPIPE, fallocate(fifo, 0, 0, 10));
  FAILS(one_of(EBADF, EISDIR, ENODEV), fallocate(dir, 0, 0, 10));
  FAILS(EOPNOTSUPP, fallocate(fd, 0x4000, 0, 10));
  FAILS(EFBIG, fallocate(fd, 0, 0x7fffffffffffff00, 0x1000));
  EQ(content("f"), "text");
}

CASE(fallocate, stamps) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR));
  EQ(moved({"f"}, [&] { OK(fallocate(fd, 0, 0, 10000)); }), "f:mc");
  EQ(moved({"f"}, [&] { OK(allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096)); }), "f:mc");
}

CASE(fallocate, posix_fallocate) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR));
  OK(from_error(posix_fallocate(fd, 0, 1000)));
  EQ(size("f"), 1000);
  OK(from_error(posix_fallocate(fd, 0, 10)));
  EQ(size("f"), 1000);
  OK(from_error(posix_fallocate(fd, 5000, 1)));
  EQ(size("f"), 5001);
  FAILS(EINVAL, from_error(posix_fallocate(fd, -1, 10)));
  FAILS(EINVAL, from_error(posix_fallocate(fd, 0, 0)));
  FAILS(EBADF, from_error(posix_fallocate(-1, 0, 10)));
}

CASE(fallocate, seen_through_a_cached_read) {
  OK(make_file("f", pattern(8192)));
  const Fd a = OK(open("f", O_RDWR)), b = OK(open("f", O_RDONLY));
  CHECK(content(static_cast<int>(b)) == pattern(8192));
  OK(allocate(a, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8192));
  CHECK(content(static_cast<int>(b)) == std::string(8192, '\0'));
}
