#include "test/fast/mixed/compare.hpp"

#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace mixed {
namespace {

std::string number(const char* what, int64_t expected, int64_t got) {
  if (expected == got) return "";
  return std::string(what) + " is " + std::to_string(got) + ", expected " + std::to_string(expected) + "; ";
}

std::string octal(uint32_t mode) {
  char text[16];
  snprintf(text, sizeof text, "%o", mode);
  return text;
}

}  // namespace

void Comparison::observe_delay(int64_t ns) {
  if (ns + 30'000'000 > tolerance_ns_) tolerance_ns_ = ns + 30'000'000;
}

std::string Comparison::times(const Attributes& expected, const Attributes& got) const {
  std::string text;
  const auto compare = [&](const char* what, int64_t a, int64_t b) {
    if (std::llabs(a - b) > tolerance_ns_) text += number(what, a, b);
  };
  compare("mtime", expected.modified_ns, got.modified_ns);
  compare("ctime", expected.changed_ns, got.changed_ns);
  return text;
}

std::string Comparison::attributes(const Attributes& expected, const Attributes& got) {
  if (expected.present == 0 || got.present == 0) return "";
  std::string text = number("nlink", static_cast<int64_t>(expected.nlink), static_cast<int64_t>(got.nlink)) +
                     number("uid", expected.uid, got.uid) + number("gid", expected.gid, got.gid) +
                     number("size", expected.size, got.size) + times(expected, got);
  if (expected.mode != got.mode)
    text += "mode is " + octal(got.mode) + ", expected " + octal(expected.mode) + "; ";
  const auto [at, fresh] = inodes_.try_emplace(expected.inode, got.inode);
  if (!fresh && at->second != got.inode) text += "another inode number than before; ";
  return text;
}

namespace {

bool renames(Operation operation) {
  return operation == Operation::rename || operation == Operation::exchange ||
         operation == Operation::noreplace;
}

// A directory that another front end has moved is for the kernel where it was until a path leads it there. By
// a descriptor of it, a rename of a directory below itself is refused all the same, but for another reason,
// if the kernel finds one before it asks the service.
bool refused_alike(const Request& r, const Result& expected, const Result& got) {
  return renames(r.operation) && (r.base >= 0 || r.base2 >= 0) && got.value < 0 &&
         (expected.value == -EINVAL || expected.value == -ENOTEMPTY);
}

}  // namespace

std::string Comparison::difference(const Request& request, const Result& expected, const Result& got) {
  std::string text = refused_alike(request, expected, got) ? "" : number("value", expected.value, got.value);
  if (expected.hash != got.hash) text += "other data; ";
  if (strcmp(expected.text, got.text) != 0)
    text += std::string("text is \"") + got.text + "\", expected \"" + expected.text + "\"; ";
  return text + attributes(expected.attributes, got.attributes);
}

std::string describe(const Request& r) {
  char text[512];
  snprintf(text, sizeof text,
           "%s slot=%d,%d path=%s%s path2=%s%s flags=%o mode=%o seed=%u offset=%lld size=%lld",
           name_of(r.operation), r.slot, r.slot2,
           r.base == kAbsolute ? "/"
           : r.base == kHere   ? ""
                               : ("[" + std::to_string(r.base) + "]").c_str(),
           r.path,
           r.base2 == kAbsolute ? "/"
           : r.base2 == kHere   ? ""
                                : ("[" + std::to_string(r.base2) + "]").c_str(),
           r.path2, static_cast<unsigned>(r.flags), r.mode, r.seed, static_cast<long long>(r.offset),
           static_cast<long long>(r.size));
  return text;
}

std::string describe(const Request& request, const Result& result) {
  std::string text = describe(request) + " -> " + std::to_string(result.value);
  if (result.value < 0) text += std::string(" (") + strerror(static_cast<int>(-result.value)) + ")";
  if (result.attributes.present != 0) {
    const Attributes& a = result.attributes;
    text += " mode " + octal(a.mode) + " nlink " + std::to_string(a.nlink) + " size " +
            std::to_string(a.size) + " mtime " + std::to_string(a.modified_ns) + " ino " +
            std::to_string(a.inode);
  }
  if (result.text[0] != '\0') text += std::string(" ") + result.text;
  return text;
}

}  // namespace mixed
