// A `local` libservice over a directory that tests can also reach as the host sees it: a temporary directory,
// or the private tmpfs of `memory`; through file handles or by parent and name. Paths are relative to its
// root.
#pragma once

#include <dirent.h>
#include <sys/sysmacros.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "libservices/local/local.hpp"
#include "libservices/memory/memory.hpp"
#include "test/unit/check.hpp"

namespace rig {

using namespace poly;

class TempDir {
 public:
  TempDir() {
    char text[] = "/tmp/poly-unit-XXXXXX";
    REQUIRE(::mkdtemp(text) != nullptr);
    path = text;
  }
  ~TempDir() {
    std::error_code error;
    std::filesystem::remove_all(path, error);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  std::string path;
};

inline size_t open_fds() {
  size_t n = 0;
  DIR* dir = ::opendir("/proc/self/fd");
  while (::readdir(dir) != nullptr) n++;
  ::closedir(dir);
  return n - 3;  // ".", ".." and the directory itself
}

inline Fd open_directory(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  REQUIRE(static_cast<bool>(fd));
  return fd;
}

inline Fd duplicate(int fd) {
  return Fd(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

// The keeper's part. Deaf once its service is dead: what a destructor says then, a killed process would not
// have said.
class FakeParking final : public ParkingLot {
 public:
  int park(const std::string& name, int fd) override {
    std::lock_guard guard(lock_);
    if (deaf) return 0;
    if (refuse != 0) return refuse;
    parked_[name] = duplicate(fd);
    return 0;
  }
  void drop(const std::string& name) override {
    std::lock_guard guard(lock_);
    if (!deaf) parked_.erase(name);
  }
  size_t size() {
    std::lock_guard guard(lock_);
    return parked_.size();
  }
  std::vector<ParkedFd> contents() {
    std::lock_guard guard(lock_);
    std::vector<ParkedFd> all;
    for (auto& [name, fd] : parked_) all.push_back({name, duplicate(fd.get())});
    return all;
  }
  std::atomic<bool> deaf{false};
  std::atomic<int> refuse{0};

 private:
  std::mutex lock_;
  std::map<std::string, Fd> parked_;  // guarded by lock_
};

struct Where {
  const char* name;
  bool memory;
  bool handles;
};
inline constexpr Where kEverywhere[]{{"directory by handle", false, true},
                                     {"directory by name", false, false},
                                     {"memory by handle", true, true},
                                     {"memory by name", true, false}};

// Names and types as readdir gave them, and the cookie after each.
class Listing final : public DirSink {
 public:
  explicit Listing(size_t room = SIZE_MAX) : room_(room) {}
  bool add(const DirEntry& entry) override {
    if (names.size() == room_) return false;
    names.emplace_back(entry.name);
    cookies.push_back(entry.next);
    types.push_back(entry.type);
    return true;
  }
  std::vector<std::string> names;
  std::vector<uint64_t> cookies;
  std::vector<uint8_t> types;

 private:
  size_t room_;
};

struct LocalRig {
  explicit LocalRig(Where where, size_t path_fds = 1024, uint64_t size = 0)
      : where(where), path_fds(path_fds) {
    if (where.memory) {
      MemoryOptions options;
      options.size = size;
      REQUIRE(make_memory(options, host_root) == 0);
    } else {
      temp = std::make_unique<TempDir>();
      REQUIRE(::chmod(temp->path.c_str(), 0755) == 0);
      host_root = open_directory(temp->path);
    }
    start();
  }
  ~LocalRig() { stop(); }

  void start() {
    LocalOptions options;
    options.parking_prefix = "park/";
    options.parking = &parking;
    options.handles = handles;
    options.parked = parking.contents();
    options.path_fds = path_fds;
    options.use_handles = where.handles;
    options.read_fds = read_fds;
    parking.deaf = false;
    REQUIRE(Local::create(duplicate(host_root.get()), std::move(options), fs) == 0);
    CHECK_EQ(fs->uses_handles(), where.handles);
    Entry entry;
    REQUIRE(fs->root("", entry) == 0);
    root = std::move(entry.node);
  }
  // As a SIGKILL would: the keeper hears nothing more.
  void stop() {
    parking.deaf = true;
    root = nullptr;
    fs = nullptr;
  }

  std::string host(const std::string& path) const {
    return "/proc/self/fd/" + std::to_string(host_root.get()) + "/" + path;
  }
  struct stat host_stat(const std::string& path) const {
    struct stat st {};
    if (::lstat(host(path).c_str(), &st) != 0) st.st_nlink = 0;
    return st;
  }
  bool host_exists(const std::string& path) const { return host_stat(path).st_nlink != 0; }
  std::string host_text(const std::string& path) const {
    const Fd fd(::open(host(path).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    if (!fd) return "E" + std::to_string(errno);
    std::string text(4096, '\0');
    text.resize(static_cast<size_t>(std::max<ssize_t>(0, ::read(fd.get(), text.data(), text.size()))));
    return text;
  }
  void host_write(const std::string& path, const std::string& text) const {
    const Fd fd(::open(host(path).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    REQUIRE(fd && ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }

  // By lookups from the root.
  int look(const std::string& path, Entry& out) {
    out.node = root;
    int err = path.empty() ? fs->getattr(*root, nullptr, out.attr) : 0;
    for (size_t at = 0; !err && at < path.size();) {
      const size_t end = std::min(path.find('/', at), path.size());
      const Ref<Node> dir = std::move(out.node);
      err = fs->lookup(caller, *dir, path.substr(at, end - at).c_str(), out);
      at = end + 1;
    }
    return err;
  }
  Ref<Node> node(const std::string& path) {
    Entry entry;
    if (!CHECK_EQ(look(path, entry), 0)) std::fprintf(stderr, "  no %s (%s)\n", path.c_str(), where.name);
    return std::move(entry.node);
  }
  Ref<Node> parent(const std::string& path) {
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? root : node(path.substr(0, slash));
  }
  static const char* leaf(const std::string& path) {
    const size_t slash = path.rfind('/');
    return path.c_str() + (slash == std::string::npos ? 0 : slash + 1);
  }

  int mkdir(const std::string& path, mode_t mode = 0755) {
    Entry entry;
    return fs->mkdir(caller, *parent(path), leaf(path), mode, entry);
  }
  Ref<File> create(const std::string& path, int flags = O_RDWR | O_EXCL, mode_t mode = 0644) {
    Entry entry;
    Ref<File> file;
    CHECK_EQ(fs->create(caller, *parent(path), leaf(path), flags, mode, entry, file), 0);
    return file;
  }
  Ref<File> open(Node& node, int flags = O_RDWR) {
    Ref<File> file;
    CHECK_EQ(fs->open(caller, node, flags, false, file), 0);
    return file;
  }
  // As the dispatcher does it: the victim is looked up first.
  int unlink(const std::string& path, bool directory = false) {
    const Ref<Node> dir = parent(path);
    Entry victim;
    if (int err = fs->lookup(caller, *dir, leaf(path), victim)) return err;
    return directory ? fs->rmdir(caller, *dir, leaf(path), victim)
                     : fs->unlink(caller, *dir, leaf(path), victim);
  }
  int rmdir(const std::string& path) { return unlink(path, true); }
  int rename(const std::string& from, const std::string& to, uint32_t flags = 0) {
    return fs->rename(caller, *parent(from), leaf(from), *parent(to), leaf(to), flags);
  }
  int link(Node& node, const std::string& path) {
    Entry entry;
    return fs->link(caller, node, *parent(path), leaf(path), entry);
  }
  ssize_t write(File& file, uint64_t offset, std::string_view text) {
    return fs->write(file, offset, std::as_bytes(std::span(text)));
  }
  std::string read(File& file, uint64_t offset = 0, size_t size = 4096) {
    std::string text(size, '\0');
    const ssize_t n = fs->read(file, offset, std::as_writable_bytes(std::span(text)));
    if (n < 0) return "E" + std::to_string(-n);
    text.resize(static_cast<size_t>(n));
    return text;
  }
  // Opens, reads, closes.
  std::string text(Node& node) {
    Ref<File> file;
    if (const int err = fs->open(caller, node, O_RDONLY, false, file)) return "E" + std::to_string(-err);
    return read(*file);
  }
  Attr attr(Node& node, File* file = nullptr) {
    Attr attr{};
    CHECK_EQ(fs->getattr(node, file, attr), 0);
    return attr;
  }
  NodeHandle handle(Node& node) {
    NodeHandle handle;
    CHECK_EQ(fs->encode(node, handle), 0);
    return handle;
  }

  Where where;
  size_t path_fds;
  size_t read_fds = 0;
  std::unique_ptr<TempDir> temp;
  Fd host_root;
  FakeParking parking;
  HandleStore* handles = nullptr;  // from the next start
  std::unique_ptr<Local> fs;
  Ref<Node> root;
  Caller caller;
};

}  // namespace rig
