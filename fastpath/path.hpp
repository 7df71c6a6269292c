// Normalised absolute paths: the only spelling that the mount table knows.
//
// NormalPath can only be made by normalise(), so a function that takes one need not look again. It lives on
// the stack (4 KiB), allocates nothing and uses nothing beyond libc: the preload library links this.
#pragma once

#include <cstddef>
#include <string_view>

namespace poly {

// The kernel's limit (PATH_MAX is 4096 with the NUL).
inline constexpr std::size_t kMaxPathLength = 4095;

class NormalPath {
 public:
  NormalPath() { set_root(); }

  [[nodiscard]] std::string_view view() const { return {data_, size_}; }
  [[nodiscard]] const char* c_str() const { return data_; }
  // At least 8 readable zero bytes follow the path, so that it may be read in words.
  [[nodiscard]] const char* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return size_; }

  // The spelling ended in `/`, `/.` or `/..`: the kernel would insist on a directory.
  [[nodiscard]] bool wants_directory() const { return wants_directory_; }
  // A `..` was resolved in the text. Only right when what precedes it is no symbolic link: see normalise().
  [[nodiscard]] bool had_dotdot() const { return had_dotdot_; }

 private:
  friend int normalise(std::string_view path, NormalPath& out);

  void set_root();
  void append(std::string_view component);
  void remove_last();
  void terminate();

  static constexpr std::size_t kPadding = 9;  // NUL and room to read a word that begins at the NUL

  std::size_t size_;
  bool wants_directory_;
  bool had_dotdot_;
  char data_[kMaxPathLength + kPadding];
};

// Collapses `//`, `/./` and trailing slashes; `/` stays `/`. `..` removes the component before it in the text
// (and nothing at the root): mount paths come from realpath(3), which leaves none; who looks up a path from a
// program must decline one with had_dotdot(), because the kernel resolves `..` after following symbolic
// links. 0; -EINVAL when `path` is not absolute or contains a NUL byte; -ENAMETOOLONG above kMaxPathLength
// bytes as given, as the kernel has it. On error `out` is `/`.
[[nodiscard]] int normalise(std::string_view path, NormalPath& out);

}  // namespace poly
