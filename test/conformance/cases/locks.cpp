// fcntl(2) record locks of processes: ranges, conflicts, owners, release.
#include <signal.h>

#include "test/conformance/cases/record_locks.hpp"

using namespace record_locks;  // NOLINT

CASE(locks, split_and_merge) {
  const Fd fd = opened();
  OK(lock(fd, F_WRLCK, 0, 10));
  EQ(map_of("f"), "wwwwwwwwww..........");
  OK(lock(fd, F_UNLCK, 3, 4));
  EQ(map_of("f"), "www....www..........");
  OK(lock(fd, F_RDLCK, 2, 3));
  EQ(map_of("f"), "wwrrr..www..........");
  OK(lock(fd, F_WRLCK, 4, 4));
  EQ(map_of("f"), "wwrrwwwwww..........");
  OK(lock(fd, F_RDLCK, 0, 20));
  EQ(map_of("f"), "rrrrrrrrrrrrrrrrrrrr");
  OK(lock(fd, F_UNLCK, 0, 0));
  EQ(map_of("f"), "....................");
}

CASE(locks, neighbours_are_reported_as_one) {
  const Fd fd = opened();
  const pid_t holder = getpid();
  OK(lock(fd, F_WRLCK, 0, 5));
  OK(lock(fd, F_WRLCK, 5, 5));
  in_child([&] { EQ(blocker(fd, F_WRLCK, 0, 20, holder), "write 0+10"); });
  OK(lock(fd, F_UNLCK, 4, 2));
  in_child([&] {
    EQ(blocker(fd, F_RDLCK, 0, 3, holder), "write 0+4");
    EQ(blocker(fd, F_RDLCK, 4, 20, holder), "write 6+4");
    EQ(blocker(fd, F_RDLCK, 4, 2, holder), "free");
  });
}

CASE(locks, to_the_end_of_any_file) {
  const Fd fd = opened();
  const pid_t holder = getpid();
  OK(lock(fd, F_WRLCK, 50, 0));
  in_child([&] {
    EQ(blocker(fd, F_WRLCK, 1LL << 40, 1, holder), "write 50+0");
    EQ(blocker(fd, F_WRLCK, 0, 50, holder), "free");
  });
  OK(lock(fd, F_UNLCK, 60, 0));
  in_child([&] { EQ(blocker(fd, F_WRLCK, 0, 0, holder), "write 50+10"); });
}

CASE(locks, whence) {
  const Fd fd = opened();
  const pid_t holder = getpid();
  OK(lseek(fd, 40, SEEK_SET));
  struct flock wanted = region(F_WRLCK, -10, 5, SEEK_CUR);
  OK(fcntl(fd, F_SETLK, &wanted));
  in_child([&] { EQ(blocker(fd, F_WRLCK, 0, 0, holder), "write 30+5"); });
  OK(lock(fd, F_UNLCK));
  wanted = region(F_RDLCK, -10, 0, SEEK_END);
  OK(fcntl(fd, F_SETLK, &wanted));
  in_child([&] { EQ(blocker(fd, F_WRLCK, 0, 0, holder), "read 90+0"); });
  OK(lock(fd, F_UNLCK));
  wanted = region(F_WRLCK, 20, -10);
  OK(fcntl(fd, F_SETLK, &wanted));
  in_child([&] { EQ(blocker(fd, F_WRLCK, 0, 0, holder), "write 10+10"); });
}

CASE(locks, shared_and_exclusive) {
  const Fd fd = opened();
  OK(lock(fd, F_RDLCK, 0, 10));
  in_child([] {
    const Fd mine = OK(open("f", O_RDWR));
    OK(lock(mine, F_RDLCK, 0, 10));
    FAILS(one_of(EAGAIN, EACCES), lock(mine, F_WRLCK, 0, 10));
    OK(lock(mine, F_WRLCK, 10, 10));
  });
  OK(lock(fd, F_WRLCK, 0, 10));
  in_child([] {
    const Fd mine = OK(open("f", O_RDWR));
    FAILS(one_of(EAGAIN, EACCES), lock(mine, F_RDLCK, 9, 1));
  });
}

CASE(locks, own_locks_never_block) {
  const Fd a = opened(), b = OK(open("f", O_RDWR));
  OK(lock(a, F_WRLCK, 0, 10));
  OK(lock(b, F_WRLCK, 0, 10));
  EQ(blocker(b, F_WRLCK, 0, 10, 0), "free");
  OK(lock(b, F_UNLCK, 0, 10));
  EQ(map_of("f"), "....................");
}

CASE(locks, released_by_closing_any_descriptor) {
  const Fd fd = opened();
  OK(lock(fd, F_WRLCK, 0, 10));
  EQ(map_of("f"), "wwwwwwwwww..........");
  Fd other = OK(open("f", O_RDONLY));
  OK(other.close());
  EQ(map_of("f"), "....................");
}

CASE(locks, released_by_closing_a_duplicate) {
  const Fd fd = opened();
  OK(lock(fd, F_WRLCK, 0, 10));
  const int duplicate = OK(dup(fd));
  OK(close(duplicate));
  EQ(map_of("f"), "....................");
}

CASE(locks, released_by_exit) {
  const Fd fd = opened();
  SharedCounter turn;
  Process holder([&] {
    OK(lock(fd, F_WRLCK, 0, 10));
    turn.add();
    turn.wait_for(2);
  });
  turn.wait_for(1);
  FAILS(one_of(EAGAIN, EACCES), lock(fd, F_WRLCK, 0, 10));
  turn.add();
  holder.wait();
  OK(lock(fd, F_WRLCK, 0, 10));
}

CASE(locks, released_by_being_killed) {
  const Fd fd = opened();
  SharedCounter turn;
  Process holder([&] {
    if (lock(fd, F_WRLCK, 0, 10) == 0) turn.add();
    pause();
  });
  turn.wait_for(1);
  FAILS(one_of(EAGAIN, EACCES), lock(fd, F_RDLCK, 0, 10));
  holder.kill(SIGKILL);
  holder.wait();
  OK(lock(fd, F_RDLCK, 0, 10));
}

CASE(locks, not_inherited_by_children) {
  const Fd fd = opened();
  OK(lock(fd, F_WRLCK, 0, 10));
  in_child([&] {
    FAILS(one_of(EAGAIN, EACCES), lock(fd, F_WRLCK, 0, 10));
    OK(lock(fd, F_WRLCK, 10, 5));
  });
  EQ(map_of("f"), "wwwwwwwwww..........");
}

CASE(locks, kept_across_exec) {
  const Fd fd = opened();
  SharedCounter turn;
  int ends[2];
  OK(pipe(ends));
  Process holder([&] {
    OK(lock(fd, F_WRLCK, 0, 10));
    turn.add();
    dup2(ends[0], 0);
    close(ends[0]);
    close(ends[1]);
    execl("/bin/cat", "cat", nullptr);
  });
  turn.wait_for(1);
  usleep(30000);
  FAILS(one_of(EAGAIN, EACCES), lock(fd, F_WRLCK, 0, 10));
  OK(close(ends[1]));
  holder.wait();
  OK(lock(fd, F_WRLCK, 0, 10));
  OK(close(ends[0]));
}

CASE(locks, descriptor_mode_matters) {
  OK(make_file("f", "text"));
  const Fd reader = OK(open("f", O_RDONLY)), writer = OK(open("f", O_WRONLY)), path = OK(open("f", O_PATH));
  FAILS(EBADF, lock(reader, F_WRLCK));
  OK(lock(reader, F_RDLCK));
  FAILS(EBADF, lock(writer, F_RDLCK));
  OK(lock(writer, F_WRLCK));
  FAILS(EBADF, lock(path, F_RDLCK));
}

CASE(locks, bad_arguments) {
  const Fd fd = opened();
  FAILS(EINVAL, lock(fd, F_WRLCK, -1, 5));
  FAILS(EINVAL, lock(fd, F_WRLCK, 5, -10));
  FAILS(EINVAL, lock(fd, 77, 0, 1));
  struct flock wanted = region(F_WRLCK, 0, 1, 9);
  FAILS(EINVAL, fcntl(fd, F_SETLK, &wanted));
  FAILS(EBADF, lock(-1, F_WRLCK));
}

CASE(locks, survive_rename_and_unlink) {
  const Fd fd = opened();
  OK(lock(fd, F_WRLCK, 0, 10));
  OK(rename("f", "g"));
  EQ(map_of("g"), "wwwwwwwwww..........");
  OK(unlink("g"));
  in_child([&] { FAILS(one_of(EAGAIN, EACCES), lock(fd, F_WRLCK, 0, 10)); });
  OK(make_file("g"));
  EQ(map_of("g"), "....................");
}

CASE(locks, one_file_under_two_names) {
  const Fd fd = opened();
  OK(link("f", "g"));
  OK(lock(fd, F_WRLCK, 0, 10));
  EQ(map_of("g"), "wwwwwwwwww..........");
}

CASE(locks, lockf) {
  const Fd fd = opened();
  OK(lockf(fd, F_TLOCK, 10));
  in_child([&] { FAILS(one_of(EAGAIN, EACCES), lockf(fd, F_TEST, 10)); });
  OK(lockf(fd, F_ULOCK, 10));
  in_child([&] { OK(lockf(fd, F_TEST, 10)); });
}

CASE(locks, do_not_stop_io) {
  const Fd fd = opened();
  OK(lock(fd, F_WRLCK));
  in_child([] {
    CHECK(content("f") == pattern(100));
    OK(make_file("f", "text"));
  });
  EQ(content("f"), "text");
}
