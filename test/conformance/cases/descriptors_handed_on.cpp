// Open files that leave the hands of plain read and write: other processes, other programs, libc's own I/O,
// the kernel's. Whoever uses a descriptor, its open file has one offset.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <thread>

#include "test/conformance/suite/suite.hpp"

namespace {

// A program that writes one word, started in some way. Static where there is one: nothing can be preloaded
// into it.
std::string echo_command(const char* word) {
  const char* program = exists("/bin/busybox") ? "/bin/busybox echo " : "/bin/echo ";
  return program + std::string(word);
}

void add(int fd, const char* word) {
  OK(write(fd, word, strlen(word)));
}

// `fd` as a child's standard output, by `run`.
template <typename Run>
void with_output(int fd, Run run) {
  in_child([&] {
    OK(dup2(fd, 1));
    run();
  });
}

}  // namespace

CASE(handed_on, one_offset_in_every_mix) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR | O_TRUNC, 0644));
  add(fd, "a\n");
  with_output(fd, [&] { EQ(system(echo_command("b").c_str()), 0); });
  add(fd, "c\n");
  in_child([&] { add(fd, "d\n"); });
  add(fd, "e\n");
  EQ(content("f"), "a\nb\nc\nd\ne\n");
  EQ(lseek(fd, 0, SEEK_CUR), 10);
}

CASE(handed_on, vfork) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  add(fd, "before ");
  const pid_t child = vfork();
  if (child == 0) {
    dup2(fd, 1);
    execl("/bin/echo", "echo", "child", nullptr);
    _exit(1);
  }
  // vfork(2) returns when the child has executed a program, which may not have run yet.
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  add(fd, "after");
  EQ(content("f"), "before child\nafter");
}

CASE(handed_on, posix_spawn) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR | O_CLOEXEC, 0644));
  add(fd, "before ");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, fd, 1);
  char name[] = "echo", word[] = "spawned";
  char* arguments[] = {name, word, nullptr};
  pid_t child;
  OK(from_error(posix_spawn(&child, "/bin/echo", &actions, nullptr, arguments, environ)));
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  posix_spawn_file_actions_destroy(&actions);
  add(fd, "after");
  EQ(content("f"), "before spawned\nafter");
}

CASE(handed_on, inherited_by_number) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  add(fd, "a\n");
  const std::string redirect = " >&" + std::to_string(static_cast<int>(fd));
  EQ(system((echo_command("b") + redirect).c_str()), 0);
  FILE* pipe = popen((echo_command("c") + redirect).c_str(), "r");
  CHECK(pipe != nullptr && pclose(pipe) == 0);
  add(fd, "d\n");
  EQ(content("f"), "a\nb\nc\nd\n");
}

CASE(handed_on, close_on_exec_is_not_inherited) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR | O_CLOEXEC, 0644));
  const std::string redirect = " 2>/dev/null >&" + std::to_string(static_cast<int>(fd));
  CHECK(system(("exec " + echo_command("b") + redirect).c_str()) != 0);
  EQ(size("f"), 0);
}

CASE(handed_on, stdio) {
  const int fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  add(fd, "one ");
  EQ(dprintf(fd, "%s ", "two"), 4);
  add(fd, "three ");
  FILE* stream = OK(fdopen(fd, "w"));
  fputs("four ", stream);
  fflush(stream);
  add(fd, "five");
  fclose(stream);
  EQ(content("f"), "one two three four five");
}

CASE(handed_on, standard_descriptors) {
  in_child([] {
    close(0);
    EQ(OK(open("f", O_CREAT | O_RDWR, 0644)), 0);
    add(0, "line\n");
    OK(lseek(0, 0, SEEK_SET));
    char line[16] = "";
    CHECK(fgets(line, sizeof line, stdin) != nullptr);
    EQ(std::string(line), "line\n");
  });
}

// One descriptor writes the file longer, the other, which is a standard one, somewhere inside; who then reads
// must find all of it.
CASE(handed_on, grown_by_another_descriptor) {
  in_child([] {
    const int fd = OK(open("f", O_CREAT | O_EXCL | O_RDWR, 0644));
    OK(dup2(fd, 0));
    OK(close(fd));
    const Fd other = OK(open("f", O_RDWR));
    std::string found(200'000, 0);
    size_t size = 0, wrong = 0;
    for (size_t i = 0; i < 1000; i++) {
      if (i % 50 == 49) {
        OK(ftruncate(i % 100 == 99 ? 0 : static_cast<int>(other), 0));
        size = 0;
      }
      const std::string more(50 + i * 37 % 3000, 'a');
      EQ(OK(pwrite(other, more.data(), more.size(), static_cast<off_t>(size))), more.size());
      EQ(OK(pwrite(0, "inside", 6, static_cast<off_t>(size + i % 40))), 6);
      size += more.size();
      wrong += pread(0, found.data(), found.size(), 0) != static_cast<ssize_t>(size);
    }
    EQ(wrong, 0);
  });
}

CASE(handed_on, sendfile_and_splice) {
  OK(make_file("f", "0123456789"));
  const Fd in = OK(open("f", O_RDONLY));
  const Fd out = OK(open("g", O_CREAT | O_RDWR, 0644));
  OK(lseek(in, 2, SEEK_SET));
  EQ(OK(sendfile(out, in, nullptr, 3)), 3);
  EQ(lseek(in, 0, SEEK_CUR), 5);
  int ends[2];
  OK(pipe(ends));
  EQ(OK(splice(in, nullptr, ends[1], nullptr, 2, 0)), 2);
  EQ(OK(splice(ends[0], nullptr, out, nullptr, 2, 0)), 2);
  add(out, ".");
  EQ(content("g"), "23456.");
}

CASE(handed_on, raw_system_calls) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  add(fd, "one ");
  EQ(OK(syscall(SYS_write, static_cast<int>(fd), "two ", 4)), 4);
  add(fd, "three");
  EQ(content("f"), "one two three");
}

CASE(handed_on, reopened_by_its_number) {
  OK(make_file("f", "0123456789"));
  const Fd fd = OK(open("f", O_RDONLY));
  OK(lseek(fd, 5, SEEK_SET));
  const std::string link = "/proc/self/fd/" + std::to_string(static_cast<int>(fd));
  const Fd again = OK(open(link.c_str(), O_RDONLY));
  EQ(lseek(again, 0, SEEK_CUR), 0);
  EQ(content(static_cast<int>(again)), "0123456789");
  EQ(content("/dev/fd/" + std::to_string(static_cast<int>(fd))), "0123456789");
}

CASE(handed_on, executed_by_descriptor) {
  OK(make_file("prog", content("/bin/true"), 0755));
  const Fd fd = OK(open("prog", O_RDONLY | O_CLOEXEC));
  in_child([&] {
    char name[] = "prog";
    char* arguments[] = {name, nullptr};
    FAILS(0, fexecve(fd, arguments, environ));
  });
}

CASE(handed_on, locks_end_with_any_descriptor) {
  OK(make_file("f", "0123456789"));
  const Fd locked = OK(open("f", O_RDWR));
  struct flock lock {};
  lock.l_type = F_WRLCK;
  OK(fcntl(locked, F_SETLK, &lock));
  { const Fd other = OK(open("f", O_RDONLY)); }
  in_child([&] {
    const Fd mine = OK(open("f", O_RDWR));
    OK(fcntl(mine, F_SETLK, &lock));
  });
}

CASE(handed_on, flags_stay) {
  for (const int flags : {0, O_APPEND, O_NOFOLLOW, O_NONBLOCK | O_SYNC}) {
    const Fd fd = OK(open("f", O_CREAT | O_RDWR | flags, 0644));
    const int before = OK(fcntl(fd, F_GETFL));
    in_child([&] { CHECK(fcntl(fd, F_GETFL) == before); });
    CHECK(fcntl(fd, F_GETFL) == before);
  }
}

CASE(handed_on, locks_stay_when_another_descriptor_is_handed_on) {
  OK(make_file("f", "0123456789"));
  const Fd locked = OK(open("f", O_RDWR));
  struct flock lock {};
  lock.l_type = F_WRLCK;
  OK(fcntl(locked, F_SETLK, &lock));
  const Fd other = OK(open("f", O_RDONLY));
  for (int i = 0; i < 2; ++i) {
    in_child([&] {
      EQ(content(static_cast<int>(other)), "0123456789");
      const Fd mine = OK(open("f", O_RDWR));
      FAILS(one_of(EAGAIN, EACCES), fcntl(mine, F_SETLK, &lock));
    });
  }
}

// ---- Numbers ----

CASE(handed_on, closing_everything) {
  const Fd before = OK(open("f", O_CREAT | O_RDWR, 0644));
  in_child([] {
    OK(close_range(3, ~0u, 0));
    const Fd fd = OK(open("f", O_RDWR));
    EQ(static_cast<int>(fd), 3);
    add(fd, "text");
    EQ(content("f"), "text");
  });
  in_child([] {
    for (int fd = 3; fd < 2000; ++fd) close(fd);
    EQ(OK(open("f", O_RDWR)), 3);
    add(3, "more");
    closefrom(3);
    EQ(OK(open("f", O_RDWR)), 3);
    EQ(content(3), "more");
  });
}

CASE(handed_on, any_number_is_free_for_use) {
  in_child([] {
    OK(make_file("f", "text"));
    struct rlimit limit;
    OK(getrlimit(RLIMIT_NOFILE, &limit));
    const Fd fd = OK(open("f", O_RDWR));
    // Every number there is, one after the other.
    for (int number = 4; number < static_cast<int>(limit.rlim_cur) && number < 70000; ++number) {
      if (dup2(fd, number) != number) FAIL("dup2 to " + std::to_string(number));
      close(number);
    }
    const Fd other = OK(open("f", O_RDONLY));
    EQ(content(static_cast<int>(other)), "text");
    EQ(size("f"), 4);
  });
}

// ---- Threads and signals ----

CASE(handed_on, fork_among_threads) {
  OK(make_file("f", std::string(4096, 'x')));
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        const int fd = open("f", O_RDONLY);
        char data[4096];
        if (fd < 0 || read(fd, data, 100) != 100 || pread(fd, data, 4096, 0) != 4096 ||
            lseek(fd, 0, SEEK_CUR) != 100 || close(fd) != 0)
          ++wrong;
      }
    });
  }
  for (int i = 0; i < 50; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      char byte;
      const int fd = open("f", O_RDONLY);
      _exit(fd >= 0 && read(fd, &byte, 1) == 1 && byte == 'x' ? 0 : 1);
    }
    int status = -1;
    if (waitpid(child, &status, 0) != child || status != 0) ++wrong;
  }
  stop = true;
  for (auto& thread : threads) thread.join();
  EQ(wrong.load(), 0);
}

CASE(handed_on, fork_takes_what_threads_write) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  constexpr int kLines = 400;
  std::atomic<int> wrong{0};
  std::thread writer([&] {
    for (int i = 0; i < kLines; ++i) wrong += write(fd, "parent\n", 7) != 7;
  });
  for (int i = 0; i < 10; ++i) {
    const pid_t child = fork();
    if (child == 0) _exit(write(fd, "child.\n", 7) == 7 ? 0 : 1);
    int status = -1;
    waitpid(child, &status, 0);
    wrong += status != 0;
  }
  writer.join();
  EQ(wrong.load(), 0);
  EQ(size("f"), 7 * (kLines + 10));
  EQ(content("f").find("p\n"), std::string::npos);
}

namespace {

int log_fd = -1;
volatile sig_atomic_t handled = 0;
volatile sig_atomic_t begun = 0;

// Not more often than the program writes: where a write takes longer than the timer it would never get its
// turn.
void log_signal(int) {
  if (handled > begun) return;
  const int before = errno;
  handled = handled + (write(log_fd, "handler\n", 8) == 8);
  errno = before;
}

}  // namespace

CASE(handed_on, signal_handler_writes_in_the_middle) {
  const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0644));
  log_fd = fd;
  struct sigaction action {};
  action.sa_handler = log_signal;
  OK(sigaction(SIGALRM, &action, nullptr));
  itimerval every{{0, 500}, {0, 500}};
  OK(setitimer(ITIMER_REAL, &every, nullptr));
  int wrong = 0;
  constexpr int kLines = 3000;
  while (begun < kLines) {
    wrong += write(fd, "program\n", 8) != 8;
    begun = begun + 1;
  }
  every = {};
  OK(setitimer(ITIMER_REAL, &every, nullptr));
  EQ(wrong, 0);
  const std::string text = content("f");
  size_t programs = 0, handlers = 0;
  for (size_t at = 0; at + 8 <= text.size(); at += 8) {
    programs += text.compare(at, 8, "program\n") == 0;
    handlers += text.compare(at, 8, "handler\n") == 0;
  }
  EQ(programs, size_t{kLines});
  CHECK(handlers == static_cast<size_t>(handled) && text.size() == 8 * (programs + handlers));
}
