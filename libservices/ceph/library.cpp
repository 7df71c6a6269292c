#include "libservices/ceph/library.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <mutex>

namespace poly::ceph {
namespace {

std::mutex lock;
bool loaded = false;  // guarded by lock
Library library;      // written under lock once, then constant

bool find_all(void* handle, std::string& why) {
#define X(name, result, parameters)                                                    \
  library.name = reinterpret_cast<result(*) parameters>(dlsym(handle, "ceph_" #name)); \
  if (!library.name) {                                                                 \
    why = "libcephfs.so.2 has no ceph_" #name ": version 16.2 or later is needed";     \
    return false;                                                                      \
  }
  POLY_CEPH_CALLS(X)
#undef X
#define X(name, result, parameters) \
  library.name = reinterpret_cast<result(*) parameters>(dlsym(handle, "ceph_" #name));
  POLY_CEPH_YOUNGER_CALLS(X)
#undef X
  return true;
}

}  // namespace

const Library* load(std::string& why) {
  std::lock_guard guard(lock);
  if (loaded) return &library;
  // Tests put a library of their own in its place.
  const char* other = secure_getenv("POLY_LIBCEPHFS");
  void* handle = dlopen(other ? other : "libcephfs.so.2", RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    why = std::string("the Ceph client library is missing: install libcephfs2 (") + dlerror() + ")";
    return nullptr;
  }
  if (!find_all(handle, why)) return nullptr;
  loaded = true;
  return &library;
}

}  // namespace poly::ceph
