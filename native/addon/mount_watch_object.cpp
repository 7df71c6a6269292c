#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <thread>

#include "fastpath/fd.hpp"
#include "native/addon/objects.hpp"

namespace poly {
namespace {

// Calls back when something was mounted, unmounted or remounted in this process's mount namespace. A thread
// waits in poll(2) on /proc/self/mountinfo, which reports POLLPRI|POLLERR once for each reader after a
// change, proc(5). The queue to JavaScript holds one call, so that a burst of changes is told once; a change
// that comes while the call runs is told again.
class MountWatchObject final : public Napi::ObjectWrap<MountWatchObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "MountWatch", {InstanceMethod<&MountWatchObject::close>("close")});
  }

  explicit MountWatchObject(const Napi::CallbackInfo& info) : ObjectWrap(info) {
    mountinfo_.reset(open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC));
    stop_.reset(eventfd(0, EFD_CLOEXEC));
    if (!mountinfo_ || !stop_) {
      throw_errno(info.Env(), -errno, "/proc/self/mountinfo");
      return;
    }
    changed_ = Napi::ThreadSafeFunction::New(info.Env(), info[0].As<Napi::Function>(), "poly mounts", 1, 1);
    changed_.Unref(info.Env());  // alone it does not keep the process alive
    thread_ = std::thread([this] { run(); });
  }

  ~MountWatchObject() override { end(); }

 private:
  void run() {
    for (;;) {
      pollfd watched[]{{mountinfo_.get(), POLLPRI, 0}, {stop_.get(), POLLIN, 0}};
      if (poll(watched, 2, -1) < 0 && errno != EINTR) return;
      if (watched[1].revents != 0) return;
      if (watched[0].revents == 0) continue;
      if (changed_.NonBlockingCall() == napi_closing) return;
    }
  }

  void end() {
    if (!thread_.joinable()) return;
    (void)eventfd_write(stop_.get(), 1);
    thread_.join();
  }

  Napi::Value close(const Napi::CallbackInfo& info) {
    end();
    return info.Env().Undefined();
  }

  Fd mountinfo_;
  Fd stop_;
  Napi::ThreadSafeFunction changed_;
  std::thread thread_;
};

}  // namespace

Napi::Function define_mount_watch(Napi::Env env) {
  return MountWatchObject::define(env);
}

}  // namespace poly
