// O_APPEND: every write goes to the end of file as it is at that moment.
#include <sys/uio.h>

#include <memory>
#include <set>

#include "test/conformance/suite/suite.hpp"

CASE(append, ignores_the_offset) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR | O_APPEND));
  OK(lseek(fd, 0, SEEK_SET));
  OK(write(fd, "more", 4));
  EQ(content("f"), "textmore");
  EQ(lseek(fd, 0, SEEK_CUR), 8);
}

// pwrite(2), BUGS: on Linux O_APPEND wins over the offset.
CASE(append, pwrite_appends_too) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR | O_APPEND));
  OK(pwrite(fd, "x", 1, 0));
  EQ(content("f"), "textx");
}

CASE(append, sees_growth_by_others) {
  OK(make_file("f", "text"));
  const Fd a = OK(open("f", O_WRONLY | O_APPEND)), b = OK(open("f", O_WRONLY | O_APPEND));
  OK(write(a, "1", 1));
  OK(write(b, "2", 1));
  OK(write(a, "3", 1));
  in_child([] {
    const Fd c = OK(open("f", O_WRONLY | O_APPEND));
    OK(write(c, "4", 1));
  });
  OK(write(b, "5", 1));
  EQ(content("f"), "text12345");
}

CASE(append, after_truncation) {
  OK(make_file("f", "long text"));
  const Fd fd = OK(open("f", O_WRONLY | O_APPEND));
  OK(write(fd, "!", 1));
  OK(truncate("f", 2));
  OK(write(fd, "?", 1));
  EQ(content("f"), "lo?");
}

CASE(append, set_by_fcntl) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR));
  OK(fcntl(fd, F_SETFL, O_APPEND));
  CHECK((fcntl(fd, F_GETFL) & O_APPEND) != 0);
  OK(write(fd, "1", 1));
  OK(fcntl(fd, F_SETFL, 0));
  OK(pwrite(fd, "T", 1, 0));
  EQ(content("f"), "Text1");
}

CASE(append, reading_uses_the_offset) {
  OK(make_file("f", "0123456789"));
  const Fd fd = OK(open("f", O_RDWR | O_APPEND));
  char buffer[4];
  EQ(OK(read(fd, buffer, 4)), 4);
  EQ(std::string(buffer, 4), "0123");
}

// Each record must be there once and in one piece, whoever wrote it.
CASE(append, four_processes) {
  constexpr int kWriters = 4, kRecords = 250;
  OK(make_file("f"));
  SharedCounter errors;
  {
    std::vector<std::unique_ptr<Process>> writers;
    for (int w = 0; w < kWriters; ++w) {
      writers.push_back(std::make_unique<Process>([&errors, w] {
        const Fd fd = open("f", O_WRONLY | O_APPEND);
        for (int i = 0; i < kRecords; ++i) {
          char record[64];
          const int length =
              std::snprintf(record, sizeof record, "writer %d record %05d %*s\n", w, i, i % 20, "");
          if (write(fd, record, static_cast<std::size_t>(length)) != length) errors.add();
        }
      }));
    }
  }
  EQ(errors.get(), 0);
  const std::string text = content("f");
  std::set<std::string> records;
  std::size_t lines = 0;
  for (std::size_t at = 0, end; (end = text.find('\n', at)) != std::string::npos; at = end + 1, ++lines) {
    records.insert(text.substr(at, end - at));
  }
  EQ(lines, 1000u);
  EQ(records.size(), 1000u);
}

CASE(append, vectors_stay_together) {
  OK(make_file("f"));
  SharedCounter errors;
  const auto work = [&errors](char letter) {
    const Fd fd = open("f", O_WRONLY | O_APPEND);
    std::string half(700, letter);
    const iovec pieces[] = {{half.data(), 700}, {half.data(), 700}};
    for (int i = 0; i < 100; ++i) {
      if (writev(fd, pieces, 2) != 1400) errors.add();
    }
  };
  {
    const Process a([&] { work('a'); }), b([&] { work('b'); });
  }
  EQ(errors.get(), 0);
  const std::string text = content("f");
  EQ(text.size(), 280000u);
  int torn = 0;
  for (std::size_t at = 0; at + 1400 <= text.size(); at += 1400) {
    torn += text.substr(at, 1400) != std::string(1400, text[at]);
  }
  EQ(torn, 0);
}
