// fsync(2) and relatives, O_SYNC, O_DIRECT.
#include <stdlib.h>

#include "test/conformance/suite/suite.hpp"

CASE(sync, fsync_of_every_openable_kind) {
  OK(make_file("f", "text"));
  OK(mkdir("d", 0755));
  const Fd rw = OK(open("f", O_RDWR)), ro = OK(open("f", O_RDONLY)), dir = OK(open("d", O_RDONLY));
  for (const int fd : {static_cast<int>(rw), static_cast<int>(ro), static_cast<int>(dir)}) {
    OK(fsync(fd));
    OK(fdatasync(fd));
  }
  FAILS(EBADF, fsync(-1));
  FAILS(EBADF, fdatasync(-1));
}

CASE(sync, fsync_of_a_pipe_is_einval) {
  OK(mkfifo("fifo", 0644));
  const Fd fd = OK(open("fifo", O_RDWR));
  FAILS(EINVAL, fsync(fd));
}

CASE(sync, syncfs) {
  OK(make_file("f", pattern(100000)));
  const Fd fd = OK(open("f", O_RDONLY));
  OK(syncfs(fd));
  FAILS(EBADF, syncfs(-1));
  CHECK(content("f") == pattern(100000));
}

CASE(sync, sync_file_range) {
  OK(make_file("f", pattern(100000)));
  const Fd fd = OK(open("f", O_RDWR));
  constexpr unsigned kAll = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  OK(sync_file_range(fd, 0, 0, kAll));
  OK(sync_file_range(fd, 4096, 8192, SYNC_FILE_RANGE_WRITE));
  FAILS(EINVAL, sync_file_range(fd, 0, 0, 0x80));
  FAILS(EINVAL, sync_file_range(fd, -1, 0, kAll));
}

CASE(sync, written_with_o_sync) {
  for (const int flag : {O_SYNC, O_DSYNC}) {
    const Fd fd = OK(open("f", O_CREAT | O_TRUNC | O_RDWR | flag, 0644));
    OK(write(fd, "text", 4));
    OK(pwrite(fd, "T", 1, 0));
    EQ(content("f"), "Text");
    CHECK((fcntl(fd, F_GETFL) & flag) == flag);
  }
}

CASE(sync, data_survives_fsync_truncate_write) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  OK(write(fd, "0123456789", 10));
  OK(fsync(fd));
  OK(ftruncate(fd, 5));
  OK(fdatasync(fd));
  OK(pwrite(fd, "x", 1, 7));
  OK(fsync(fd));
  EQ(content("f"), std::string("01234\0\0x", 8));
}

namespace {

struct Aligned {
  Aligned() {
    if (posix_memalign(&at, 4096, kLength) != 0) at = nullptr;
  }
  ~Aligned() { free(at); }
  static constexpr std::size_t kLength = 65536;
  void* at = nullptr;
};

int open_direct(const char* path, int flags) {
  const int fd = open(path, flags | O_DIRECT, 0644);
  if (fd < 0 && errno == EINVAL) SKIP_OPTIONAL("no O_DIRECT");
  return fd;
}

}  // namespace

CASE(direct, write_and_read_aligned) {
  const Aligned buffer;
  const std::string text = pattern(Aligned::kLength);
  const Fd fd = OK(open_direct("f", O_CREAT | O_RDWR));
  std::memcpy(buffer.at, text.data(), text.size());
  EQ(OK(pwrite(fd, buffer.at, 65536, 0)), 65536);
  EQ(OK(pwrite(fd, buffer.at, 8192, 65536)), 8192);
  std::memset(buffer.at, 0, Aligned::kLength);
  EQ(OK(pread(fd, buffer.at, 65536, 0)), 65536);
  CHECK(std::memcmp(buffer.at, text.data(), text.size()) == 0);
  EQ(OK(pread(fd, buffer.at, 65536, 65536)), 8192);
  EQ(OK(pread(fd, buffer.at, 4096, 1 << 20)), 0);
}

CASE(direct, agrees_with_buffered_io) {
  const Aligned buffer;
  OK(make_file("f", pattern(65536)));
  const Fd direct = OK(open_direct("f", O_RDWR)), buffered = OK(open("f", O_RDWR));
  CHECK(content(static_cast<int>(buffered)) == pattern(65536));
  std::memset(buffer.at, 'd', Aligned::kLength);
  EQ(OK(pwrite(direct, buffer.at, 4096, 8192)), 4096);
  CHECK(content(static_cast<int>(buffered)).substr(8192, 4096) == std::string(4096, 'd'));
  OK(pwrite(buffered, "buffered", 8, 16384));
  EQ(OK(pread(direct, buffer.at, 4096, 16384)), 4096);
  CHECK(std::memcmp(buffer.at, "buffered", 8) == 0);
}

CASE(direct, short_read_at_an_odd_end) {
  const Aligned buffer;
  OK(make_file("f", pattern(5000)));
  const Fd fd = OK(open_direct("f", O_RDONLY));
  EQ(OK(pread(fd, buffer.at, 8192, 0)), 5000);
  EQ(OK(pread(fd, buffer.at, 8192, 4096)), 904);
}

CASE(direct, grows_by_appending) {
  const Aligned buffer;
  std::memset(buffer.at, 'a', Aligned::kLength);
  const Fd fd = OK(open_direct("f", O_CREAT | O_WRONLY | O_APPEND));
  for (int i = 0; i < 3; ++i) EQ(OK(write(fd, buffer.at, 4096)), 4096);
  EQ(size("f"), 3 * 4096);
}

CASE(direct, set_by_fcntl) {
  OK(make_file("f", pattern(8192)));
  const Fd fd = OK(open("f", O_RDWR));
  if (fcntl(fd, F_SETFL, O_DIRECT) != 0) SKIP_OPTIONAL("no O_DIRECT");
  const Aligned buffer;
  EQ(OK(pread(fd, buffer.at, 4096, 4096)), 4096);
  CHECK(std::memcmp(buffer.at, pattern(8192).data() + 4096, 4096) == 0);
}
