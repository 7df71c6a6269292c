// Session: this process's attachment to one filesystem service, made when it is first needed and made again,
// for the same open files, after the process's credentials have changed.
//
// Lock order: OpenFile::position, then `sessions::lock` (attaching and proving, mounts.cpp), which is held
// with signals blocked, then the front driver's own lock, then `proving`. No call takes any of them unless
// the session or a mount is not ready.
#pragma once

#include <atomic>
#include <cstdint>

#include "fastpath/front_driver.hpp"
#include "preload/thread_lock.hpp"

namespace poly {

class Session {
 public:
  // A call may run. `as_now`: it is judged by the process's present credentials, so the service must know
  // them. False: the kernel's.
  [[nodiscard]] bool ready(bool as_now) {
    const uint32_t known = credentials_.load(std::memory_order_acquire);
    return (known != 0 && (!as_now || known == wanted())) || attach_again(as_now);
  }

  FrontDriver& driver() { return driver_; }
  uint32_t service() const { return service_; }

  // With sessions::lock held. 0 or -errno.
  [[nodiscard]] int attach();
  // 0 or -errno, errno of the service's answer included.
  [[nodiscard]] int prove(uint32_t instance, int root_fd, AttachProven& out);

  void begin(uint32_t service) { service_ = service; }
  void forget();
  // The descriptors of the driver are at other numbers now.
  void guard_descriptors();

 private:
  static uint32_t wanted();
  static void returned(void* self);
  bool attach_again(bool as_now);

  FrontDriver driver_;
  uint32_t service_ = 0;
  std::atomic<uint32_t> credentials_{0};  // of the attachment (process::credentials); 0: not attached
  ThreadLock proving_;                    // one conversation on the attach socket at a time
  uint64_t not_before_ms_ = 0;            // after a refusal: not asked again at once
  uint32_t refused_credentials_ = 0;
};

namespace sessions {

extern ThreadLock lock;
// The session with a service, attached or not; null when there are too many. With `lock` held.
Session* of(uint32_t service);
// Before the program puts something of its own at `fd`.
void make_way(int fd);
void forget_all();

}  // namespace sessions
}  // namespace poly
