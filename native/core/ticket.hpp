// A ticket stands for messages that somebody else is sending: whoever holds it waits, with a bound, until all
// of them are out, or leaves word what to do then.
//
// Made with one message to go, which is its maker's: add() for each message handed over, done() for each one
// sent, and done() once more when the maker has handed over all. Any thread; lock_ is a leaf, and callbacks
// run without it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

namespace poly {

class Ticket {
 public:
  void add() {
    std::lock_guard guard(lock_);
    left_++;
  }
  void done() {
    std::function<void()> then;
    {
      std::lock_guard guard(lock_);
      if (--left_ != 0) return;
      then = std::move(then_);
      all_done_.notify_all();
    }
    if (then) then();
  }
  // True when all messages are out; false when `patience` is over first.
  [[nodiscard]] bool wait(std::chrono::nanoseconds patience) {
    std::unique_lock guard(lock_);
    return all_done_.wait_for(guard, patience, [&] { return left_ == 0; });
  }
  // Calls `then` when all messages are out, from whichever thread sees that; at once when they are. Once.
  void then(std::function<void()> then) {
    {
      std::lock_guard guard(lock_);
      if (left_ != 0) {
        then_ = std::move(then);
        return;
      }
    }
    then();
  }

 private:
  std::mutex lock_;
  std::condition_variable all_done_;
  size_t left_ = 1;             // guarded by lock_
  std::function<void()> then_;  // guarded by lock_
};

using TicketRef = std::shared_ptr<Ticket>;

}  // namespace poly
