// Performer: performs requests as one process with its own open files. A worker has one, in the tree under
// test; the driver has one for each worker, in the reference tree.
#pragma once

#include <string>

#include "test/fast/mixed/request.hpp"

namespace mixed {

class Performer {
 public:
  // `root`: absolute; the working directory of the process, too.
  explicit Performer(std::string root);
  ~Performer();
  Performer(const Performer&) = delete;
  Performer& operator=(const Performer&) = delete;

  Result perform(const Request& request);

 private:
  struct Name {
    int base;
    std::string path;
  };

  int fd(int slot) const { return slots_[slot]; }
  Name name(int base, const char* path) const;
  Name first(const Request& r) const { return name(r.base, r.path); }
  Name second(const Request& r) const { return name(r.base2, r.path2); }

  // perform.cpp
  int64_t open_slot(const Request& r);
  int64_t put(int slot, int fd);
  int64_t duplicate(const Request& r);
  int64_t set_append(const Request& r);
  int64_t lock_range(const Request& r);
  int64_t child_write(const Request& r);
  int64_t program_write(const Request& r);
  void on_descriptor(const Request& r, Result& out);
  // perform_data.cpp
  void on_data(const Request& r, Result& out);
  int64_t read_some(const Request& r, uint64_t& hash);
  void settle_offset(int slot);
  int64_t write_some(const Request& r);
  int64_t write_once(const Request& r);
  int64_t seek(const Request& r);
  int64_t transfer(const Request& r);
  int64_t content(const Request& r, uint64_t& hash);
  int64_t map_read(const Request& r, uint64_t& hash);
  int64_t map_write(const Request& r);
  // perform_names.cpp
  void on_names(const Request& r, Result& out);
  void on_attributes(const Request& r, Result& out);
  int64_t rename(const Name& from, const Name& to, unsigned flags);
  int64_t status(const Request& r, Attributes& out);
  int64_t set_times(const Request& r);
  int64_t list(const Request& r, Result& out);
  int64_t xattr(const Request& r, Result& out);

  const std::string root_;
  int slots_[kSlots];
};

// A call's result as Result::value.
int64_t outcome(int64_t result);
std::string bytes(uint32_t seed, int64_t size);
uint64_t hash_of(const void* data, size_t size, uint64_t so_far = 0xcbf29ce484222325);

}  // namespace mixed
