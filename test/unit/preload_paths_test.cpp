// The text of paths, as the preload library looks at it.
#include <string>

#include "fastpath/path.hpp"
#include "preload/path_text.hpp"
#include "test/unit/check.hpp"

using namespace poly;

namespace {

std::string head(const std::string& path) {
  return std::string(before_dotdot(path.c_str(), path.size()));
}

std::string rest(const std::string& path, uint32_t components) {
  return skip_components(path.c_str(), components);
}

std::string normal(const std::string& path) {
  NormalPath out;
  REQUIRE(normalise(path, out) == 0);
  return std::string(out.view());
}

std::string random_path(int components, std::string& plain, int& count) {
  static const char* const kNames[] = {"a", "bc", "...", "..x", ".h", ".", "", "long-name"};
  std::string path;
  count = 0;
  for (int i = 0; i < components; ++i) {
    const std::string name = kNames[check::random()() % std::size(kNames)];
    path += "/" + name;
    if (name.empty() || name == ".") continue;
    plain += "/" + name;
    ++count;
  }
  return path;
}

}  // namespace

TEST(head_ends_before_dotdot) {
  CHECK_EQ(head("/a/b"), "/a/b");
  CHECK_EQ(head("/a/../b"), "/a/");
  CHECK_EQ(head("/.."), "/");
  CHECK_EQ(head("/..."), "/...");
  CHECK_EQ(head("/..a/b../c"), "/..a/b../c");
  CHECK_EQ(head("/a/b/.."), "/a/b/");
  CHECK_EQ(head("//./..//a"), "//./");
}

TEST(rest_keeps_its_spelling) {
  CHECK_EQ(rest("/mnt/poly/a//b/../c/", 2), "a//b/../c/");
  CHECK_EQ(rest("//mnt/./poly/./a", 2), "a");
  CHECK_EQ(rest("/mnt/poly", 2), "");
  CHECK_EQ(rest("/mnt/poly///", 2), "");
  CHECK_EQ(rest("/mnt/poly/.", 2), "");
  CHECK_EQ(rest("/mnt/poly/./..", 2), "..");
  CHECK_EQ(rest("/a", 0), "a");
  CHECK_EQ(rest("/", 0), "");
}

TEST(prefix_and_rest_are_the_path) {
  for (int i = 0; i < 20000; ++i) {
    std::string plain;
    int count = 0;
    const std::string path = random_path(1 + static_cast<int>(check::random()() % 6), plain, count);
    const auto components = static_cast<uint32_t>(check::random()() % static_cast<unsigned>(count + 1));
    std::string prefix;
    size_t at = 0;
    for (uint32_t n = 0; n < components; ++n) {
      const size_t end = plain.find('/', at + 1);
      prefix += plain.substr(at, end - at);
      at = end;
    }
    if (!CHECK_EQ(normal(prefix + "/" + rest(path, components)), normal(path)))
      std::printf("%s\n", path.c_str());
  }
}

TEST(descriptors_by_name) {
  CHECK_EQ(named_descriptor("/proc/self/fd/7"), 7);
  CHECK_EQ(named_descriptor("/proc/thread-self/fd/12"), 12);
  CHECK_EQ(named_descriptor("/proc/123/fd/0"), 0);
  CHECK_EQ(named_descriptor("/proc/123/task/124/fd/19"), 19);
  CHECK_EQ(named_descriptor("/proc/self/task/124/fd/19"), 19);
  CHECK_EQ(named_descriptor("/dev/fd/1048575"), 1048575);
  CHECK_EQ(named_descriptor("/dev/fd/3/x"), 3);
  CHECK_EQ(named_descriptor("/dev/fd/"), -1);
  CHECK_EQ(named_descriptor("/dev/fd/12345678"), -1);
  CHECK_EQ(named_descriptor("/proc/self/fdinfo/7"), -1);
  CHECK_EQ(named_descriptor("/proc/version"), -1);
  CHECK_EQ(named_descriptor("/proc/self/fd/x"), -1);
  CHECK_EQ(named_descriptor("/d"), -1);
}

CHECK_MAIN()
