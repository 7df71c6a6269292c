// Making files and looking at them. What may rightly differ between two filesystems (inode numbers, devices,
// absolute times, block counts, sizes of directories) is left out here, once, and not by each case.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

namespace suite {

// A descriptor that closes itself; converts to int, so it goes straight into calls.
class Fd {
 public:
  Fd(int fd) : fd_(fd) {}  // NOLINT: implicit by intention: Fd f = OK(open(...))
  ~Fd() { close(); }
  Fd(Fd&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Fd& operator=(Fd&&) = delete;
  operator int() const { return fd_; }  // NOLINT
  int close();                          // close(2)'s result

 private:
  int fd_;
};

enum class Kind { regular, directory, fifo, symlink, socket, block, character };
// Kinds this user can make (device nodes need root), with names for NOTE.
std::vector<Kind> all_kinds();
std::vector<Kind> all_but(std::initializer_list<Kind> unwanted);
const char* kind_name(Kind kind);
// Makes one (mode 0644, directories 0755); -1 and errno like a system call.
int make(Kind kind, const std::string& path);
int remove_any(const std::string& path);  // unlink or rmdir

// Creates or replaces a file with this content and exactly this mode, whatever the umask; 0 or -1.
int make_file(const std::string& path, const std::string& content = "", mode_t mode = 0644);
int make_dir(const std::string& path, mode_t mode = 0755);  // exactly this mode
// Whole content; "<ENOENT>" and the like when it cannot be read.
std::string content(const std::string& path);
std::string content(int fd);                                 // pread from the start
std::string pattern(std::size_t length, unsigned seed = 1);  // deterministic, not compressible to a period

// By lstat; "<ENOENT>" (or -1) when that fails.
std::string kind(const std::string& path);   // "regular", "directory", ...
std::string mode(const std::string& path);   // "04755": all twelve bits
std::string owner(const std::string& path);  // "uid:gid"
std::string attrs(const std::string& path);  // kind, mode, owner, nlink and, but for directories, size
long nlink(const std::string& path);
long long size(const std::string& path);
bool exists(const std::string& path);
bool same_file(const std::string& a, const std::string& b);  // same device and inode
std::uint64_t inode(const std::string& path);

// By fstat.
std::string mode(int fd);
std::string attrs(int fd);
long nlink(int fd);
long long size(int fd);

std::string target_of(const std::string& link);          // readlink
std::string names(const std::string& path);              // sorted names without . and .., joined by blanks
std::vector<std::string> list(const std::string& path);  // the same, unsorted
std::string here();                                      // absolute path of the case's directory

}  // namespace suite
