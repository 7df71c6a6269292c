// One process's subtree: the real one below its current directory and the model of it, changed together.
#pragma once

#include <sys/stat.h>

#include <vector>

#include "test/faults/workload/areas.hpp"
#include "test/faults/workload/model.hpp"

namespace faults {

struct Handle {
  int fd;
  InodePtr inode;
  bool writable;
  bool append;
};

class Tree {
 public:
  explicit Tree(Context& context) : report_(context.report), random_(context.random), plain_(context.plain) {}
  ~Tree();

  void step();
  // Compares everything: every name, attribute and byte, and every open file.
  void verify_all();

 private:
  static constexpr size_t kMostHandles = 16;
  static constexpr size_t kMostDirectories = 20;
  static constexpr size_t kLargest = 300 * 1024;

  Place any_place();
  Place existing_place();  // as any_place(), but mostly of a name that exists
  InodePtr any_directory(std::string& path);
  Handle* any_handle();
  bool has_room_for_directories() const;
  bool full() const { return handles_.size() >= kMostHandles; }
  void keep(int fd, InodePtr inode, bool writable, bool append);
  void close_handle(size_t index);

  // Names (tree_names.cpp)
  void do_mkdir();
  void do_rmdir();
  void do_create();
  void do_unlink();
  void do_rename();
  void do_link();
  void do_symlink();
  void do_tmpfile();
  // Files (tree_files.cpp)
  void do_open();
  void do_write();
  void do_read();
  void do_truncate();
  void do_punch();
  void do_copy();
  void do_map();
  void do_close();
  void do_stat();
  void do_xattr();
  void do_list();

  void verify_data(Handle&, size_t offset, size_t size);
  void verify_stat(const struct stat&, const Inode&);
  void verify_names(const std::string& path, const Inode& directory);
  void verify_below(const std::string& path, const Inode& directory);

  Reporter& report_;
  Random& random_;
  bool plain_;  // see Context
  InodePtr root_ = make_inode(Inode::Type::kDirectory, 0755);
  std::vector<Handle> handles_;
};

}  // namespace faults
