// Bare libcephfs: the cases of poly-bench-workload in the process that asks, by the same library, loaded the
// same way.
//
//   poly-bench-cephfs CASE CONF USER ROOT --ops N [--cache BYTES]
//
// Speaks as `poly-bench-workload --gate` does: "ready", a line of standard input, one JSON line, another line
// of input.
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "libservices/ceph/library.hpp"

namespace {

using poly::ceph::Fh;
using poly::ceph::Inode;
using poly::ceph::Library;
using poly::ceph::Statx;

constexpr size_t kSmall = 4096, kLarge = 1 << 20, kMiB = 1 << 20;

void check(int64_t result, const char* what) {
  if (result >= 0) return;
  fprintf(stderr, "poly-bench-cephfs: %s: %s\n", what, strerror(static_cast<int>(-result)));
  exit(1);
}

uint64_t now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

class Client {
 public:
  Client(const std::string& conf, const std::string& user, const std::string& root,
         const std::string& cache) {
    std::string why;
    lib_ = poly::ceph::load(why);
    if (!lib_) {
      fprintf(stderr, "poly-bench-cephfs: %s\n", why.c_str());
      exit(1);
    }
    check(lib_->create(&mount_, user.c_str()), "create");
    check(lib_->conf_read_file(mount_, conf.c_str()), conf.c_str());
    // As the libservice sets it.
    check(lib_->conf_set(mount_, "client_permissions", "false"), "client_permissions");
    check(lib_->conf_set(mount_, "client_acl_type", "posix_acl"), "client_acl_type");
    if (!cache.empty()) check(lib_->conf_set(mount_, "client_oc_size", cache.c_str()), "client_oc_size");
    check(lib_->init(mount_), "init");
    check(lib_->mount(mount_, root.c_str()), root.c_str());
    perms_ = lib_->userperm_new(0, 0, 0, nullptr);
    Inode* top;
    check(lib_->ll_lookup_root(mount_, &top), "root");
    Statx st;
    const int err =
        lib_->ll_mkdir(mount_, top, "bare", 0755, &home_, &st, poly::ceph::kStatxWanted, 0, perms_);
    if (err == -EEXIST)
      home_ = lookup(top, "bare");
    else
      check(err, "mkdir");
  }
  ~Client() {
    (void)lib_->unmount(mount_);
    (void)lib_->release(mount_);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  Inode* lookup(const char* name) { return lookup(home_, name); }
  void forget(Inode* inode) { (void)lib_->ll_forget(mount_, inode, 1); }
  Fh* open(Inode* inode, int flags) {
    Fh* file;
    check(lib_->ll_open(mount_, inode, flags, &file, perms_), "open");
    return file;
  }
  void close(Fh* file) { check(lib_->ll_close(mount_, file), "close"); }
  void make(const char* name, int flags) {
    Inode* inode;
    Fh* file;
    Statx st;
    check(lib_->ll_create(mount_, home_, name, 0644, flags | O_CREAT, &inode, &file, &st,
                          poly::ceph::kStatxWanted, 0, perms_),
          name);
    close(file);
    forget(inode);
  }
  void remove(const char* name) { check(lib_->ll_unlink(mount_, home_, name, perms_), name); }
  // As lstat(2) with a name that is not believed: the directory is asked for it.
  void stat(const char* name) { forget(lookup(name)); }
  // A file of so many bytes, open.
  Fh* filled(const char* name, size_t size, int flags) {
    Inode* inode;
    Fh* file;
    Statx st;
    check(lib_->ll_create(mount_, home_, name, 0644, O_RDWR | O_CREAT, &inode, &file, &st,
                          poly::ceph::kStatxWanted, 0, perms_),
          name);
    if (st.size != size) {
      for (size_t at = 0; at < size; at += kLarge) write(file, at, kLarge);
      check(lib_->ll_fsync(mount_, file, 1), "fsync");
    }
    close(file);
    return open(inode, O_RDWR | flags);
  }
  void read(Fh* file, size_t at, size_t size) {
    const int n = lib_->ll_read(mount_, file, static_cast<int64_t>(at), size, buffer_.data());
    check(n == static_cast<int>(size) ? 0 : n < 0 ? n : -EIO, "read");
  }
  void write(Fh* file, size_t at, size_t size) {
    const int n = lib_->ll_write(mount_, file, static_cast<int64_t>(at), size, buffer_.data());
    check(n == static_cast<int>(size) ? 0 : n < 0 ? n : -EIO, "write");
  }

 private:
  Inode* lookup(Inode* directory, const char* name) {
    Inode* found;
    Statx st;
    check(lib_->ll_lookup(mount_, directory, name, &found, &st, poly::ceph::kStatxWanted, 0, perms_), name);
    return found;
  }

  const Library* lib_ = nullptr;
  poly::ceph::Mount mount_ = nullptr;
  poly::ceph::UserPerm* perms_ = nullptr;
  Inode* home_ = nullptr;
  std::vector<char> buffer_ = std::vector<char>(kLarge, 0x5a);
};

using Operation = std::function<void(int)>;

Operation transfer(Client& client, const char* name, size_t file_size, size_t size, bool write,
                   bool sequential, int flags = 0) {
  Fh* file = client.filled(name, file_size, flags);
  return [&client, file, file_size, size, write, sequential, random = std::mt19937_64(42)](int i) mutable {
    const size_t pages = file_size / size;
    const size_t at = (sequential ? static_cast<size_t>(i) : random()) % pages * size;
    if (write)
      client.write(file, at, size);
    else
      client.read(file, at, size);
  };
}

Operation operation(Client& client, const std::string& name, int ops) {
  if (name == "fast-read4k") return transfer(client, "data-16m", 16 * kMiB, kSmall, false, false);
  if (name == "fast-write4k") return transfer(client, "data-16m", 16 * kMiB, kSmall, true, false);
  if (name == "read4k-large") return transfer(client, "data-128m", 128 * kMiB, kSmall, false, false);
  if (name == "write4k-sync") return transfer(client, "data-16m", 16 * kMiB, kSmall, true, false, O_DSYNC);
  if (name == "read1m") return transfer(client, "data", 64 * kMiB, kLarge, false, true);
  if (name == "write1m") return transfer(client, "data", 64 * kMiB, kLarge, true, true);
  if (name == "create-unlink") {
    return [&client](int i) {
      const std::string path = "new-" + std::to_string(i);
      client.make(path.c_str(), O_WRONLY | O_EXCL);
      client.remove(path.c_str());
    };
  }
  if (name == "fast-open-close") {
    client.make("small", O_WRONLY);
    return [&client](int) {
      Inode* inode = client.lookup("small");
      client.close(client.open(inode, O_RDONLY));
      client.forget(inode);
    };
  }
  if (name == "fast-stat") {
    for (int i = 0; i < ops; i++) client.make(("name-" + std::to_string(i)).c_str(), O_WRONLY);
    std::vector<int> order(static_cast<size_t>(ops));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(42));
    return [&client, order](int i) {
      client.stat(("name-" + std::to_string(order[static_cast<size_t>(i) % order.size()])).c_str());
    };
  }
  fprintf(stderr, "poly-bench-cephfs: no case named %s\n", name.c_str());
  exit(1);
}

void gate(const char* line) {
  fputs(line, stdout);
  fflush(stdout);
  int c;
  do c = getchar();
  while (c != EOF && c != '\n');
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> words;
  std::string cache;
  int ops = 0;
  for (int i = 1; i < argc; i++) {
    const std::string word = argv[i];
    if (word == "--ops" && i + 1 < argc)
      ops = atoi(argv[++i]);
    else if (word == "--cache" && i + 1 < argc)
      cache = argv[++i];
    else
      words.push_back(word);
  }
  if (words.size() != 4 || ops <= 0) {
    fprintf(stderr, "usage: poly-bench-cephfs CASE CONF USER ROOT --ops N [--cache BYTES]\n");
    return 1;
  }
  Client client(words[1], words[2], words[3], cache);
  Operation run = operation(client, words[0], ops);
  for (int i = 0; i < ops / 4; i++) run(i);
  gate("ready 0\n");
  std::vector<uint32_t> samples(static_cast<size_t>(ops));
  const uint64_t begin = now_ns();
  for (int i = 0; i < ops; i++) {
    const uint64_t from = now_ns();
    run(i);
    samples[static_cast<size_t>(i)] = static_cast<uint32_t>(std::min<uint64_t>(now_ns() - from, UINT32_MAX));
  }
  const uint64_t elapsed = now_ns() - begin;
  std::sort(samples.begin(), samples.end());
  const size_t count = samples.size();
  const double mean = std::accumulate(samples.begin(), samples.end(), 0.0) / static_cast<double>(count);
  char line[256];
  snprintf(line, sizeof line, "{\"medianNs\":%u,\"p99Ns\":%u,\"meanNs\":%.0f,\"opsPerSecond\":%.0f}\n",
           samples[count / 2], samples[count * 99 / 100], mean, ops * 1e9 / static_cast<double>(elapsed));
  gate(line);
}
