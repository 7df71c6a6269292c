// The words cases are written in. Each makes the call exactly as it stands in the source, writes
// "call -> result" to the transcript and says what must come of it:
//
//   OK(rename("a", "b"))                      must succeed; gives the call's result
//   FAILS(ENOENT, open("no", O_RDONLY))       must fail with that error
//   FAILS(one_of(EPERM, EACCES), ...)         any of these; which one is not compared with the reference
//   MAY_FAIL(EACCES, ...)                     success or that error; not compared
//   RECORD(...)                               no opinion, but must be as on the reference
//   EQ(size("f"), 3)                          actual value, expected value
//   CHECK(a < b)                              a condition
//   NOTE("mode %o", m)                        a line of context
//   FAIL("why")                               a failure the case found by itself
//   SKIP("why") / SKIP_OPTIONAL("why")        ends the case; see suite::skip
//
// All of them go on after a failure: one run shows everything that is wrong with a case.
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <string>
#include <type_traits>
#include <vector>

namespace suite {

struct Site {
  const char* file;
  int line;
  const char* text;
};

using Errors = std::vector<int>;
template <typename... E>
Errors one_of(E... errors) {
  return {errors...};
}

// Library calls that return an error number instead of setting errno (posix_fallocate, pthread_*).
int from_error(int error);

std::string error_name(int error);  // "ENOENT"; "0" for success

void begin(const Site& site);
void expect_error(const Site& site, int error, const Errors& allowed);
void expect_value(const Site& site, const std::string& actual, const std::string& expected);
void expect_true(const Site& site, bool value);
void record(const Site& site, int error, const std::string& value);
void note(const char* format, ...) __attribute__((format(printf, 1, 2)));
void fail(const Site& site, const std::string& why);

// Ends the case as skipped. If the reference did not skip, the target lacks something the reference has and
// the case fails; skip_optional is for what POSIX and Linux leave to each filesystem.
[[noreturn]] void skip(const std::string& reason);
[[noreturn]] void skip_optional(const std::string& reason);

// Said in front of transcript lines by processes that act as somebody else.
void set_speaker(const std::string& speaker);

// A value the compiler knows nothing about, so that it does not warn of arguments that are wrong on purpose.
template <typename T>
T hidden(T value) {
  asm volatile("" : "+r"(value));
  return value;
}

template <typename T>
bool call_failed(const T& result) {
  if constexpr (std::is_pointer_v<T>) {
    return result == nullptr || result == static_cast<T>(MAP_FAILED);
  } else {
    return result == static_cast<T>(-1);
  }
}

template <typename T>
std::string to_text(const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value ? "true" : "false";
  } else if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
    return std::to_string(value);
  } else {
    return std::string(value);
  }
}

}  // namespace suite

// The text is made by the outermost macro: passed on, an argument would arrive with its own macros expanded.
#define SUITE_CALL(text, judgement, ...)                                           \
  ([&] {                                                                           \
    [[maybe_unused]] const ::suite::Site site_{__FILE__, __LINE__, text};          \
    ::suite::begin(site_);                                                         \
    errno = 0;                                                                     \
    auto result_ = (__VA_ARGS__);                                                  \
    [[maybe_unused]] const int error_ = ::suite::call_failed(result_) ? errno : 0; \
    judgement;                                                                     \
    return result_;                                                                \
  }())

#define OK(...) SUITE_CALL(#__VA_ARGS__, ::suite::expect_error(site_, error_, {0}), __VA_ARGS__)
#define FAILS(error, ...) SUITE_CALL(#__VA_ARGS__, ::suite::expect_error(site_, error_, {error}), __VA_ARGS__)
#define MAY_FAIL(error, ...) \
  SUITE_CALL(#__VA_ARGS__, ::suite::expect_error(site_, error_, {0, error}), __VA_ARGS__)
#define RECORD(...) \
  SUITE_CALL(#__VA_ARGS__, ::suite::record(site_, error_, ::suite::to_text(result_)), __VA_ARGS__)
#define EQ(actual, ...)                                                          \
  ::suite::expect_value({__FILE__, __LINE__, #actual}, ::suite::to_text(actual), \
                        ::suite::to_text(__VA_ARGS__))
#define CHECK(...) ::suite::expect_true({__FILE__, __LINE__, #__VA_ARGS__}, static_cast<bool>(__VA_ARGS__))
#define FAIL(why) ::suite::fail({__FILE__, __LINE__, ""}, why)
#define NOTE(...) ::suite::note(__VA_ARGS__)
#define SKIP(reason) ::suite::skip(reason)
#define SKIP_OPTIONAL(reason) ::suite::skip_optional(reason)
