// Offsets beyond 4 GiB, in sparse files, and RLIMIT_FSIZE.
#include <signal.h>
#include <sys/resource.h>

#include "test/conformance/suite/suite.hpp"

namespace {

constexpr off_t kGiga = 1LL << 30;

std::string read_at(int fd, off_t offset, std::size_t length) {
  std::string text(length, '?');
  const ssize_t n = pread(fd, text.data(), length, offset);
  return n < 0 ? "<" + error_name(errno) + ">" : text.substr(0, static_cast<std::size_t>(n));
}

int limit_file_size(rlim_t bytes) {
  const rlimit limit{bytes, bytes};
  return setrlimit(RLIMIT_FSIZE, &limit);
}

}  // namespace

CASE(large, data_around_two_and_four_giga) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  for (const off_t at : {2 * kGiga - 2, 4 * kGiga - 2, 5 * kGiga}) {
    OK(pwrite(fd, "abcd", 4, at));
    EQ(read_at(fd, at, 4), "abcd");
  }
  EQ(size("f"), 5 * kGiga + 4);
  EQ(read_at(fd, 2 * kGiga - 4, 8), std::string("\0\0abcd\0\0", 8));
  EQ(read_at(fd, kGiga - 2, 4), std::string(4, '\0'));
  EQ(read_at(fd, 5 * kGiga + 2, 10), "cd");
}

CASE(large, seek_and_append) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  OK(ftruncate(fd, 6 * kGiga));
  EQ(OK(lseek(fd, 0, SEEK_END)), 6 * kGiga);
  OK(write(fd, "end", 3));
  EQ(OK(lseek(fd, 0, SEEK_CUR)), 6 * kGiga + 3);
  const Fd appender = OK(open("f", O_WRONLY | O_APPEND));
  OK(write(appender, "more", 4));
  EQ(read_at(fd, 6 * kGiga, 16), "endmore");
}

CASE(large, truncate_far_and_back) {
  OK(make_file("f", "text"));
  OK(truncate("f", 7 * kGiga + 1));
  EQ(size("f"), 7 * kGiga + 1);
  OK(truncate("f", 4 * kGiga + 2));
  EQ(size("f"), 4 * kGiga + 2);
  OK(truncate("f", 4));
  EQ(content("f"), "text");
}

CASE(large, seek_data) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  OK(pwrite(fd, "x", 1, 5 * kGiga));
  const off_t data = OK(lseek(fd, 0, SEEK_DATA));
  CHECK(data > 5 * kGiga - (4 << 20) && data <= 5 * kGiga);
}

CASE(large, copy_at_far_offsets) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644)), to = OK(open("g", O_CREAT | O_RDWR, 0644));
  OK(pwrite(fd, "text", 4, 5 * kGiga));
  off_t in = 5 * kGiga, out = 6 * kGiga;
  EQ(OK(copy_file_range(fd, &in, to, &out, 4, 0)), 4);
  EQ(read_at(to, 6 * kGiga, 4), "text");
}

CASE(large, punching_at_far_offsets) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  OK(pwrite(fd, "text", 4, 5 * kGiga));
  if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4 * kGiga, 2 * kGiga) != 0)
    SKIP_OPTIONAL("no holes");
  EQ(read_at(fd, 5 * kGiga, 4), std::string(4, '\0'));
  EQ(size("f"), 5 * kGiga + 4);
}

CASE(limits, write_beyond_the_limit) {
  OK(signal(SIGXFSZ, SIG_IGN) == SIG_ERR ? -1 : 0);
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  OK(limit_file_size(1000));
  const std::string text(800, 'x');
  EQ(OK(write(fd, text.data(), 800)), 800);
  EQ(OK(write(fd, text.data(), 800)), 200);
  FAILS(EFBIG, write(fd, text.data(), 1));
  FAILS(EFBIG, pwrite(fd, text.data(), 1, 5000));
  OK(pwrite(fd, "y", 1, 0));
  EQ(size("f"), 1000);
}

CASE(limits, truncate_and_fallocate_beyond_the_limit) {
  OK(signal(SIGXFSZ, SIG_IGN) == SIG_ERR ? -1 : 0);
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  OK(limit_file_size(1000));
  FAILS(EFBIG, ftruncate(fd, 1001));
  FAILS(EFBIG, truncate("f", 5000));
  FAILS(EFBIG, fallocate(fd, 0, 0, 5000));
  OK(ftruncate(fd, 1000));
  EQ(size("f"), 1000);
}

CASE(limits, signal_by_default) {
  OK(make_file("f"));
  SharedCounter caught;
  static SharedCounter* counter;
  counter = &caught;
  in_child([] {
    signal(SIGXFSZ, [](int) { counter->add(); });
    const Fd fd = OK(open("f", O_RDWR));
    OK(limit_file_size(10));
    FAILS(EFBIG, pwrite(fd, "x", 1, 10));
    FAILS(EFBIG, ftruncate(fd, 100));
  });
  EQ(caught.get(), 2);
}

CASE(limits, existing_larger_file) {
  OK(signal(SIGXFSZ, SIG_IGN) == SIG_ERR ? -1 : 0);
  OK(make_file("f", std::string(5000, 'x')));
  const Fd fd = OK(open("f", O_RDWR));
  OK(limit_file_size(1000));
  FAILS(EFBIG, pwrite(fd, "y", 1, 3000));
  OK(pwrite(fd, "y", 1, 10));
  OK(ftruncate(fd, 2000));
  EQ(size("f"), 2000);
}

CASE(limits, append_beyond_the_limit) {
  OK(signal(SIGXFSZ, SIG_IGN) == SIG_ERR ? -1 : 0);
  OK(make_file("f", std::string(995, 'x')));
  const Fd fd = OK(open("f", O_WRONLY | O_APPEND));
  OK(limit_file_size(1000));
  EQ(OK(write(fd, "0123456789", 10)), 5);
  FAILS(EFBIG, write(fd, "x", 1));
  EQ(size("f"), 1000);
}
