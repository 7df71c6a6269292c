// Locks that belong to an open file: open file description locks (F_OFD_SETLK) and flock(2).
#include <signal.h>
#include <sys/file.h>

#include "test/conformance/suite/suite.hpp"

namespace {

int ofd(int command, int fd, short type, off_t start = 0, off_t length = 0) {
  struct flock wanted {};
  wanted.l_type = type;
  wanted.l_whence = SEEK_SET;
  wanted.l_start = start;
  wanted.l_len = length;
  return fcntl(fd, command, &wanted);
}

int ofd_lock(int fd, short type, off_t start = 0, off_t length = 0) {
  return ofd(F_OFD_SETLK, fd, type, start, length);
}

// Type and range of what stands in the way. The pid of an open file's lock is -1 on the host; through FUSE
// the kernel cannot say, so it is left out.
std::string ofd_blocker(int fd, short type, off_t start, off_t length) {
  struct flock wanted {};
  wanted.l_type = type;
  wanted.l_whence = SEEK_SET;
  wanted.l_start = start;
  wanted.l_len = length;
  if (fcntl(fd, F_OFD_GETLK, &wanted) != 0) return "<" + error_name(errno) + ">";
  if (wanted.l_type == F_UNLCK) return "free";
  return std::string(wanted.l_type == F_RDLCK ? "read " : "write ") + std::to_string(wanted.l_start) + "+" +
         std::to_string(wanted.l_len);
}

Fd opened(int flags = O_RDWR) {
  if (!exists("f")) OK(make_file("f", pattern(100)));
  return OK(open("f", flags));
}

}  // namespace

CASE(ofd_locks, two_opens_of_one_process_conflict) {
  const Fd a = opened(), b = opened();
  OK(ofd_lock(a, F_WRLCK, 0, 10));
  FAILS(EAGAIN, ofd_lock(b, F_RDLCK, 5, 10));
  OK(ofd_lock(b, F_WRLCK, 10, 10));
  EQ(ofd_blocker(b, F_WRLCK, 0, 5), "write 0+10");
  OK(ofd_lock(a, F_UNLCK, 0, 5));
  OK(ofd_lock(b, F_RDLCK, 0, 5));
  EQ(ofd_blocker(a, F_WRLCK, 0, 0), "read 0+5");
}

CASE(ofd_locks, duplicates_and_children_share) {
  const Fd a = opened(), c = opened();
  const Fd b = OK(dup(a));
  OK(ofd_lock(a, F_WRLCK));
  OK(ofd_lock(b, F_WRLCK));
  in_child([&] {
    OK(ofd_lock(a, F_WRLCK));
    FAILS(EAGAIN, ofd_lock(c, F_WRLCK));
    OK(ofd_lock(a, F_UNLCK, 0, 10));
  });
  OK(ofd_lock(c, F_WRLCK, 0, 10));
  FAILS(EAGAIN, ofd_lock(c, F_WRLCK, 10, 10));
}

CASE(ofd_locks, released_by_the_last_close) {
  Fd a = opened();
  const Fd c = opened();
  OK(ofd_lock(a, F_WRLCK));
  Fd b = OK(dup(a));
  OK(a.close());
  FAILS(EAGAIN, ofd_lock(c, F_WRLCK));
  OK(b.close());
  // Through FUSE the release may arrive a moment after close(2) returns.
  bool free_again = false;
  for (int i = 0; i < 500 && !free_again; ++i, usleep(2000)) free_again = ofd_lock(c, F_WRLCK) == 0;
  CHECK(free_again);
}

CASE(ofd_locks, closing_another_descriptor_keeps_them) {
  const Fd a = opened(), c = opened();
  OK(ofd_lock(a, F_WRLCK));
  Fd b = opened();
  OK(b.close());
  FAILS(EAGAIN, ofd_lock(c, F_WRLCK));
}

CASE(ofd_locks, outlive_the_process_that_took_them) {
  const Fd a = opened(), c = opened();
  in_child([&] { OK(ofd_lock(a, F_WRLCK)); });
  FAILS(EAGAIN, ofd_lock(c, F_WRLCK));
}

CASE(ofd_locks, conflict_with_process_locks) {
  const Fd a = opened(), b = opened();
  OK(ofd_lock(a, F_WRLCK, 0, 10));
  struct flock wanted {};
  wanted.l_type = F_WRLCK;
  wanted.l_len = 10;
  FAILS(EAGAIN, fcntl(b, F_SETLK, &wanted));
  wanted.l_start = 10;
  OK(fcntl(b, F_SETLK, &wanted));
  FAILS(EAGAIN, ofd_lock(a, F_WRLCK, 10, 1));
}

CASE(ofd_locks, wait_is_granted) {
  const Fd a = opened();
  OK(ofd_lock(a, F_WRLCK));
  SharedCounter granted;
  Process waiter([&] {
    const Fd b = OK(open("f", O_RDWR));
    OK(ofd(F_OFD_SETLKW, b, F_WRLCK));
    granted.add();
  });
  CHECK(!granted.reaches(1, 50));
  OK(ofd_lock(a, F_UNLCK));
  CHECK(granted.reaches(1, 5000));
}

CASE(ofd_locks, pid_must_be_zero) {
  const Fd a = opened();
  struct flock wanted {};
  wanted.l_type = F_WRLCK;
  wanted.l_pid = 1;
  FAILS(EINVAL, fcntl(a, F_OFD_SETLK, &wanted));
}

CASE(flock, shared_and_exclusive) {
  const Fd a = opened(), b = opened(), c = opened(O_RDONLY);
  OK(flock(a, LOCK_SH));
  OK(flock(b, LOCK_SH | LOCK_NB));
  FAILS(EWOULDBLOCK, flock(c, LOCK_EX | LOCK_NB));
  OK(flock(a, LOCK_UN));
  FAILS(EWOULDBLOCK, flock(c, LOCK_EX | LOCK_NB));
  OK(flock(b, LOCK_UN));
  OK(flock(c, LOCK_EX | LOCK_NB));
  FAILS(EWOULDBLOCK, flock(a, LOCK_SH | LOCK_NB));
}

CASE(flock, upgrade_and_downgrade) {
  const Fd a = opened(), b = opened();
  OK(flock(a, LOCK_SH));
  OK(flock(a, LOCK_EX | LOCK_NB));
  FAILS(EWOULDBLOCK, flock(b, LOCK_SH | LOCK_NB));
  OK(flock(a, LOCK_SH));
  OK(flock(b, LOCK_SH | LOCK_NB));
  FAILS(EWOULDBLOCK, flock(a, LOCK_EX | LOCK_NB));
}

CASE(flock, duplicates_and_children_share) {
  const Fd a = opened(), c = opened();
  const Fd b = OK(dup(a));
  OK(flock(a, LOCK_EX));
  OK(flock(b, LOCK_EX | LOCK_NB));
  in_child([&] { OK(flock(a, LOCK_EX | LOCK_NB)); });
  FAILS(EWOULDBLOCK, flock(c, LOCK_EX | LOCK_NB));
  OK(flock(b, LOCK_UN));
  OK(flock(c, LOCK_EX | LOCK_NB));
}

CASE(flock, unlocked_by_a_child) {
  const Fd a = opened(), c = opened();
  OK(flock(a, LOCK_EX));
  in_child([&] { OK(flock(a, LOCK_UN)); });
  OK(flock(c, LOCK_EX | LOCK_NB));
}

CASE(flock, released_by_the_last_close) {
  Fd a = opened();
  const Fd c = opened();
  OK(flock(a, LOCK_EX));
  Fd b = OK(dup(a));
  OK(a.close());
  FAILS(EWOULDBLOCK, flock(c, LOCK_EX | LOCK_NB));
  OK(b.close());
  bool free_again = false;
  for (int i = 0; i < 500 && !free_again; ++i, usleep(2000)) free_again = flock(c, LOCK_EX | LOCK_NB) == 0;
  CHECK(free_again);
}

CASE(flock, released_by_death) {
  const Fd c = opened();
  SharedCounter turn;
  Process holder([&] {
    const Fd a = open("f", O_RDWR);
    if (flock(a, LOCK_EX) == 0) turn.add();
    pause();
  });
  turn.wait_for(1);
  FAILS(EWOULDBLOCK, flock(c, LOCK_SH | LOCK_NB));
  holder.kill(SIGKILL);
  holder.wait();
  OK(flock(c, LOCK_SH));
}

CASE(flock, wait_is_granted) {
  const Fd a = opened();
  OK(flock(a, LOCK_EX));
  SharedCounter granted;
  const auto reader = [&] {
    const Fd b = OK(open("f", O_RDONLY));
    OK(flock(b, LOCK_SH));
    granted.add();
  };
  Process one(reader), two(reader);
  CHECK(!granted.reaches(1, 50));
  OK(flock(a, LOCK_UN));
  CHECK(granted.reaches(2, 5000));
}

CASE(flock, signal_interrupts_a_wait) {
  const Fd a = opened();
  OK(flock(a, LOCK_EX));
  SharedCounter about, done;
  Process waiter([&] {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    sigaction(SIGUSR1, &action, nullptr);
    const Fd b = OK(open("f", O_RDWR));
    about.add();
    FAILS(EINTR, flock(b, LOCK_EX));
    done.add();
  });
  about.wait_for(1);
  CHECK(!done.reaches(1, 50));
  while (!done.reaches(1, 20)) kill(waiter.pid(), SIGUSR1);
}

CASE(flock, killed_waiter_leaves_nothing) {
  const Fd a = opened();
  OK(flock(a, LOCK_EX));
  SharedCounter about;
  Process waiter([&] {
    const Fd b = open("f", O_RDWR);
    about.add();
    flock(b, LOCK_EX);
  });
  about.wait_for(1);
  usleep(50000);
  waiter.kill(SIGKILL);
  waiter.wait();
  OK(flock(a, LOCK_UN));
  const Fd c = opened();
  OK(flock(c, LOCK_EX));
}

// On a local filesystem the two kinds of lock know nothing of each other (flock(2)).
CASE(flock, independent_of_record_locks) {
  const Fd a = opened();
  OK(flock(a, LOCK_EX));
  in_child([] {
    const Fd b = OK(open("f", O_RDWR));
    OK(ofd_lock(b, F_WRLCK));
    FAILS(EWOULDBLOCK, flock(b, LOCK_EX | LOCK_NB));
  });
}

CASE(flock, directories_and_errors) {
  const Fd a = OK(open(".", O_RDONLY)), b = OK(open(".", O_RDONLY)), path = OK(open(".", O_PATH));
  OK(flock(a, LOCK_EX));
  FAILS(EWOULDBLOCK, flock(b, LOCK_EX | LOCK_NB));
  FAILS(EBADF, flock(path, LOCK_EX));
  FAILS(EBADF, flock(-1, LOCK_EX));
  FAILS(EINVAL, flock(a, 77));
}
