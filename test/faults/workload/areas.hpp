// The areas of the workload: what one process does until the time is over. Each checks every result of its
// own calls.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "test/faults/workload/random.hpp"
#include "test/faults/workload/report.hpp"

namespace faults {

struct Context {
  Reporter& report;
  Random& random;
  std::string directory;  // this process's own; exists and is empty
  std::string common;     // one for all processes of the area
  std::string who;
  unsigned index;  // among the processes of the area
  bool plain;      // a filesystem with neither O_TMPFILE nor renameat2's flags
  std::function<bool()> over;
  std::atomic<uint64_t>* shared;  // kSharedWords words for all processes of the area, zero at first
};
inline constexpr size_t kSharedWords = 64;

struct Area {
  const char* name;
  const char* what;
  unsigned processes;  // by default; 0: as many as --processes says
  void (*run)(Context&);
  // Runs once in the parent when all processes are done; null: nothing to do.
  void (*verify)(Context&);
};

const std::vector<Area>& areas();

void run_tree(Context&);
void run_append(Context&);
void verify_append(Context&);
void run_lock_holder(Context&);
void run_lock_waiter(Context&);
void run_counter(Context&);
void verify_counter(Context&);
void run_victims(Context&);
void run_readdir(Context&);
void run_removed(Context&);

void sleep_ms(uint64_t ms);

}  // namespace faults
