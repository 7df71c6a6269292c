// fcntl(2) record locks of processes: waiting (F_SETLKW), deadlocks, interruption.
#include <signal.h>

#include <memory>

#include "test/conformance/cases/record_locks.hpp"

using namespace record_locks;  // NOLINT

CASE(locks, wait_is_granted_on_unlock) {
  const Fd fd = opened();
  OK(lock(fd, F_WRLCK, 0, 10));
  SharedCounter granted;
  Process waiter([&] {
    OK(lock_wait(fd, F_WRLCK, 5, 10));
    granted.add();
  });
  CHECK(!granted.reaches(1, 100));
  OK(lock(fd, F_UNLCK, 0, 5));
  CHECK(!granted.reaches(1, 50));
  OK(lock(fd, F_UNLCK, 5, 5));
  CHECK(granted.reaches(1, 5000));
}

CASE(locks, wait_is_granted_on_close_and_on_exit) {
  const Fd fd = opened();
  SharedCounter turn, granted;
  Process holder([&] {
    OK(lock(fd, F_WRLCK));
    turn.add();
    turn.wait_for(2);
  });
  turn.wait_for(1);
  Process waiter([&] {
    OK(lock_wait(fd, F_RDLCK));
    granted.add();
  });
  CHECK(!granted.reaches(1, 50));
  turn.add();
  CHECK(granted.reaches(1, 5000));
}

CASE(locks, several_readers_are_granted_together) {
  const Fd fd = opened();
  OK(lock(fd, F_WRLCK));
  SharedCounter granted;
  const auto reader = [&] {
    OK(lock_wait(fd, F_RDLCK));
    granted.add();
    granted.wait_for(3);
  };
  Process a(reader), b(reader), c(reader);
  CHECK(!granted.reaches(1, 50));
  OK(lock(fd, F_UNLCK));
  CHECK(granted.reaches(3, 5000));
}

CASE(locks, deadlock_is_refused) {
  const Fd fd = opened();
  SharedCounter turn, refused;
  const auto party = [&](off_t first, off_t second) {
    if (lock(fd, F_WRLCK, first, 1) != 0) return;
    turn.add();
    turn.wait_for(2);
    if (lock_wait(fd, F_WRLCK, second, 1) != 0 && errno == EDEADLK) refused.add();
    lock(fd, F_UNLCK);
  };
  {
    Process a([&] { party(0, 1); }), b([&] { party(1, 0); });
  }
  EQ(refused.get(), 1);
}

CASE(locks, deadlock_of_three) {
  const Fd fd = opened();
  SharedCounter turn, refused, fine;
  const auto party = [&](off_t first, off_t second) {
    if (lock(fd, F_WRLCK, first, 1) != 0) return;
    turn.add();
    turn.wait_for(3);
    if (lock_wait(fd, F_WRLCK, second, 1) == 0) {
      fine.add();
    } else if (errno == EDEADLK) {
      refused.add();
    }
    lock(fd, F_UNLCK);
  };
  {
    Process a([&] { party(0, 1); }), b([&] { party(1, 2); }), c([&] { party(2, 0); });
  }
  EQ(refused.get(), 1);
  EQ(fine.get(), 2);
}

CASE(locks, signal_interrupts_a_wait) {
  const Fd fd = opened();
  OK(lock(fd, F_WRLCK));
  SharedCounter about, done;
  Process waiter([&] {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    sigaction(SIGUSR1, &action, nullptr);
    about.add();
    FAILS(EINTR, lock_wait(fd, F_WRLCK));
    done.add();
  });
  about.wait_for(1);
  CHECK(!done.reaches(1, 50));
  while (!done.reaches(1, 20)) kill(waiter.pid(), SIGUSR1);  // the first may come before the wait begins
  waiter.wait();
  OK(lock(fd, F_UNLCK));
  OK(lock(fd, F_WRLCK));
}

CASE(locks, killed_waiter_leaves_nothing) {
  const Fd fd = opened();
  OK(lock(fd, F_WRLCK));
  SharedCounter about;
  Process waiter([&] {
    about.add();
    (void)lock_wait(fd, F_WRLCK);
  });
  about.wait_for(1);
  usleep(50000);
  waiter.kill(SIGKILL);
  waiter.wait();
  OK(lock(fd, F_UNLCK));
  in_child([&] { OK(lock(fd, F_WRLCK)); });
}

CASE(locks, upgrade_and_downgrade) {
  const Fd fd = opened();
  OK(lock(fd, F_RDLCK, 0, 10));
  OK(lock(fd, F_WRLCK, 0, 10));
  EQ(map_of("f"), "wwwwwwwwww..........");
  SharedCounter granted;
  Process reader([&] {
    OK(lock_wait(fd, F_RDLCK, 0, 10));
    granted.add();
  });
  CHECK(!granted.reaches(1, 50));
  OK(lock(fd, F_RDLCK, 0, 10));
  CHECK(granted.reaches(1, 5000));
}

CASE(locks, contended_counter) {
  constexpr int kParties = 4, kRounds = 100;
  OK(make_file("f", "0"));
  {
    std::vector<std::unique_ptr<Process>> parties;
    for (int p = 0; p < kParties; ++p) {
      parties.push_back(std::make_unique<Process>([] {
        const Fd fd = open("f", O_RDWR);
        for (int i = 0; i < kRounds; ++i) {
          if (lock_wait(fd, F_WRLCK) != 0) return;
          const std::string next = std::to_string(std::stoi(content(static_cast<int>(fd))) + 1);
          (void)!pwrite(fd, next.data(), next.size(), 0);
          lock(fd, F_UNLCK);
        }
      }));
    }
  }
  EQ(content("f"), "400");
}
