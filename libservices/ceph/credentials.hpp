// Who asks, in libcephfs's form. Its objects are made by allocation, so each thread keeps the last few.
//
// The umask is not part of it: libcephfs asks for it by callback, on the calling thread, when it makes
// something in a directory without a default ACL.
#pragma once

#include "libservices/ceph/library.hpp"
#include "libservices/libservice.hpp"

namespace poly::ceph {

// Valid on this thread until the next call for other credentials but a few.
[[nodiscard]] Perms permissions(const Library&, const Caller&);
// The service's own.
[[nodiscard]] Perms own_permissions(const Library&);

// The umask of what this thread makes while it lives.
class UmaskScope {
 public:
  explicit UmaskScope(mode_t umask) { current_ = umask; }
  ~UmaskScope() { current_ = 0; }
  UmaskScope(const UmaskScope&) = delete;
  UmaskScope& operator=(const UmaskScope&) = delete;
  static mode_t current() { return current_; }

 private:
  static inline thread_local mode_t current_ = 0;
};

}  // namespace poly::ceph
