// open(2): creation, flags, and what a descriptor then allows.
#include <signal.h>

#include "test/conformance/suite/suite.hpp"

namespace {

mode_t created_mode(mode_t mask, mode_t wanted) {
  umask(mask);
  const Fd fd = OK(open("f", O_CREAT | O_EXCL | O_WRONLY, wanted));
  umask(022);
  const mode_t result = static_cast<mode_t>(std::stoul(mode("f"), nullptr, 8));
  OK(unlink("f"));
  return result;
}

}  // namespace

CASE(open, mode_and_umask) {
  EQ(created_mode(0, 0755), 0755);
  EQ(created_mode(0, 0151), 0151);
  EQ(created_mode(077, 0151), 0100);
  EQ(created_mode(070, 0345), 0305);
  EQ(created_mode(0501, 0345), 0244);
  EQ(created_mode(0777, 0777), 0);
  EQ(created_mode(022, 0), 0);
  EQ(created_mode(0, 01644), 01644);
}

CASE(open, set_id_bits_at_creation) {
  EQ(created_mode(0, 04755), 04755);
  RECORD(created_mode(0, 02755));
  RECORD(created_mode(022, 06777));
}

CASE(open, creates_with_callers_ids, .root = true) {
  OK(make_dir("open", 0777));
  as(kBob, [] {
    const Fd fd = OK(open("open/f", O_CREAT | O_WRONLY, 0644));
    EQ(owner("open/f"), "65533:65533");
  });
  as({65534, 65533, {65532}}, [] {
    const Fd fd = OK(open("open/g", O_CREAT | O_WRONLY, 0644));
    EQ(owner("open/g"), "65534:65533");
  });
}

CASE(open, mode_zero_file_is_usable_by_its_creator) {
  if (is_root()) OK(chmod(".", 0777));
  unprivileged([] {
    const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0));
    OK(write(fd, "text", 4));
    EQ(content(static_cast<int>(fd)), "text");
    FAILS(EACCES, open("f", O_RDONLY));
    FAILS(EACCES, open("f", O_CREAT | O_WRONLY, 0));
  });
}

CASE(open, stamps_of_creation) {
  EQ(moved({"."}, [] { const Fd fd = OK(open("f", O_CREAT | O_WRONLY, 0644)); }), ".:mc");
  const Stamps made = stamps("f"), directory = stamps(".");
  CHECK(made.mtime == made.ctime);
  CHECK(directory.mtime >= made.mtime - 1000000000);
}

CASE(open, existing_file_moves_no_stamp) {
  OK(make_file("f", "text"));
  EQ(moved({"f", "."}, [] { const Fd fd = OK(open("f", O_CREAT | O_RDWR, 0600)); }), "f:- .:-");
  EQ(mode("f"), "0644");
}

CASE(open, truncation_moves_stamps) {
  OK(make_file("f", "text"));
  EQ(moved({"f", "."}, [] { const Fd fd = OK(open("f", O_WRONLY | O_TRUNC)); }), "f:mc .:-");
  EQ(size("f"), 0);
}

CASE(open, truncation_of_empty_file_moves_stamps) {
  OK(make_file("f"));
  EQ(moved({"f"}, [] { const Fd fd = OK(open("f", O_WRONLY | O_TRUNC)); }), "f:mc");
}

CASE(open, truncation_keeps_mode_and_inode) {
  OK(make_file("f", pattern(10000), 0640));
  const auto before = inode("f");
  const Fd fd = OK(open("f", O_CREAT | O_TRUNC | O_RDWR, 0777));
  CHECK(inode("f") == before);
  EQ(mode("f"), "0640");
  EQ(content("f"), "");
}

CASE(open, exclusive) {
  OK(make_file("f", "text"));
  FAILS(EEXIST, open("f", O_CREAT | O_EXCL | O_WRONLY | O_TRUNC, 0644));
  EQ(content("f"), "text");
  for (const Kind kind : all_but({Kind::regular})) {
    OK(make(kind, "x"));
    FAILS(EEXIST, open("x", O_CREAT | O_EXCL | O_RDWR, 0644));
    OK(remove_any("x"));
  }
}

CASE(open, exclusive_does_not_follow_links) {
  OK(symlink("nowhere", "dangling"));
  FAILS(EEXIST, open("dangling", O_CREAT | O_EXCL | O_WRONLY, 0644));
  FAILS(ENOENT, access("nowhere", F_OK));
}

CASE(open, creates_through_a_dangling_link) {
  OK(mkdir("d", 0755));
  OK(symlink("d/f", "link"));
  const Fd fd = OK(open("link", O_CREAT | O_WRONLY, 0644));
  EQ(kind("d/f"), "regular");
  EQ(kind("link"), "symlink");
}

CASE(open, directory_flag) {
  OK(make_file("f"));
  OK(mkdir("d", 0755));
  OK(symlink("d", "link"));
  FAILS(ENOTDIR, open("f", O_RDONLY | O_DIRECTORY));
  const Fd d = OK(open("d", O_RDONLY | O_DIRECTORY));
  const Fd link = OK(open("link", O_RDONLY | O_DIRECTORY));
  FAILS(ENOENT, open("none", O_RDONLY | O_DIRECTORY));
  FAILS(ENOTDIR, open("link", O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
}

// Since Linux 6.4; earlier kernels made a regular file.
CASE(open, directory_flag_with_creation) {
  FAILS(EINVAL, open("d", O_CREAT | O_DIRECTORY | O_RDONLY, 0755));
}

CASE(open, directory_for_writing_is_eisdir) {
  OK(mkdir("d", 0755));
  FAILS(EISDIR, open("d", O_WRONLY));
  FAILS(EISDIR, open("d", O_RDWR));
  FAILS(EISDIR, open("d", O_RDONLY | O_TRUNC));
  FAILS(EISDIR, open("d", O_WRONLY | O_TRUNC));
  FAILS(EISDIR, open("d", O_RDONLY | O_CREAT, 0644));
  FAILS(EISDIR, open(".", O_RDWR));
}

CASE(open, reading_a_directory_is_eisdir) {
  char byte;
  const Fd fd = OK(open(".", O_RDONLY));
  FAILS(EISDIR, read(fd, &byte, 1));
  FAILS(EBADF, write(fd, "x", 1));
}

CASE(open, nofollow) {
  OK(make_file("f", "text"));
  OK(symlink("f", "link"));
  FAILS(ELOOP, open("link", O_RDONLY | O_NOFOLLOW));
  FAILS(ELOOP, open("link", O_RDWR | O_CREAT | O_NOFOLLOW, 0644));
  const Fd fd = OK(open("f", O_RDONLY | O_NOFOLLOW));
  OK(mkdir("d", 0755));
  OK(make_file("d/f", "in"));
  OK(symlink("d", "dlink"));
  const Fd in = OK(open("dlink/f", O_RDONLY | O_NOFOLLOW));
  EQ(content(static_cast<int>(in)), "in");
}

CASE(open, access_modes_are_kept) {
  char byte;
  OK(make_file("f", "text"));
  const Fd r = OK(open("f", O_RDONLY)), w = OK(open("f", O_WRONLY)), both = OK(open("f", O_RDWR));
  FAILS(EBADF, write(r, "x", 1));
  FAILS(EBADF, read(w, &byte, 1));
  EQ(OK(read(both, &byte, 1)), 1);
  EQ(OK(write(both, "E", 1)), 1);
  EQ(OK(fcntl(r, F_GETFL)) & O_ACCMODE, O_RDONLY);
  EQ(OK(fcntl(w, F_GETFL)) & O_ACCMODE, O_WRONLY);
  EQ(OK(fcntl(both, F_GETFL)) & O_ACCMODE, O_RDWR);
  EQ(content("f"), "tExt");
}

// open(2): the fourth access mode checks for both permissions and gives a descriptor for neither.
CASE(open, access_mode_three) {
  char byte;
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_ACCMODE));
  FAILS(EBADF, read(fd, &byte, 1));
  FAILS(EBADF, write(fd, "x", 1));
}

CASE(open, permission_matrix, .root = true) {
  static constexpr struct {
    const char* name;
    User user;
    int shift;
  } kRoles[] = {{"owner", {1001, 1009}, 6}, {"group", {1002, 1001}, 3}, {"other", {1003, 1009}, 0}};
  static constexpr struct {
    int flags, bits;
  } kWays[] = {{O_RDONLY, 4}, {O_WRONLY, 2}, {O_RDWR, 6}, {O_RDONLY | O_TRUNC, 6}, {O_WRONLY | O_TRUNC, 2}};
  OK(make_file("f", "text"));
  OK(chown("f", 1001, 1001));
  for (const auto& role : kRoles) {
    // Only the role's own bits count: the others are the opposite.
    for (mode_t bits = 0; bits < 8; ++bits) {
      OK(chmod("f",
               static_cast<mode_t>((bits << role.shift) | (~(7u << role.shift) & 0777 & ~(bits * 0111u)))));
      as(role.user, [&] {
        for (const auto& way : kWays) {
          NOTE("%s has %o, flags %o", role.name, bits, way.flags);
          const bool allowed = (static_cast<int>(bits) & way.bits) == way.bits;
          const Fd fd = FAILS(allowed ? 0 : EACCES, open("f", way.flags));
        }
      });
    }
  }
}

CASE(open, creation_needs_a_writable_directory, .root = true) {
  OK(make_dir("d", 0755));
  as(kAlice, [] { FAILS(EACCES, open("d/f", O_CREAT | O_RDONLY, 0644)); });
  OK(chmod("d", 0777));
  as(kAlice, [] { const Fd fd = OK(open("d/f", O_CREAT | O_RDONLY, 0644)); });
  OK(chmod("d", 0755));
  as(kAlice, [] { const Fd fd = OK(open("d/f", O_CREAT | O_RDWR, 0644)); });
  OK(chmod("d", 0766));
  as(kAlice, [] { FAILS(EACCES, open("d/g", O_CREAT | O_RDONLY, 0644)); });
}

CASE(open, fifo_without_reader_is_enxio) {
  OK(mkfifo("fifo", 0644));
  FAILS(ENXIO, open("fifo", O_WRONLY | O_NONBLOCK));
  const Fd reader = OK(open("fifo", O_RDONLY | O_NONBLOCK));
  const Fd writer = OK(open("fifo", O_WRONLY | O_NONBLOCK));
}

CASE(open, socket_is_enxio) {
  OK(make(Kind::socket, "socket"));
  FAILS(ENXIO, open("socket", O_RDONLY));
  FAILS(ENXIO, open("socket", O_RDWR));
  const Fd fd = OK(open("socket", O_PATH));
}

CASE(open, running_program_is_etxtbsy) {
  OK(make_file("prog", content("/bin/sleep"), 0755));
  Process running([] { execl("./prog", "prog", "60", nullptr); });
  std::string image;
  while (image.find("/prog") == std::string::npos) {
    image = target_of("/proc/" + std::to_string(running.pid()) + "/exe");
    usleep(500);
  }
  FAILS(ETXTBSY, open("prog", O_WRONLY));
  FAILS(ETXTBSY, open("prog", O_RDWR));
  // Not open(O_RDONLY|O_TRUNC), undefined in POSIX: on FUSE the server truncates before the kernel's check.
  FAILS(ETXTBSY, truncate("prog", 10));
  CHECK(size("prog") == size("/bin/sleep"));
  const Fd fd = OK(open("prog", O_RDONLY));
  running.kill(SIGKILL);
  running.wait();
  const Fd after = OK(open("prog", O_RDWR));
}

CASE(open, program_open_for_writing_does_not_run) {
  OK(make_file("prog", "#!/bin/true\n", 0755));
  const Fd writer = OK(open("prog", O_WRONLY));
  in_child([] { FAILS(ETXTBSY, execl("./prog", "prog", nullptr)); });
}

CASE(open, trailing_slash) {
  OK(make_file("f"));
  OK(mkdir("d", 0755));
  FAILS(ENOTDIR, open("f/", O_RDONLY));
  FAILS(EISDIR, open("new/", O_CREAT | O_WRONLY, 0644));
  FAILS(ENOENT, open("new/", O_RDONLY));
  const Fd d = OK(open("d/", O_RDONLY));
  EQ(names("."), "d f");
}

CASE(open, path_only_descriptor) {
  char byte;
  OK(make_file("f", "text", 0));
  unprivileged([] { const Fd fd = OK(open("f", O_PATH)); });
  OK(chmod("f", 0644));
  const Fd fd = OK(open("f", O_PATH));
  EQ(attrs(static_cast<int>(fd)), attrs("f"));
  FAILS(EBADF, read(fd, &byte, 1));
  FAILS(EBADF, write(fd, "x", 1));
  FAILS(EBADF, fchmod(fd, 0600));
  FAILS(EBADF, ftruncate(fd, 0));
  FAILS(EBADF, fsync(fd));
  FAILS(EBADF, lseek(fd, 0, SEEK_SET));
  const Fd again = OK(open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_RDONLY));
  EQ(content(static_cast<int>(again)), "text");
}

CASE(open, path_only_symlink) {
  OK(symlink("target", "link"));
  const Fd fd = OK(open("link", O_PATH | O_NOFOLLOW));
  char buffer[64];
  EQ(OK(readlinkat(fd, "", buffer, sizeof buffer)), 6);
  struct stat st {};
  OK(fstat(fd, &st));
  CHECK(S_ISLNK(st.st_mode));
}

CASE(open, reopened_through_proc) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDONLY));
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  const Fd writer = OK(open(path.c_str(), O_WRONLY | O_TRUNC));
  OK(write(writer, "new", 3));
  EQ(content(static_cast<int>(fd)), "new");
  OK(unlink("f"));
  const Fd unlinked = OK(open(path.c_str(), O_RDWR));
  EQ(content(static_cast<int>(unlinked)), "new");
}

CASE(open, noatime_is_for_the_owner, .root = true) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDONLY | O_NOATIME));
  as(kAlice, [] { FAILS(EPERM, open("f", O_RDONLY | O_NOATIME)); });
}

CASE(open, openat_and_its_errors) {
  OK(mkdir("d", 0755));
  OK(make_file("d/f", "text"));
  const Fd dir = OK(open("d", O_RDONLY | O_DIRECTORY));
  const Fd path = OK(open("d", O_PATH));
  const Fd a = OK(openat(dir, "f", O_RDONLY)), b = OK(openat(path, "./f", O_RDONLY));
  EQ(content(static_cast<int>(b)), "text");
  FAILS(ENOTDIR, openat(a, "f", O_RDONLY));
  FAILS(EBADF, openat(-1, "f", O_RDONLY));
  FAILS(ENOENT, openat(dir, "", O_RDONLY));
  const Fd up = OK(openat(dir, "../d/f", O_RDONLY));
  const Fd absolute = OK(openat(-1, (here() + "/d/f").c_str(), O_RDONLY));
}

CASE(open, many_descriptors_of_one_file) {
  OK(make_file("f", "text"));
  std::vector<Fd> fds;
  for (int i = 0; i < 500; ++i) {
    fds.emplace_back(open("f", O_RDWR));
    if (fds.back() < 0) break;
  }
  EQ(fds.size(), 500u);
  OK(pwrite(fds.front(), "next", 4, 0));
  EQ(content(static_cast<int>(fds.back())), "next");
}

// Whether by a plain open that makes the file, or one that finds it.
CASE(open, truncation_takes_set_ids_of_what_was_there_only) {
  if (is_root()) OK(chmod(".", 0777));
  unprivileged([] {
    for (const int flags : {O_CREAT, O_CREAT | O_TRUNC, O_CREAT | O_TRUNC | O_EXCL}) {
      { const Fd fd = OK(open("f", flags | O_RDWR, 06711)); }
      EQ(mode("f"), "06711");
      { const Fd fd = OK(open("f", O_CREAT | O_TRUNC | O_RDWR, 0644)); }
      EQ(mode("f"), "0711");
      OK(unlink("f"));
    }
  });
}
