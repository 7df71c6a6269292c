// A case: one small function that makes ordinary libc calls in a fresh private directory (its current
// directory). Cases register themselves before main() runs, so adding one means writing it, nothing else.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace suite {

struct CaseOptions {
  bool root = false;  // needs root: becomes other users, makes device nodes or changes owners
  int seconds = 20;   // after this long the case's whole process group is killed and the case has failed
};

struct Case {
  std::string area;
  std::string name;
  std::function<void()> run;
  CaseOptions options;

  [[nodiscard]] std::string title() const { return area + "/" + name; }
};

// Every registered case, sorted by area and name: link order must not decide the order of a run.
std::vector<Case> all_cases();

struct Registration {
  Registration(std::string area, std::string name, std::function<void()> run, CaseOptions options = {});
};

}  // namespace suite

// CASE(rename, replaces_file) { ... }            an ordinary case
// CASE(chown, by_owner, .root = true) { ... }    with CaseOptions
#define CASE(area, name, ...)                                                                     \
  static void area##_##name();                                                                    \
  static const ::suite::Registration register_##area##_##name(#area, #name, area##_##name,        \
                                                              ::suite::CaseOptions{__VA_ARGS__}); \
  static void area##_##name()
