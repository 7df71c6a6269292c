#include "preload/session.hpp"

#include <string.h>
#include <time.h>

#include <new>

#include "preload/counters.hpp"
#include "preload/mounts.hpp"
#include "preload/own_fds.hpp"
#include "preload/process.hpp"

namespace poly {
namespace {

constexpr uint64_t kRetryMs = 1000;

uint64_t now_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1'000'000;
}

// <attach directory>/service-N.sock
struct SocketPath {
  char text[process::kMaxAttach + 32];
  explicit SocketPath(uint32_t service) {
    size_t size = strlen(process::attach_directory);
    memcpy(text, process::attach_directory, size);
    memcpy(text + size, "/service-", 9);
    size += 9;
    char digits[12];
    int count = 0;
    do digits[count++] = static_cast<char>('0' + service % 10);
    while ((service /= 10) != 0);
    while (count > 0) text[size++] = digits[--count];
    memcpy(text + size, ".sock", 6);
  }
};

// Never destroyed: threads may run while the process exits.
alignas(Session) unsigned char storage[own_fds::kMaxSessions][sizeof(Session)];
std::atomic<int> used{0};

Session& at(int index) {
  return *std::launder(reinterpret_cast<Session*>(storage[index]));
}

}  // namespace

uint32_t Session::wanted() {
  return process::credentials.load(std::memory_order_relaxed);
}

// With the old attachment calls on open files still run when the service refuses the new credentials.
bool Session::attach_again(bool as_now) {
  SignalsBlocked blocked;
  ThreadLockHold hold(sessions::lock);
  if (attach() == 0 || (!as_now && credentials_.load() != 0)) return true;
  count(Decline::no_service);
  return false;
}

int Session::attach() {
  const uint32_t now = wanted();
  if (credentials_.load() == now) return 0;
  if (refused_credentials_ == now && now_ms() < not_before_ms_) return -EAGAIN;
  if (!process::watch_forks()) return -ENOSYS;
  const int before = errno;
  const int result = driver_.attach(SocketPath(service_).text);
  errno = before;
  if (result != 0) {
    refused_credentials_ = now;
    not_before_ms_ = now_ms() + kRetryMs;
    return result;
  }
  driver_.on_return(returned, this);
  guard_descriptors();
  credentials_.store(now, std::memory_order_release);
  return 0;
}

int Session::prove(uint32_t instance, int root_fd, AttachProven& out) {
  ThreadLockHold hold(proving_);
  const int before = errno;
  const int result = driver_.prove(instance, root_fd, out);
  errno = before;
  return result;
}

// In the middle of some call that has found the service again, with the driver's lock held.
void Session::returned(void* self) {
  auto& session = *static_cast<Session*>(self);
  session.guard_descriptors();
  mounts::prove_again(session);
}

void Session::guard_descriptors() {
  const auto index = static_cast<int>(reinterpret_cast<unsigned char(*)[sizeof(Session)]>(this) - storage);
  own_fds::set(own_fds::kFirstSession + 2 * index, driver_.socket_fd());
  own_fds::set(own_fds::kFirstSession + 2 * index + 1, driver_.memory_fd());
}

// What an attempt that failed has left, too: its request memory is not in a forked child.
void Session::forget() {
  const int before = errno;
  driver_.forget();
  errno = before;
  proving_.reset();
  not_before_ms_ = 0;
  credentials_.store(0);
  guard_descriptors();
}

namespace sessions {

ThreadLock lock;

Session* of(uint32_t service) {
  const int count = used.load();
  for (int i = 0; i < count; ++i) {
    if (at(i).service() == service) return &at(i);
  }
  if (count == own_fds::kMaxSessions) return nullptr;
  auto* session = new (storage[count]) Session;
  session->begin(service);
  used.store(count + 1);
  return session;
}

void make_way(int fd) {
  const int count = used.load();
  for (int i = 0; i < count; ++i) {
    at(i).driver().make_way(fd, own_fds::duplicate);
    at(i).guard_descriptors();
  }
}

void forget_all() {
  lock.reset();
  const int count = used.load();
  for (int i = 0; i < count; ++i) at(i).forget();
}

}  // namespace sessions
}  // namespace poly
