#include "preload/real.hpp"

#include <dlfcn.h>

#include <cerrno>

namespace poly::real {
namespace {

long not_here() {
  errno = ENOSYS;
  return -1;
}

}  // namespace

void* find(const char* name) {
  const int before = errno;
  void* found = dlsym(RTLD_NEXT, name);
  errno = before;
  return found != nullptr ? found : reinterpret_cast<void*>(&not_here);
}

}  // namespace poly::real
