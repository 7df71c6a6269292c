#include "test/conformance/suite/files.hpp"

#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "test/conformance/suite/actors.hpp"
#include "test/conformance/suite/expect.hpp"

namespace suite {
namespace {

std::string failure() {
  return "<" + error_name(errno) + ">";
}

std::string kind_of(const struct stat& st) {
  switch (st.st_mode & S_IFMT) {
    case S_IFREG:
      return "regular";
    case S_IFDIR:
      return "directory";
    case S_IFIFO:
      return "fifo";
    case S_IFLNK:
      return "symlink";
    case S_IFSOCK:
      return "socket";
    case S_IFBLK:
      return "block " + std::to_string(major(st.st_rdev)) + "," + std::to_string(minor(st.st_rdev));
    case S_IFCHR:
      return "char " + std::to_string(major(st.st_rdev)) + "," + std::to_string(minor(st.st_rdev));
    default:
      return "unknown";
  }
}

std::string mode_of(const struct stat& st) {
  char text[16];
  std::snprintf(text, sizeof text, "0%o", st.st_mode & 07777);
  return text;
}

std::string owner_of(const struct stat& st) {
  return std::to_string(st.st_uid) + ":" + std::to_string(st.st_gid);
}

std::string attrs_of(const struct stat& st) {
  std::string text =
      kind_of(st) + " " + mode_of(st) + " " + owner_of(st) + " nlink=" + std::to_string(st.st_nlink);
  if (!S_ISDIR(st.st_mode)) text += " size=" + std::to_string(st.st_size);
  return text;
}

int make_socket(const std::string& path) {
  const Fd fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (fd < 0) return -1;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return from_error(ENAMETOOLONG);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int result = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
  return result == 0 ? chmod(path.c_str(), 0644) : result;
}

}  // namespace

int Fd::close() {
  const int fd = fd_;
  fd_ = -1;
  return fd < 0 ? 0 : ::close(fd);
}

std::vector<Kind> all_kinds() {
  return all_but({});
}

std::vector<Kind> all_but(std::initializer_list<Kind> unwanted) {
  std::vector<Kind> kinds;
  for (const Kind kind : {Kind::regular, Kind::directory, Kind::fifo, Kind::symlink, Kind::socket,
                          Kind::block, Kind::character}) {
    const bool device = kind == Kind::block || kind == Kind::character;
    if (device && !is_root()) continue;
    if (std::find(unwanted.begin(), unwanted.end(), kind) == unwanted.end()) kinds.push_back(kind);
  }
  return kinds;
}

const char* kind_name(Kind kind) {
  static constexpr const char* kNames[] = {"regular", "directory", "fifo",     "symlink",
                                           "socket",  "block",     "character"};
  return kNames[static_cast<int>(kind)];
}

int make(Kind kind, const std::string& path) {
  switch (kind) {
    case Kind::regular:
      return make_file(path);
    case Kind::directory:
      return make_dir(path);
    case Kind::fifo:
      return mkfifo(path.c_str(), 0644);
    case Kind::symlink:
      return symlink("nowhere", path.c_str());
    case Kind::socket:
      return make_socket(path);
    case Kind::block:
      return mknod(path.c_str(), S_IFBLK | 0644, makedev(7, 250));
    case Kind::character:
      return mknod(path.c_str(), S_IFCHR | 0644, makedev(1, 3));
  }
  return from_error(EINVAL);
}

int remove_any(const std::string& path) {
  struct stat st {};
  if (lstat(path.c_str(), &st) != 0) return -1;
  return S_ISDIR(st.st_mode) ? rmdir(path.c_str()) : unlink(path.c_str());
}

int make_file(const std::string& path, const std::string& content, mode_t mode) {
  const Fd fd = open(path.c_str(), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return -1;
  std::size_t done = 0;
  while (done < content.size()) {
    const ssize_t n = write(fd, content.data() + done, content.size() - done);
    if (n < 0) return -1;
    done += static_cast<std::size_t>(n);
  }
  return fchmod(fd, mode);
}

int make_dir(const std::string& path, mode_t mode) {
  return mkdir(path.c_str(), 0700) == 0 ? chmod(path.c_str(), mode) : -1;
}

std::string content(int fd) {
  std::string text;
  char buffer[65536];
  for (;;) {
    const ssize_t n = pread(fd, buffer, sizeof buffer, static_cast<off_t>(text.size()));
    if (n < 0) return failure();
    if (n == 0) return text;
    text.append(buffer, static_cast<std::size_t>(n));
  }
}

std::string content(const std::string& path) {
  const Fd fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  return fd < 0 ? failure() : content(static_cast<int>(fd));
}

std::string pattern(std::size_t length, unsigned seed) {
  std::string text(length, '\0');
  std::uint32_t state = seed * 2654435761u + 1;
  for (char& c : text) {
    state = state * 1664525u + 1013904223u;
    c = static_cast<char>('a' + (state >> 24) % 26);
  }
  return text;
}

#define BY_LSTAT(result, failed)                    \
  struct stat st {};                                \
  if (lstat(path.c_str(), &st) != 0) return failed; \
  return result
#define BY_FSTAT(result, failed)          \
  struct stat st {};                      \
  if (fstat(fd, &st) != 0) return failed; \
  return result

std::string kind(const std::string& path) {
  BY_LSTAT(kind_of(st), failure());
}
std::string mode(const std::string& path) {
  BY_LSTAT(mode_of(st), failure());
}
std::string owner(const std::string& path) {
  BY_LSTAT(owner_of(st), failure());
}
std::string attrs(const std::string& path) {
  BY_LSTAT(attrs_of(st), failure());
}
long nlink(const std::string& path) {
  BY_LSTAT(static_cast<long>(st.st_nlink), -1);
}
long long size(const std::string& path) {
  BY_LSTAT(st.st_size, -1);
}
bool exists(const std::string& path) {
  BY_LSTAT(true, false);
}
std::uint64_t inode(const std::string& path) {
  BY_LSTAT(st.st_ino, 0);
}
std::string mode(int fd) {
  BY_FSTAT(mode_of(st), failure());
}
std::string attrs(int fd) {
  BY_FSTAT(attrs_of(st), failure());
}
long nlink(int fd) {
  BY_FSTAT(static_cast<long>(st.st_nlink), -1);
}
long long size(int fd) {
  BY_FSTAT(st.st_size, -1);
}
#undef BY_LSTAT
#undef BY_FSTAT

bool same_file(const std::string& a, const std::string& b) {
  struct stat x {
  }, y{};
  return lstat(a.c_str(), &x) == 0 && lstat(b.c_str(), &y) == 0 && x.st_dev == y.st_dev &&
         x.st_ino == y.st_ino;
}

std::string target_of(const std::string& link) {
  char buffer[PATH_MAX];
  const ssize_t n = readlink(link.c_str(), buffer, sizeof buffer);
  return n < 0 ? failure() : std::string(buffer, static_cast<std::size_t>(n));
}

std::vector<std::string> list(const std::string& path) {
  std::vector<std::string> found;
  DIR* dir = opendir(path.c_str());
  if (!dir) return {failure()};
  while (const dirent* entry = readdir(dir)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") found.push_back(name);
  }
  closedir(dir);
  return found;
}

std::string names(const std::string& path) {
  std::vector<std::string> found = list(path);
  std::sort(found.begin(), found.end());
  std::string text;
  for (const std::string& name : found) text += (text.empty() ? "" : " ") + name;
  return text;
}

std::string here() {
  char buffer[PATH_MAX];
  return getcwd(buffer, sizeof buffer) ? buffer : failure();
}

}  // namespace suite
