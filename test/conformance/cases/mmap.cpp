// Mappings: what is stored through one is read by another and by read(2), and the reverse after msync(2).
#include <setjmp.h>
#include <signal.h>

#include "test/conformance/suite/suite.hpp"

namespace {

constexpr std::size_t kPage = 4096;

// mmap of a file, unmapped at the end of its scope.
class Map {
 public:
  Map(std::size_t length, int protection, int flags, int fd, off_t offset = 0)
      : length_(length), at_(static_cast<char*>(OK(mmap(nullptr, length, protection, flags, fd, offset)))) {}
  ~Map() {
    if (at_ != MAP_FAILED) munmap(at_, length_);
  }
  Map(const Map&) = delete;
  Map& operator=(const Map&) = delete;
  operator char*() const { return at_; }  // NOLINT
  [[nodiscard]] std::string text(std::size_t from, std::size_t length) const { return {at_ + from, length}; }
  [[nodiscard]] int sync() const { return msync(at_, length_, MS_SYNC); }

 private:
  std::size_t length_;
  char* at_;
};

sigjmp_buf after_signal;

// The signal that touching the byte raises, or 0.
int signal_of_touching(volatile char* at, bool store) {
  signal(SIGBUS, [](int number) { siglongjmp(after_signal, number); });
  signal(SIGSEGV, [](int number) { siglongjmp(after_signal, number); });
  const int number = sigsetjmp(after_signal, 1);
  if (number != 0) return number;
  if (store) {
    *at = 'x';
  } else {
    (void)*at;
  }
  return 0;
}

}  // namespace

CASE(mmap, shared_read) {
  OK(make_file("f", pattern(3 * kPage + 100)));
  const Fd fd = OK(open("f", O_RDONLY));
  const Map map(3 * kPage + 100, PROT_READ, MAP_SHARED, fd);
  CHECK(map.text(0, 3 * kPage + 100) == pattern(3 * kPage + 100));
  CHECK(std::string(map + 3 * kPage + 100, kPage - 100) == std::string(kPage - 100, '\0'));
}

CASE(mmap, shared_stores_reach_the_file) {
  OK(make_file("f", pattern(2 * kPage)));
  {
    const Fd fd = OK(open("f", O_RDWR));
    const Map map(2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    std::memcpy(map + 100, "stored", 6);
    std::memcpy(map + kPage - 2, "edge", 4);
    OK(map.sync());
    EQ(content("f").substr(100, 6), "stored");
  }
  const std::string text = content("f");
  EQ(text.substr(100, 6), "stored");
  EQ(text.substr(kPage - 2, 4), "edge");
  EQ(text.size(), 2 * kPage);
}

CASE(mmap, stores_without_msync_are_there_after_munmap) {
  OK(make_file("f", pattern(kPage)));
  {
    const Fd fd = OK(open("f", O_RDWR));
    const Map map(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    std::memcpy(map, "stored", 6);
  }
  EQ(content("f").substr(0, 6), "stored");
}

CASE(mmap, writes_show_in_the_mapping) {
  OK(make_file("f", pattern(kPage)));
  const Fd fd = OK(open("f", O_RDWR));
  const Map map(kPage, PROT_READ, MAP_SHARED, fd);
  EQ(map.text(0, 3), pattern(3));
  OK(pwrite(fd, "new", 3, 0));
  EQ(map.text(0, 3), "new");
  in_child([] {
    const Fd other = OK(open("f", O_WRONLY));
    OK(pwrite(other, "too", 3, 3));
  });
  EQ(map.text(0, 6), "newtoo");
}

CASE(mmap, two_processes_share_stores) {
  OK(make_file("f", pattern(kPage)));
  const Fd fd = OK(open("f", O_RDWR));
  const Map map(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  in_child([] {
    const Fd other = OK(open("f", O_RDWR));
    const Map theirs(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, other);
    std::memcpy(theirs, "from the child", 14);
  });
  EQ(map.text(0, 14), "from the child");
}

CASE(mmap, private_stores_stay_private) {
  OK(make_file("f", "0123456789"));
  const Fd fd = OK(open("f", O_RDONLY));
  const Map map(kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
  std::memcpy(map, "abc", 3);
  EQ(map.text(0, 5), "abc34");
  EQ(content("f"), "0123456789");
  const Map other(kPage, PROT_READ, MAP_PRIVATE, fd);
  EQ(other.text(0, 5), "01234");
}

CASE(mmap, private_of_a_program_runs) {
  // x86-64: mov eax, 42; ret. Elsewhere mapping it executable is all that is asked.
  const std::string code("\xb8\x2a\x00\x00\x00\xc3", 6);
  OK(make_file("f", code, 0755));
  const Fd fd = OK(open("f", O_RDONLY));
  const Map map(kPage, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd);
#ifdef __x86_64__
  EQ(reinterpret_cast<int (*)()>(static_cast<char*>(map))(), 42);
#endif
}

CASE(mmap, program_in_the_directory_runs) {
  OK(make_file("prog", content("/bin/true"), 0755));
  OK(make_file("script", "#!/bin/sh\necho ran >out\n", 0755));
  in_child([] { FAILS(0, execl("./prog", "prog", nullptr)); });
  in_child([] { FAILS(0, execl("./script", "script", nullptr)); });
  EQ(content("out"), "ran\n");
}

CASE(mmap, execution_needs_permission) {
  OK(make_file("prog", content("/bin/true"), 0644));
  in_child([] { FAILS(EACCES, execl("./prog", "prog", nullptr)); });
  OK(mkdir("d", 0755));
  in_child([] { FAILS(EACCES, execl("./d", "d", nullptr)); });
}

CASE(mmap, offset) {
  OK(make_file("f", pattern(4 * kPage)));
  const Fd fd = OK(open("f", O_RDONLY));
  const Map map(kPage, PROT_READ, MAP_SHARED, fd, 2 * kPage);
  CHECK(map.text(0, kPage) == pattern(4 * kPage).substr(2 * kPage, kPage));
}

CASE(mmap, beyond_the_end_is_sigbus) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR));
  const Map map(3 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  EQ(signal_of_touching(map + kPage - 1, false), 0);
  EQ(signal_of_touching(map + kPage, false), SIGBUS);
  EQ(signal_of_touching(map + 2 * kPage, true), SIGBUS);
  OK(ftruncate(fd, 3 * kPage));
  EQ(signal_of_touching(map + 2 * kPage, true), 0);
  OK(map.sync());
  EQ(content("f").substr(2 * kPage, 1), "x");
}

CASE(mmap, truncation_takes_pages_away) {
  OK(make_file("f", pattern(3 * kPage)));
  const Fd fd = OK(open("f", O_RDWR));
  const Map map(3 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  EQ(signal_of_touching(map + 2 * kPage, false), 0);
  OK(ftruncate(fd, kPage + 10));
  EQ(signal_of_touching(map + 2 * kPage, false), SIGBUS);
  EQ(signal_of_touching(map + kPage + 5, false), 0);
  EQ(map.text(kPage + 10, 3), std::string(3, '\0'));
}

// What is stored between the end of file and the end of the page is not written to the file. (What a later
// growth of the file shows there differs: ext4 zeroes it, tmpfs does not.)
CASE(mmap, stores_after_the_end_do_not_grow_the_file) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR));
  {
    const Map map(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    std::memcpy(map + 2, "XYZW", 4);
    OK(map.sync());
  }
  EQ(content("f"), "teXY");
  EQ(size("f"), 4);
}

CASE(mmap, stores_into_a_hole) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  OK(ftruncate(fd, 10 * kPage));
  const Map map(10 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  EQ(map.text(5 * kPage, 3), std::string(3, '\0'));
  std::memcpy(map + 5 * kPage, "abc", 3);
  OK(map.sync());
  EQ(content("f").substr(5 * kPage - 1, 5), std::string("\0abc\0", 5));
}

CASE(mmap, outlives_the_descriptor) {
  OK(make_file("f", pattern(kPage)));
  Fd fd = OK(open("f", O_RDWR));
  const Map map(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  OK(fd.close());
  std::memcpy(map, "stored", 6);
  OK(map.sync());
  EQ(content("f").substr(0, 6), "stored");
}

CASE(mmap, stamps) {
  OK(make_file("f", pattern(kPage)));
  const Fd fd = OK(open("f", O_RDWR));
  const Map map(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  EQ(moved({"f"},
           [&] {
             std::memcpy(map, "stored", 6);
             OK(map.sync());
           }),
     "f:mc");
}

CASE(mmap, access_modes) {
  OK(make_file("f", pattern(kPage)));
  const Fd reader = OK(open("f", O_RDONLY)), writer = OK(open("f", O_WRONLY)), path = OK(open("f", O_PATH));
  const Fd dir = OK(open(".", O_RDONLY));
  FAILS(EACCES, mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, reader, 0));
  FAILS(EACCES, mmap(nullptr, kPage, PROT_READ, MAP_SHARED, writer, 0));
  FAILS(EACCES, mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, writer, 0));
  FAILS(EBADF, mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, path, 0));
  FAILS(ENODEV, mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, dir, 0));
  FAILS(EINVAL, mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, reader, 100));
  const Map map(kPage, PROT_READ, MAP_SHARED, reader);
  FAILS(EACCES, mprotect(map, kPage, PROT_READ | PROT_WRITE));
  EQ(signal_of_touching(map, true), SIGSEGV);
}

CASE(mmap, random_stores_and_writes_agree) {
  std::string model = pattern(16 * kPage);
  OK(make_file("f", model));
  const Fd fd = OK(open("f", O_RDWR));
  const Map map(16 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  std::size_t at = 0;
  for (unsigned i = 1; i < 200; ++i) {
    at = (at * 31 + i * 977) % (16 * kPage - 300);
    const std::string piece = pattern(i % 300, i);
    model.replace(at, piece.size(), piece);
    if (i % 2) {
      std::memcpy(map + at, piece.data(), piece.size());
    } else if (pwrite(fd, piece.data(), piece.size(), static_cast<off_t>(at)) < 0) {
      break;
    }
  }
  CHECK(map.text(0, 16 * kPage) == model);
  OK(map.sync());
  CHECK(content("f") == model);
}

// The second mapping comes without a stat(2) that would ask for the size.
CASE(mmap, of_what_another_descriptor_has_just_written) {
  OK(make_file("f", "first"));
  const Fd mapped = OK(open("f", O_RDWR)), writer = OK(open("f", O_WRONLY));
  {
    const Map map(kPage, PROT_READ, MAP_SHARED, mapped);
    EQ(map.text(0, 5), "first");
  }
  const std::string text = pattern(3 * kPage);
  EQ(OK(pwrite(writer, text.data(), text.size(), 0)), 3 * kPage);
  const Map map(3 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, mapped);
  EQ(signal_of_touching(map + 3 * kPage - 1, false), 0);
  EQ(map.text(3 * kPage - 10, 10), text.substr(3 * kPage - 10));
}
