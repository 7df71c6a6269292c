// The smallest test harness that serves: one program per *_test.cpp, no dependency.
//
//   TEST(name) { CHECK(condition); CHECK_EQ(actual, expected); REQUIRE(condition); }
//   CHECK_MAIN()
//
// CHECK and CHECK_EQ count, report and go on, from any thread; REQUIRE ends the program. In a forked child
// leave with _exit(): counts are per process. Random tests take their numbers from check::random(): the seed
// is printed and may be given again as POLY_SEED=n. `program [substring]` runs only the tests whose name
// contains it. The last line is `N checks` or `N checks, M failed`; the exit status says the same.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace check {

struct Test {
  const char* name;
  void (*run)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

inline std::atomic<std::uint64_t> checks{0};
inline std::atomic<std::uint64_t> failures{0};

struct Registration {
  Registration(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

inline std::uint64_t seed() {
  static const std::uint64_t value = [] {
    const char* given = std::getenv("POLY_SEED");
    return given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  }();
  return value;
}

// For the test's own thread; give other threads their own std::mt19937_64(seed() + n).
inline std::mt19937_64& random() {
  static std::mt19937_64 engine(seed());
  return engine;
}

inline void fail(const char* file, int line, const std::string& what) {
  failures.fetch_add(1);
  std::fprintf(stderr, "%s:%d: %s (seed %llu)\n", file, line, what.c_str(),
               static_cast<unsigned long long>(seed()));
}

inline bool that(bool ok, const char* file, int line, const char* what) {
  checks.fetch_add(1);
  if (!ok) fail(file, line, std::string("failed: ") + what);
  return ok;
}

template <class T>
std::string text(const T& value) {
  if constexpr (std::is_enum_v<T>) {
    return std::to_string(static_cast<long long>(value));
  } else if constexpr (requires(std::ostringstream & s) { s << value; }) {
    std::ostringstream stream;
    stream << value;
    return stream.str();
  } else {
    return "?";
  }
}

template <class A, class B>
bool same(const A& a, const B& b) {
  if constexpr (std::is_integral_v<A> && std::is_integral_v<B> && !std::is_same_v<A, bool> &&
                !std::is_same_v<B, bool>) {
    return std::cmp_equal(a, b);  // so that CHECK_EQ(size, 3) needs no cast
  } else {
    return a == b;
  }
}

template <class A, class B>
bool equal(const A& a, const B& b, const char* file, int line, const char* what) {
  checks.fetch_add(1);
  const bool ok = same(a, b);
  if (!ok) fail(file, line, std::string("failed: ") + what + ": " + text(a) + " != " + text(b));
  return ok;
}

inline int run_all(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed()));
  for (const Test& test : tests()) {
    if (argc > 1 && std::strstr(test.name, argv[1]) == nullptr) continue;
    const std::uint64_t before = failures.load();
    test.run();
    if (failures.load() != before) std::fprintf(stderr, "test %s failed\n", test.name);
  }
  const auto count = static_cast<unsigned long long>(checks.load());
  const auto failed = static_cast<unsigned long long>(failures.load());
  if (failed == 0) {
    std::printf("%llu checks\n", count);
  } else {
    std::printf("%llu checks, %llu failed\n", count, failed);
  }
  return failed == 0 ? 0 : 1;
}

}  // namespace check

#define TEST(name)                                                                   \
  static void test_##name();                                                         \
  static const ::check::Registration test_##name##_registration(#name, test_##name); \
  static void test_##name()

#define CHECK(condition) ::check::that(static_cast<bool>(condition), __FILE__, __LINE__, #condition)
#define CHECK_EQ(actual, expected) \
  ::check::equal((actual), (expected), __FILE__, __LINE__, #actual " == " #expected)
#define REQUIRE(condition)                    \
  do {                                        \
    if (!CHECK(condition)) {                  \
      std::fprintf(stderr, "cannot go on\n"); \
      std::exit(1);                           \
    }                                         \
  } while (false)

#define CHECK_MAIN()                     \
  int main(int argc, char** argv) {      \
    return ::check::run_all(argc, argv); \
  }
