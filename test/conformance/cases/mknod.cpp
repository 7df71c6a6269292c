// mknod(2), mkfifo(3), and the special files they make.
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include "test/conformance/suite/suite.hpp"

namespace {

std::string made_mode(mode_t mask, mode_t wanted) {
  umask(mask);
  OK(mkfifo("x", wanted));
  umask(022);
  const std::string result = mode("x");
  OK(unlink("x"));
  return result;
}

sockaddr_un address_of(const char* path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  return address;
}

int bind_to(int fd, const char* path) {
  const sockaddr_un address = address_of(path);
  return bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

int connect_to(int fd, const char* path) {
  const sockaddr_un address = address_of(path);
  return connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

}  // namespace

CASE(mkfifo, mode_and_umask) {
  EQ(made_mode(0, 0755), "0755");
  EQ(made_mode(0, 0151), "0151");
  EQ(made_mode(077, 0151), "0100");
  EQ(made_mode(070, 0345), "0305");
  EQ(made_mode(0501, 0345), "0244");
}

CASE(mkfifo, callers_ids, .root = true) {
  OK(make_dir("open", 0777));
  as({65534, 65533, {65532}}, [] {
    OK(mkfifo("open/x", 0644));
    EQ(owner("open/x"), "65534:65533");
  });
}

CASE(mkfifo, stamps) {
  EQ(moved({"."}, [] { OK(mkfifo("x", 0644)); }), ".:mc");
}

CASE(mkfifo, exists) {
  for (const Kind kind : all_kinds()) {
    OK(make(kind, "x"));
    FAILS(EEXIST, mkfifo("x", 0644));
    FAILS(EEXIST, mknod("x", S_IFREG | 0644, 0));
    OK(remove_any("x"));
  }
}

CASE(mknod, every_kind_an_ordinary_user_may_make) {
  OK(mknod("file", S_IFREG | 0640, 0));
  OK(mknod("plain", 0600, 0));
  OK(mknod("fifo", S_IFIFO | 0620, 0));
  OK(mknod("socket", S_IFSOCK | 0755, 0));
  EQ(attrs("file"), attrs("file"));
  EQ(kind("file") + " " + mode("file"), "regular 0640");
  EQ(kind("plain") + " " + mode("plain"), "regular 0600");
  EQ(kind("fifo") + " " + mode("fifo"), "fifo 0600");
  EQ(kind("socket") + " " + mode("socket"), "socket 0755");
}

CASE(mknod, impossible_kinds) {
  FAILS(EPERM, mknod("d", S_IFDIR | 0755, 0));
  FAILS(EINVAL, mknod("l", S_IFLNK | 0777, 0));
  FAILS(EINVAL, mknod("x", 0170000 | 0644, 0));
}

CASE(mknod, devices, .root = true) {
  OK(mknod("char", S_IFCHR | 0640, makedev(1, 2)));
  OK(mknod("block", S_IFBLK | 0600, makedev(250, 77)));
  OK(mknod("large", S_IFCHR | 0600, makedev(4000, 1000000)));
  EQ(attrs("char"), "char 1,2 0640 0:0 nlink=1 size=0");
  EQ(attrs("block"), "block 250,77 0600 0:0 nlink=1 size=0");
  EQ(kind("large"), "char 4000,1000000");
}

CASE(mknod, devices_need_privilege) {
  if (is_root()) OK(chmod(".", 0777));
  unprivileged([] {
    FAILS(EPERM, mknod("char", S_IFCHR | 0644, makedev(1, 3)));
    FAILS(EPERM, mknod("block", S_IFBLK | 0644, makedev(7, 0)));
  });
}

CASE(mknod, null_device_works, .root = true) {
  struct statvfs st {};
  OK(statvfs(".", &st));
  if (st.f_flag & ST_NODEV) SKIP_OPTIONAL("mounted nodev");
  OK(mknod("null", S_IFCHR | 0666, makedev(1, 3)));
  const Fd fd = OK(open("null", O_RDWR));
  char byte;
  EQ(OK(write(fd, "text", 4)), 4);
  EQ(OK(read(fd, &byte, 1)), 0);
  EQ(size("null"), 0);
}

CASE(mknod, device_without_driver_is_enxio, .root = true) {
  struct statvfs st {};
  OK(statvfs(".", &st));
  if (st.f_flag & ST_NODEV) SKIP_OPTIONAL("mounted nodev");
  OK(mknod("x", S_IFCHR | 0666, makedev(4000, 7)));
  FAILS(ENXIO, open("x", O_RDONLY));
}

CASE(mknod, mknodat) {
  OK(mkdir("d", 0755));
  const Fd dir = OK(open("d", O_RDONLY | O_DIRECTORY));
  OK(mkfifoat(dir, "fifo", 0600));
  OK(mknodat(dir, "file", S_IFREG | 0600, 0));
  FAILS(EBADF, mkfifoat(-1, "fifo", 0600));
  EQ(names("d"), "fifo file");
}

CASE(fifo, carries_bytes_between_processes) {
  OK(mkfifo("fifo", 0600));
  Process writer([] {
    const Fd fd = open("fifo", O_WRONLY);
    (void)!write(fd, "through", 7);
  });
  const Fd fd = OK(open("fifo", O_RDONLY));
  char buffer[16];
  EQ(OK(read(fd, buffer, sizeof buffer)), 7);
  EQ(std::string(buffer, 7), "through");
  writer.wait();
  EQ(OK(read(fd, buffer, sizeof buffer)), 0);
  FAILS(ESPIPE, lseek(fd, 0, SEEK_SET));
}

CASE(fifo, survives_rename_and_unlink) {
  OK(mkfifo("fifo", 0600));
  const Fd reader = OK(open("fifo", O_RDONLY | O_NONBLOCK)), writer = OK(open("fifo", O_WRONLY));
  OK(rename("fifo", "other"));
  OK(unlink("other"));
  OK(write(writer, "text", 4));
  char buffer[8];
  EQ(OK(read(reader, buffer, sizeof buffer)), 4);
}

CASE(fifo, two_links_are_one_fifo) {
  OK(mkfifo("a", 0600));
  OK(link("a", "b"));
  const Fd reader = OK(open("a", O_RDONLY | O_NONBLOCK)), writer = OK(open("b", O_WRONLY | O_NONBLOCK));
  OK(write(writer, "text", 4));
  char buffer[8];
  EQ(OK(read(reader, buffer, sizeof buffer)), 4);
}

CASE(socket, bind_connect_and_talk) {
  const Fd server = OK(socket(AF_UNIX, SOCK_STREAM, 0));
  OK(bind_to(server, "sock"));
  EQ(kind("sock"), "socket");
  OK(listen(server, 1));
  const Fd client = OK(socket(AF_UNIX, SOCK_STREAM, 0));
  OK(connect_to(client, "sock"));
  const Fd accepted = OK(accept(server, nullptr, nullptr));
  OK(write(client, "hello", 5));
  char buffer[8];
  EQ(OK(read(accepted, buffer, sizeof buffer)), 5);
}

CASE(socket, bind_to_an_existing_name_is_eaddrinuse) {
  OK(make_file("f"));
  const Fd fd = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
  FAILS(EADDRINUSE, bind_to(fd, "f"));
  FAILS(ENOENT, bind_to(fd, "none/x"));
  OK(bind_to(fd, "x"));
}

CASE(socket, connect_errors) {
  OK(make_file("f"));
  OK(make(Kind::socket, "dead"));
  const Fd fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
  FAILS(ENOENT, connect_to(fd, "none"));
  FAILS(ECONNREFUSED, connect_to(fd, "f"));
  FAILS(ECONNREFUSED, connect_to(fd, "dead"));
}

CASE(socket, renamed_socket_is_reached_by_its_new_name) {
  const Fd server = OK(socket(AF_UNIX, SOCK_STREAM, 0));
  OK(bind_to(server, "a"));
  OK(listen(server, 1));
  OK(rename("a", "b"));
  const Fd client = OK(socket(AF_UNIX, SOCK_STREAM, 0));
  FAILS(ENOENT, connect_to(client, "a"));
  OK(connect_to(client, "b"));
  OK(unlink("b"));
  const Fd late = OK(socket(AF_UNIX, SOCK_STREAM, 0));
  FAILS(ENOENT, connect_to(late, "b"));
}

CASE(socket, mode_follows_umask) {
  umask(027);
  const Fd fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
  OK(bind_to(fd, "sock"));
  EQ(mode("sock"), "0750");
}

CASE(socket, connecting_needs_write_permission, .root = true) {
  const Fd server = OK(socket(AF_UNIX, SOCK_STREAM, 0));
  OK(bind_to(server, "sock"));
  OK(listen(server, 1));
  OK(chmod("sock", 0644));
  as(kAlice, [] {
    const Fd fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    FAILS(EACCES, connect_to(fd, "sock"));
  });
  OK(chmod("sock", 0666));
  as(kAlice, [] {
    const Fd fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(connect_to(fd, "sock"));
  });
}
