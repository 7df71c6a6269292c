// Closer: a thread that does nothing but close descriptors that came from strangers.
//
// close(2) is a call whose time a stranger can decide: of a file inside a FUSE mount it waits for that
// mount's FLUSH, of a socket for as long as SO_LINGER says. Who serves others hands such descriptors here.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "fastpath/fd.hpp"

namespace poly {

class Closer {
 public:
  // Starts the thread. It ends when the Closer has gone and everything is closed.
  Closer();
  ~Closer();
  Closer(const Closer&) = delete;
  Closer& operator=(const Closer&) = delete;

  void close(Fd fd);
  void close(std::vector<Fd> fds);

  // Descriptors handed over and not closed yet: they still count against RLIMIT_NOFILE.
  [[nodiscard]] std::size_t pending() const { return state_->pending.load(std::memory_order_relaxed); }

 private:
  // The thread's, too: it may be held up for longer than the Closer is there.
  struct State {
    std::mutex mutex;
    std::condition_variable wake;
    std::vector<Fd> queue;  // guarded by mutex
    bool over = false;      // guarded by mutex
    std::atomic<std::size_t> pending{0};
  };
  static void run(State& state);

  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace poly
