// Several processes or threads in one directory at once. Bodies that run at the same time only count; what
// must be there at the end is checked afterwards by one party, so that transcripts stay comparable.
#include <pthread.h>

#include <atomic>
#include <memory>
#include <set>
#include <thread>

#include "test/conformance/suite/suite.hpp"

namespace {

constexpr int kParties = 4;

void in_processes(const std::function<void(int)>& body) {
  std::vector<std::unique_ptr<Process>> parties;
  for (int p = 0; p < kParties; ++p) parties.push_back(std::make_unique<Process>([&body, p] { body(p); }));
}

void in_threads(const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int p = 0; p < kParties; ++p) threads.emplace_back(body, p);
  for (std::thread& thread : threads) thread.join();
}

std::string numbered(const char* prefix, int a, int b = -1) {
  return prefix + std::to_string(a) + (b < 0 ? "" : "." + std::to_string(b));
}

bool create(const std::string& path, int flags = 0) {
  const int fd = open(path.c_str(), O_CREAT | O_WRONLY | flags, 0644);
  return fd >= 0 && close(fd) == 0;
}

}  // namespace

CASE(concurrency, creations_by_processes) {
  SharedCounter errors;
  in_processes([&](int p) {
    for (int i = 0; i < 100; ++i) {
      if (!create(numbered("f", p, i), O_EXCL)) errors.add();
    }
  });
  EQ(errors.get(), 0);
  const std::vector<std::string> found = list(".");
  EQ(found.size(), 400u);
  EQ(std::set<std::string>(found.begin(), found.end()).size(), 400u);
}

CASE(concurrency, creations_by_threads) {
  std::atomic<int> errors = 0;
  in_threads([&](int p) {
    for (int i = 0; i < 100; ++i) {
      if (!create(numbered("f", p, i), O_EXCL)) ++errors;
    }
  });
  EQ(errors.load(), 0);
  EQ(list(".").size(), 400u);
}

CASE(concurrency, exclusive_creation_has_one_winner) {
  SharedCounter winners, errors;
  in_processes([&](int) {
    for (int i = 0; i < 200; ++i) {
      if (create(numbered("f", i), O_EXCL)) {
        winners.add();
      } else if (errno != EEXIST) {
        errors.add();
      }
    }
  });
  EQ(winners.get(), 200);
  EQ(errors.get(), 0);
}

CASE(concurrency, mkdir_and_rmdir_have_one_winner) {
  SharedCounter made, removed, errors;
  in_processes([&](int) {
    for (int i = 0; i < 200; ++i) {
      if (mkdir("d", 0755) == 0) {
        made.add();
      } else if (errno != EEXIST) {
        errors.add();
      }
      if (rmdir("d") == 0) {
        removed.add();
      } else if (errno != ENOENT) {
        errors.add();
      }
    }
  });
  EQ(errors.get(), 0);
  CHECK(made.get() == removed.get());
  EQ(names("."), "");
  EQ(nlink("."), 2);
}

CASE(concurrency, unlink_has_one_winner) {
  for (int i = 0; i < 200; ++i) (void)create(numbered("f", i));
  SharedCounter winners, errors;
  in_processes([&](int) {
    for (int i = 0; i < 200; ++i) {
      if (unlink(numbered("f", i).c_str()) == 0) {
        winners.add();
      } else if (errno != ENOENT) {
        errors.add();
      }
    }
  });
  EQ(winners.get(), 200);
  EQ(errors.get(), 0);
}

CASE(concurrency, rename_has_one_winner) {
  for (int i = 0; i < 200; ++i) (void)create(numbered("f", i));
  SharedCounter winners, errors;
  in_processes([&](int p) {
    for (int i = 0; i < 200; ++i) {
      if (rename(numbered("f", i).c_str(), numbered("g", p, i).c_str()) == 0) {
        winners.add();
      } else if (errno != ENOENT) {
        errors.add();
      }
    }
  });
  EQ(winners.get(), 200);
  EQ(errors.get(), 0);
  EQ(list(".").size(), 200u);
}

CASE(concurrency, link_counts_add_up) {
  OK(make_file("f", "text"));
  SharedCounter errors;
  in_processes([&](int p) {
    for (int i = 0; i < 100; ++i) {
      if (link("f", numbered("l", p, i).c_str()) != 0) errors.add();
      if (i % 2 == 1 && unlink(numbered("l", p, i - 1).c_str()) != 0) errors.add();
    }
  });
  EQ(errors.get(), 0);
  EQ(nlink("f"), 1 + kParties * 50);
  EQ(list(".").size(), 201u);
}

// A name replaced by rename is there at every moment, and always holds one whole version.
CASE(concurrency, replacing_by_rename_is_atomic) {
  OK(make_file("f", std::string(3000, '0')));
  SharedCounter missing, torn, done;
  Process writer([&] {
    for (int i = 0; i < 200; ++i) {
      (void)make_file("new", std::string(3000, static_cast<char>('0' + i % 10)));
      (void)rename("new", "f");
    }
    done.add();
  });
  const auto reader = [&] {
    while (done.get() == 0) {
      const std::string text = content("f");
      if (text.size() != 3000) {
        missing.add();
      } else if (text != std::string(3000, text[0])) {
        torn.add();
      }
    }
  };
  { Process one(reader), two(reader); }
  writer.wait();
  EQ(missing.get(), 0);
  EQ(torn.get(), 0);
}

CASE(concurrency, exchange_never_loses_a_name) {
  OK(make_file("a", "one"));
  OK(make_file("b", "two"));
  SharedCounter missing, errors, done;
  Process swapper([&] {
    for (int i = 0; i < 500; ++i) {
      if (renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE) != 0) errors.add();
    }
    done.add();
  });
  while (done.get() == 0) {
    if (!exists("a") || !exists("b")) missing.add();
  }
  swapper.wait();
  EQ(missing.get() + errors.get(), 0);
  EQ(content("a") + content("b"), "onetwo");
}

CASE(concurrency, directories_moved_to_and_fro) {
  OK(mkdir("a", 0755));
  OK(mkdir("b", 0755));
  for (int p = 0; p < kParties; ++p) OK(mkdir(numbered("a/d", p).c_str(), 0755));
  SharedCounter errors;
  in_processes([&](int p) {
    const std::string here = numbered("a/d", p), there = numbered("b/d", p);
    for (int i = 0; i < 100; ++i) {
      if (rename(here.c_str(), there.c_str()) != 0 || rename(there.c_str(), here.c_str()) != 0) errors.add();
    }
  });
  EQ(errors.get(), 0);
  EQ(names("a"), "d0 d1 d2 d3");
  EQ(nlink("a"), 6);
  EQ(nlink("b"), 2);
}

// Crossing moves of directories into each other must never make a loop or a lost tree.
CASE(concurrency, crossing_directory_moves) {
  OK(mkdir("a", 0755));
  OK(mkdir("b", 0755));
  SharedCounter errors;
  const auto mover = [&](const char* from, const char* to, const char* back_to) {
    for (int i = 0; i < 300; ++i) {
      if (rename(from, to) == 0) {
        if (rename(to, back_to) != 0 && errno != ENOENT) errors.add();
      } else if (errno != ENOENT && errno != EINVAL && errno != ENOTEMPTY) {
        errors.add();
      }
    }
  };
  {
    Process one([&] { mover("a", "b/a", "a"); }), two([&] { mover("b", "a/b", "b"); });
  }
  EQ(errors.get(), 0);
  EQ(names("."), "a b");
}

CASE(concurrency, writers_in_their_own_ranges) {
  constexpr int kChunk = 1000, kRounds = 60;
  OK(make_file("f"));
  SharedCounter errors;
  in_processes([&](int p) {
    const Fd fd = open("f", O_RDWR);
    const std::string piece(kChunk, static_cast<char>('a' + p));
    for (int i = 0; i < kRounds; ++i) {
      const off_t at = static_cast<off_t>(i * kParties + p) * kChunk;
      if (pwrite(fd, piece.data(), piece.size(), at) != kChunk) errors.add();
    }
  });
  EQ(errors.get(), 0);
  std::string expected;
  for (int i = 0; i < kRounds * kParties; ++i)
    expected += std::string(kChunk, static_cast<char>('a' + i % kParties));
  CHECK(content("f") == expected);
}

// One page, four writers, each with a byte of its own that nobody else touches. Looking at the attributes
// meanwhile must not bring back what the page held before (a cache that drops pages because mtime moved can
// do that).
CASE(concurrency, bytes_of_one_page) {
  OK(make_file("f", std::string(kParties, '-')));
  SharedCounter stale;
  in_processes([&](int p) {
    const Fd fd = open("f", O_RDWR);
    for (int i = 0; i < 300; ++i) {
      const char mark = static_cast<char>('a' + i % 26);
      char back = '?';
      (void)!pwrite(fd, &mark, 1, p);
      (void)size("f");
      if (pread(fd, &back, 1, p) != 1 || back != mark) stale.add();
    }
  });
  EQ(stale.get(), 0);
}

CASE(concurrency, shared_offset_hands_out_each_byte_once) {
  OK(make_file("f", std::string(4000, 'x')));
  const Fd fd = OK(open("f", O_RDONLY));
  SharedCounter bytes;
  in_processes([&](int) {
    char buffer[7];
    for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) bytes.add(n);
  });
  EQ(bytes.get(), 4000);
}

CASE(concurrency, readers_while_the_file_grows) {
  OK(make_file("f"));
  const std::string text = pattern(200000);
  SharedCounter wrong, done;
  Process writer([&] {
    const Fd fd = open("f", O_WRONLY | O_APPEND);
    for (std::size_t at = 0; at < text.size(); at += 1000) (void)!write(fd, text.data() + at, 1000);
    done.add();
  });
  const auto reader = [&] {
    while (done.get() == 0) {
      const std::string seen = content("f");
      if (seen != text.substr(0, seen.size())) wrong.add();
    }
  };
  { Process one(reader), two(reader); }
  writer.wait();
  EQ(wrong.get(), 0);
  CHECK(content("f") == text);
}

CASE(concurrency, listing_while_names_come_and_go) {
  for (int i = 0; i < 100; ++i) (void)create(numbered("stay", i));
  SharedCounter done, wrong;
  Process churn([&] {
    for (int i = 0; i < 300; ++i) {
      (void)create(numbered("x", i % 50));
      (void)rename(numbered("x", i % 50).c_str(), numbered("y", i % 50).c_str());
      if (i % 3 == 0) unlink(numbered("y", i % 50).c_str());
    }
    done.add();
  });
  while (done.get() == 0) {
    int stayed = 0;
    for (const std::string& name : list(".")) stayed += name.compare(0, 4, "stay") == 0;
    if (stayed != 100) wrong.add();
  }
  churn.wait();
  EQ(wrong.get(), 0);
}

CASE(concurrency, open_and_unlink_race) {
  in_processes([&](int p) {
    for (int i = 0; i < 200; ++i) {
      const Fd fd = open("f", O_CREAT | O_RDWR, 0644);
      if (fd < 0) {
        FAIL("open: " + error_name(errno));
        continue;
      }
      const char mark = static_cast<char>('a' + p);
      if (pwrite(fd, &mark, 1, p) != 1) FAIL("write: " + error_name(errno));
      char back = '?';
      const ssize_t n = pread(fd, &back, 1, p);
      if (n != 1 || back != mark) {
        FAIL("read " + std::to_string(n) + " byte \"" + back + "\" of a file of " +
             std::to_string(size(static_cast<int>(fd))) + " bytes, where \"" + mark + "\" was written");
      }
      if (unlink("f") != 0 && errno != ENOENT) FAIL("unlink: " + error_name(errno));
    }
  });
  EQ(names("."), "");
}

CASE(concurrency, trees_made_and_removed) {
  SharedCounter errors;
  in_processes([&](int p) {
    for (int i = 0; i < 15; ++i) {
      const std::string top = numbered("t", p);
      std::string path = top;
      int failed = mkdir(top.c_str(), 0755) != 0;
      for (int level = 0; level < 4; ++level) {
        path += "/d";
        failed += mkdir(path.c_str(), 0755) != 0 || !create(path + "/f");
      }
      for (int level = 0; level < 4; ++level) {
        failed += unlink((path + "/f").c_str()) != 0 || rmdir(path.c_str()) != 0;
        path.resize(path.size() - 2);
      }
      failed += rmdir(top.c_str()) != 0;
      if (failed) errors.add();
    }
  });
  EQ(errors.get(), 0);
  EQ(names("."), "");
}
