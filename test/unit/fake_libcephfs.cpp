// A library with libcephfs's names, none of which does anything: for tests of the loader. YOUNGER: those of
// versions after 16.2, too.
#include "libservices/ceph/library.hpp"

#define X(name, result, parameters) \
  extern "C" __attribute__((visibility("default"))) void ceph_##name() {}
POLY_CEPH_CALLS(X)
#ifdef YOUNGER
POLY_CEPH_YOUNGER_CALLS(X)
#endif
