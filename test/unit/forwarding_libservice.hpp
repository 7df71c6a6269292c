// A libservice that hands every call on to the next one. Tests that want to see, delay or end calls override
// before() and after().
#pragma once

#include "libservices/libservice.hpp"

namespace rig {

using namespace poly;

class ForwardingLibservice : public Libservice {
  template <typename Call>
  auto around(Call call) {
    before();
    auto result = call();
    after();
    return result;
  }

 public:
  explicit ForwardingLibservice(Libservice& next) : next_(next) {}
  ForwardingLibservice(const ForwardingLibservice&) =
      delete;  // a chain of two is made of references to Libservice

  // Called before and after each call that may block or change something.
  virtual void before() {}
  virtual void after() {}

  int root(const char* subdirectory, Entry& out) override { return next_.root(subdirectory, out); }
  int lookup(const Caller& c, Node& d, const char* n, Entry& o) override {
    return around([&] { return next_.lookup(c, d, n, o); });
  }
  int stat(const Caller& c, Node& d, const char* n, Attr& o) override {
    return around([&] { return next_.stat(c, d, n, o); });
  }
  int getattr(Node& n, File* f, Attr& o) override {
    return around([&] { return next_.getattr(n, f, o); });
  }
  int setattr(const Caller& c, Node& n, File* f, const SetAttr& s, Attr& o) override {
    return around([&] { return next_.setattr(c, n, f, s, o); });
  }
  ssize_t readlink(Node& n, std::span<char> o) override { return next_.readlink(n, o); }
  int mknod(const Caller& c, Node& d, const char* n, mode_t m, dev_t v, Entry& o) override {
    return around([&] { return next_.mknod(c, d, n, m, v, o); });
  }
  int mkdir(const Caller& c, Node& d, const char* n, mode_t m, Entry& o) override {
    return around([&] { return next_.mkdir(c, d, n, m, o); });
  }
  int symlink(const Caller& c, Node& d, const char* n, const char* t, Entry& o) override {
    return around([&] { return next_.symlink(c, d, n, t, o); });
  }
  int link(const Caller& c, Node& n, Node& d, const char* name, Entry& o) override {
    return around([&] { return next_.link(c, n, d, name, o); });
  }
  int unlink(const Caller& c, Node& d, const char* n, const Entry& v) override {
    return around([&] { return next_.unlink(c, d, n, v); });
  }
  int rmdir(const Caller& c, Node& d, const char* n, const Entry& v) override {
    return around([&] { return next_.rmdir(c, d, n, v); });
  }
  int rename(const Caller& c, Node& d, const char* n, Node& e, const char* m, uint32_t f) override {
    return around([&] { return next_.rename(c, d, n, e, m, f); });
  }
  int create(const Caller& c, Node& d, const char* n, int f, mode_t m, Entry& o, Ref<File>& file) override {
    return around([&] { return next_.create(c, d, n, f, m, o, file); });
  }
  int tmpfile(const Caller& c, Node& d, int f, mode_t m, Entry& o, Ref<File>& file) override {
    return around([&] { return next_.tmpfile(c, d, f, m, o, file); });
  }
  int open(const Caller& c, Node& n, int f, bool restored, Ref<File>& file) override {
    return around([&] { return next_.open(c, n, f, restored, file); });
  }
  ssize_t read(File& f, uint64_t at, std::span<std::byte> o) override {
    return around([&] { return next_.read(f, at, o); });
  }
  ssize_t write(File& f, uint64_t at, std::span<const std::byte> i) override {
    return around([&] { return next_.write(f, at, i); });
  }
  int flush(File& f) override { return next_.flush(f); }
  int fsync(File& f, bool d) override { return next_.fsync(f, d); }
  int readdir(File& f, uint64_t cookie, DirSink& s) override { return next_.readdir(f, cookie, s); }
  int fallocate(File& f, uint32_t m, uint64_t at, uint64_t n) override {
    return next_.fallocate(f, m, at, n);
  }
  int64_t lseek(File& f, int64_t at, int whence) override { return next_.lseek(f, at, whence); }
  ssize_t copy_range(File& i, uint64_t from, File& o, uint64_t to, uint64_t n) override {
    return next_.copy_range(i, from, o, to, n);
  }
  int setxattr(Node& n, const char* name, std::span<const std::byte> v, int f) override {
    return around([&] { return next_.setxattr(n, name, v, f); });
  }
  ssize_t getxattr(Node& n, const char* name, std::span<std::byte> v) override {
    return around([&] { return next_.getxattr(n, name, v); });
  }
  ssize_t listxattr(Node& n, std::span<std::byte> names) override { return next_.listxattr(n, names); }
  int removexattr(Node& n, const char* name) override {
    return around([&] { return next_.removexattr(n, name); });
  }
  int statfs(Node& n, struct statvfs& o) override { return next_.statfs(n, o); }
  int syncfs(Node& n) override { return next_.syncfs(n); }
  int encode(Node& n, NodeHandle& o) override { return next_.encode(n, o); }
  int decode(const NodeHandle& h, Ref<Node>& o) override { return next_.decode(h, o); }
  Ref<Node> handle_parent(Node& n) override { return next_.handle_parent(n); }
  void all_restored() override { next_.all_restored(); }
  int lend(File& f, Loan& o) override { return next_.lend(f, o); }

  bool may_keep(File& f) override { return next_.may_keep(f); }
  bool uncached(File& f) override { return next_.uncached(f); }
  bool loses_unsynced() const override { return next_.loses_unsynced(); }

 private:
  Libservice& next_;
};

}  // namespace rig
