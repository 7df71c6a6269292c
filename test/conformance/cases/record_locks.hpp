// fcntl(2) record locks of processes (F_SETLK), as the cases about them use them.
#pragma once

#include "test/conformance/suite/suite.hpp"

namespace record_locks {

inline struct flock region(short type, off_t start, off_t length, short whence = SEEK_SET) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = whence;
  lock.l_start = start;
  lock.l_len = length;
  return lock;
}

inline int lock(int fd, short type, off_t start = 0, off_t length = 0) {
  struct flock wanted = region(type, start, length);
  return fcntl(fd, F_SETLK, &wanted);
}

inline int lock_wait(int fd, short type, off_t start = 0, off_t length = 0) {
  struct flock wanted = region(type, start, length);
  return fcntl(fd, F_SETLKW, &wanted);
}

// What keeps us from locking: "free", or "read 10+5 by HOLDER".
inline std::string blocker(int fd, short type, off_t start, off_t length, pid_t holder) {
  struct flock wanted = region(type, start, length);
  if (fcntl(fd, F_GETLK, &wanted) != 0) return "<" + error_name(errno) + ">";
  if (wanted.l_type == F_UNLCK) return "free";
  return std::string(wanted.l_type == F_RDLCK ? "read " : "write ") + std::to_string(wanted.l_start) + "+" +
         std::to_string(wanted.l_len) +
         (wanted.l_pid == holder ? "" : " by a wrong pid " + std::to_string(wanted.l_pid));
}

// Bytes 0..19 as another process finds them: '.' free, 'r' or 'w' locked.
inline std::string map_of(const char* path) {
  SharedCounter cells[20];
  const pid_t holder = getpid();
  in_child([&] {
    const Fd fd = open(path, O_RDWR);
    for (int at = 0; at < 20; ++at) {
      const std::string found = blocker(fd, F_WRLCK, at, 1, holder);
      cells[at].add(found == "free" ? '.' : found[0]);
    }
  });
  std::string text;
  for (const SharedCounter& cell : cells) text += static_cast<char>(cell.get());
  return text;
}

inline Fd opened() {
  if (!exists("f")) OK(make_file("f", pattern(100)));
  return OK(open("f", O_RDWR));
}

}  // namespace record_locks
