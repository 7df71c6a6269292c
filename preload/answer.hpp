// How hooks answer the program.
#pragma once

#include <pthread.h>
#include <time.h>

#include <cerrno>
#include <type_traits>

#include "fastpath/wire.hpp"
#include "preload/fd_table.hpp"
#include "preload/paths.hpp"
#include "preload/process.hpp"
#include "preload/sys.hpp"

namespace poly {

// A system call's way of saying it: -1 and errno for -errno. errno is untouched by success.
inline long answer(long result) {
  if (result >= 0) return result;
  errno = static_cast<int>(-result);
  return -1;
}

// What the kernel says of a path that was left to it. It cannot move a directory that somebody moved by the
// fast path among its own names while anybody renames on that mount: then it says ESTALE (__d_unalias,
// fs/dcache.c, tries a lock and does not wait), and a moment later it can.
template <typename Call>
auto left_to_kernel(Call call) {
  constexpr int kTries = 8;
  auto result = call();
  const auto failed = [&] {
    if constexpr (std::is_pointer_v<decltype(result)>)
      return result == nullptr;
    else
      return result == -1;
  };
  for (int i = 0; i < kTries && failed() && errno == ESTALE && process::on(); ++i) {
    const timespec moment{0, 200'000 << i};
    (void)sys::call(SYS_nanosleep, sys::word(&moment), 0);
    result = call();
  }
  return result;
}

}  // namespace poly

// Returns from the hook, which answers a TYPE, what the library says; goes on to the real function when that
// is kDeclined.
#define POLY_SERVE(type, call)                                                       \
  do {                                                                               \
    const long result_ = (call);                                                     \
    if (result_ != poly::kDeclined) return static_cast<type>(poly::answer(result_)); \
  } while (false)

// The same for a function about a path: others cost one look at where it begins.
#define POLY_SERVE_PATH(type, directory, path, call)                \
  do {                                                              \
    if (poly::may_be_ours(directory, path)) POLY_SERVE(type, call); \
  } while (false)

// The same for a function about a descriptor: other descriptors cost one look at the table.
#define POLY_SERVE_FD(type, fd, call)                      \
  do {                                                     \
    if (poly::fds::is_library(fd)) POLY_SERVE(type, call); \
  } while (false)

// And for one that is a cancellation point (pthreads(7)). The fast path never blocks for long, so one look at
// the beginning is enough.
#define POLY_SERVE_IO(fd, call)      \
  do {                               \
    if (poly::fds::is_library(fd)) { \
      pthread_testcancel();          \
      POLY_SERVE(ssize_t, call);     \
    }                                \
  } while (false)

// Another exported name of the same function.
#define POLY_ALIAS(name, target)                                   \
  extern "C" __attribute__((visibility("default"), alias(#target), \
                            copy(target))) decltype(target) poly_alias_##name __asm__(#name);
