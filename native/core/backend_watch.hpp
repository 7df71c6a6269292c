// Looks after calls that a backend does not answer: a cluster that is away holds whoever asks it, for as long
// as it is away.
//
// Every kTick it looks at all calls under way in libservices that are watched. What has waited for kNotice is
// reported; what has waited for the libservice's op_timeout, or is there when release() is asked for, is
// answered with EIO, and from then on every call at once (LibserviceHost::released), until the threads that
// are held up in the backend have come back. Those finish into nowhere: nobody waits for them any more.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "native/core/dispatcher.hpp"

namespace poly {

// A call under way. `answered`: it has been given its EIO and is still in the backend.
struct CallUnderWay {
  uint32_t instance;
  uint64_t since;  // coarse_ns
  bool answered;
};

class BackendWatch {
 public:
  // Answers the call with EIO if it says true.
  using Judge = std::function<bool(const CallUnderWay&)>;
  // `visit`: shows all calls under way.
  BackendWatch(Dispatcher& dispatcher, std::function<void(const Judge&)> visit);
  ~BackendWatch() { stop(); }
  void stop();
  // Answers what is under way in the libservice; how many calls that were.
  size_t release(LibserviceHost& host);

 private:
  static constexpr auto kTick = std::chrono::milliseconds(250);
  static constexpr uint64_t kNotice = 3'000'000'000;
  struct Waiting {
    std::shared_ptr<LibserviceHost> host;
    uint64_t since;
  };
  void run();
  void look();

  Dispatcher& dispatcher_;
  const std::function<void(const Judge&)> visit_;
  std::mutex look_lock_;                                               // one look at a time
  std::map<LibserviceHost*, std::shared_ptr<LibserviceHost>> silent_;  // guarded by look_lock_
  std::mutex lock_;
  std::condition_variable wake_;
  bool stopping_ = false;  // guarded by lock_
  std::thread thread_;
};

}  // namespace poly
