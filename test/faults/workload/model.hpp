// What a process's subtree must look like: a filesystem in memory whose every operation answers an errno.
#pragma once

#include <sys/types.h>

#include <map>
#include <memory>
#include <string>

namespace faults {

struct Inode {
  enum class Type { kDirectory, kFile, kSymlink };
  Type type;
  mode_t mode = 0;
  unsigned links = 1;
  std::string data;  // contents, or a symlink's target
  std::map<std::string, std::string> xattrs;
  std::map<std::string, std::shared_ptr<Inode>> entries;
  Inode* parent = nullptr;  // directories

  bool is_directory() const { return type == Type::kDirectory; }
  bool is_file() const { return type == Type::kFile; }
};
using InodePtr = std::shared_ptr<Inode>;

// A name in a directory, existing or not.
struct Place {
  InodePtr directory;
  std::string name;
  std::string path;  // from the subtree's root, where the process stands

  InodePtr inode() const {
    auto it = directory->entries.find(name);
    return it == directory->entries.end() ? nullptr : it->second;
  }
};

InodePtr make_inode(Inode::Type type, mode_t mode);

// 0 after the change was made, else the errno that the call must have failed with (open(2), rename(2),
// unlink(2), ...).
int model_make(const Place&, InodePtr fresh);
int model_unlink(const Place&);
int model_rmdir(const Place&);
int model_link(const InodePtr& target, const Place&);
int model_rename(const Place& from, const Place& to, unsigned flags);

void model_write(Inode&, size_t offset, const std::string& data);

}  // namespace faults
