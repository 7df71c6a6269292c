// The loader of libcephfs: what it says where the library or something in it is missing, and what it makes of
// younger versions. It loads once per process, so each test has one of its own.
#include "libservices/ceph/library.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include "test/unit/check.hpp"

using namespace poly;

namespace {

// Runs `body` in a process where `path` stands for libcephfs; whether all it checked was so.
bool with_library(const char* path, void (*body)()) {
  fflush(stdout);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    setenv("POLY_LIBCEPHFS", path, 1);
    const uint64_t before = check::failures.load();
    body();
    fflush(stdout);
    _exit(check::failures.load() == before ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool has(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos && text.find('\n') == std::string::npos;
}

}  // namespace

TEST(missing_library_is_said_with_what_to_install) {
  CHECK(with_library("/nonexistent/libcephfs.so.2", [] {
    std::string why;
    CHECK(ceph::load(why) == nullptr);
    CHECK(has(why, "install libcephfs2"));
    CHECK(has(why, "/nonexistent/libcephfs.so.2"));
  }));
}

TEST(missing_function_is_said_with_the_version_needed) {
  CHECK(with_library("libm.so.6", [] {
    std::string why;
    CHECK(ceph::load(why) == nullptr);
    CHECK(has(why, "has no ceph_version"));
    CHECK(has(why, "16.2 or later is needed"));
    // And again: half of a library is not taken for a whole one.
    why.clear();
    CHECK(ceph::load(why) == nullptr);
    CHECK(has(why, "16.2 or later is needed"));
  }));
}

TEST(younger_functions_are_there_or_not) {
  CHECK(with_library(FAKES "fake_libcephfs_16.so", [] {
    std::string why;
    const ceph::Library* library = ceph::load(why);
    REQUIRE(library != nullptr);
    CHECK(library->ll_read != nullptr);
    CHECK(library->ll_nonblocking_readv_writev == nullptr);
    CHECK(ceph::load(why) == library);
  }));
  CHECK(with_library(FAKES "fake_libcephfs_younger.so", [] {
    std::string why;
    const ceph::Library* library = ceph::load(why);
    REQUIRE(library != nullptr);
    CHECK(library->ll_nonblocking_readv_writev != nullptr);
  }));
}

CHECK_MAIN()
