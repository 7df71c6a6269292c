#include "preload/thread_lock.hpp"

namespace poly {
namespace {

// Initial-exec: no call, no allocation, and safe in a signal handler.
[[gnu::tls_model("initial-exec")]] thread_local uint32_t own_id = 0;

}  // namespace

uint32_t thread_id() {
  if (own_id == 0) own_id = static_cast<uint32_t>(sys::gettid());
  return own_id;
}

void forget_thread_id() {
  own_id = 0;
}

}  // namespace poly
