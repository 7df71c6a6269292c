// The errors that every call with a path shares, for every such call: areas are the calls, cases the errors.
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "test/conformance/suite/suite.hpp"

namespace {

struct PathCall {
  const char* area;
  int (*call)(const char* path);
  bool needs_file;      // fails with ENOENT when the last component does not exist
  bool changes_parent;  // needs write permission on the directory
};

int opened(int fd) {
  return fd < 0 ? -1 : close(fd);
}
int read_link(const char* path) {
  char buffer[PATH_MAX];
  return readlink(path, buffer, sizeof buffer) < 0 ? -1 : 0;
}
int open_dir(const char* path) {
  return opened(open(path, O_RDONLY | O_DIRECTORY));
}
int stat_it(const char* path) {
  struct stat st {};
  return stat(path, &st);
}
int lstat_it(const char* path) {
  struct stat st {};
  return lstat(path, &st);
}
int statx_it(const char* path) {
  struct statx stx {};
  return statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, &stx);
}
int statfs_it(const char* path) {
  struct statfs st {};
  return statfs(path, &st);
}

const PathCall kCalls[] = {
    {"access", [](const char* p) { return access(p, F_OK); }, true, false},
    {"chdir", [](const char* p) { return chdir(p); }, true, false},
    {"chmod", [](const char* p) { return chmod(p, 0600); }, true, false},
    {"chown", [](const char* p) { return chown(p, getuid(), getgid()); }, true, false},
    {"lchown", [](const char* p) { return lchown(p, getuid(), getgid()); }, true, false},
    {"create", [](const char* p) { return opened(open(p, O_CREAT | O_WRONLY, 0644)); }, false, true},
    {"link", [](const char* p) { return link(p, "new"); }, true, false},
    {"link_to", [](const char* p) { return link("other", p); }, false, true},
    {"mkdir", [](const char* p) { return mkdir(p, 0755); }, false, true},
    {"mkfifo", [](const char* p) { return mkfifo(p, 0644); }, false, true},
    {"mknod", [](const char* p) { return mknod(p, S_IFREG | 0644, 0); }, false, true},
    {"open", [](const char* p) { return opened(open(p, O_RDONLY)); }, true, false},
    {"opendir", open_dir, true, false},
    {"readlink", read_link, true, false},
    {"rename", [](const char* p) { return rename(p, "new"); }, true, true},
    {"rename_to", [](const char* p) { return rename("other", p); }, false, true},
    {"rmdir", [](const char* p) { return rmdir(p); }, true, true},
    {"stat", stat_it, true, false},
    {"lstat", lstat_it, true, false},
    {"statx", statx_it, true, false},
    {"statfs", statfs_it, true, false},
    {"symlink", [](const char* p) { return symlink("target", p); }, false, true},
    {"truncate", [](const char* p) { return truncate(p, 0); }, true, false},
    {"unlink", [](const char* p) { return unlink(p); }, true, true},
    {"utimensat", [](const char* p) { return utimensat(AT_FDCWD, p, nullptr, 0); }, true, false},
    {"setxattr", [](const char* p) { return setxattr(p, "user.a", "1", 1, 0); }, true, false},
    {"getxattr", [](const char* p) { return static_cast<int>(getxattr(p, "user.a", nullptr, 0)); }, true,
     false},
    {"listxattr", [](const char* p) { return static_cast<int>(listxattr(p, nullptr, 0)); }, true, false},
    {"removexattr", [](const char* p) { return removexattr(p, "user.a"); }, true, false},
};

void unchanged() {
  EQ(attrs("other"), attrs("other.too"));
}

void expect_failure(const PathCall& call, int error, const std::string& path) {
  NOTE("a path of %zu bytes: %.40s", path.size(), path.c_str());
  FAILS(error, call.call(path.c_str()));
}

// Every case finds these: a file, and another one for the calls with two paths. Writable for all, or
// fs.protected_hardlinks (proc(5)) would refuse to link it.
void prepare() {
  OK(make_file("file", "x"));
  OK(make_file("other", "y", 0666));
  OK(make_file("other.too", "y", 0666));
}

void not_a_directory(const PathCall& call) {
  for (const char* path : {"file/x", "file/.", "file/..", "fifo/x"}) expect_failure(call, ENOTDIR, path);
}

void no_such_prefix(const PathCall& call) {
  OK(symlink("nowhere", "dangling"));
  for (const char* path : {"none/x", "dangling/x", "none/../file"}) expect_failure(call, ENOENT, path);
}

void no_such_file(const PathCall& call) {
  OK(mkdir("dir", 0755));
  for (const char* path : {"none", "dir/none", "./none"}) expect_failure(call, ENOENT, path);
  expect_failure(call, ENOENT, "");
}

void empty_path(const PathCall& call) {
  expect_failure(call, ENOENT, "");
}

// NAME_MAX is 255 on every filesystem we serve; a longer component fails wherever it stands.
void name_too_long(const PathCall& call) {
  const std::string name(256, 'n');
  expect_failure(call, ENAMETOOLONG, name);
  expect_failure(call, ENAMETOOLONG, "./" + name);
  expect_failure(call, ENAMETOOLONG, name + "/x");
}

// path_resolution(7): PATH_MAX, 4096, counts the terminating null byte.
void path_too_long(const PathCall& call) {
  std::string path;
  while (path.size() < PATH_MAX - 1) path += "./";
  path.resize(PATH_MAX - 4);
  expect_failure(call, ENAMETOOLONG, path + "file");
  expect_failure(call, ENAMETOOLONG, std::string(2 * PATH_MAX, '/') + "file");
}

void search_denied(const PathCall& call) {
  OK(mkdir("locked", 0755));
  OK(make_file("locked/x", "x"));
  OK(mkdir("locked/sub", 0755));
  OK(chmod("locked", 0666));
  unprivileged([&] {
    for (const char* path : {"locked/x", "locked/sub", "locked/none"}) expect_failure(call, EACCES, path);
  });
  OK(chmod("locked", 0755));
  EQ(names("locked"), "sub x");
}

void write_denied(const PathCall& call) {
  OK(mkdir("fixed", 0755));
  if (call.needs_file) {
    OK(call.area == std::string("rmdir") ? mkdir("fixed/x", 0777) : make_file("fixed/x", "x", 0666));
  }
  OK(chmod("fixed", 0555));
  if (is_root()) OK(chmod(".", 0777));
  unprivileged([&] { expect_failure(call, EACCES, "fixed/x"); });
  EQ(names("fixed"), call.needs_file ? "x" : "");
}

void too_many_links(const PathCall& call) {
  OK(symlink("loop2", "loop1"));
  OK(symlink("loop1", "loop2"));
  expect_failure(call, ELOOP, "loop1/x");
  expect_failure(call, ELOOP, "./loop2/x/y");
}

void bad_address(const PathCall& call) {
  FAILS(EFAULT, call.call(reinterpret_cast<const char*>(1)));
}

struct Registrar {
  Registrar() {
    for (const PathCall& call : kCalls) {
      add(call, "enotdir_in_prefix", [](const PathCall& c) {
        OK(mkfifo("fifo", 0644));
        not_a_directory(c);
      });
      add(call, "enoent_in_prefix", no_such_prefix);
      add(call, call.needs_file ? "enoent" : "enoent_of_empty_path",
          call.needs_file ? no_such_file : empty_path);
      add(call, "enametoolong_name", name_too_long);
      add(call, "enametoolong_path", path_too_long);
      add(call, "eacces_search", search_denied);
      add(call, "eloop_in_prefix", too_many_links);
      add(call, "efault", bad_address);
      if (call.changes_parent) add(call, "eacces_write", write_denied);
    }
  }

  static void add(const PathCall& call, const char* name, void (*work)(const PathCall&)) {
    Registration(call.area, name, [&call, work] {
      prepare();
      work(call);
      unchanged();
    });
  }
};

const Registrar registrar;

}  // namespace
