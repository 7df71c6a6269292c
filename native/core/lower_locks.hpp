// POSIX locks that the backend keeps too, because other hosts lock there (Libservice::locks_below): what the
// service's own table has granted is asked of the backend before anyone is told.
//
// Neither waits: a lock that is not to be had at both at once is given up at the first and tried again by a
// thread of this object, so a wait holds no other thread; it ends by grant, cancel(), or the end of its
// instance. (So no deadlock is found in which another host has a part.) Giving up goes the other way, backend
// first.
//
// flock(2) locks exclude callers of this service only; a libservice that can do more may say so one day.
//
// Lock order: lock_ is a leaf; the backend, the table and completions are called without it.
#pragma once

#include <condition_variable>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <thread>

#include "libservices/libservice.hpp"
#include "native/core/lock_table.hpp"

namespace poly {

class LowerLocks {
 public:
  // One request for a lock, as it was made.
  struct Wanted {
    uint32_t instance = 0;
    uint64_t request = 0;
    uint64_t node = 0;
    uint64_t file = 0;
    LockOwner owner{};
    LockRange range;
    std::vector<LockRange> before;  // what the owner held of it
  };

  // `try_again` makes one attempt (LockTable::set's answers, without waiting); `complete` tells the asker.
  LowerLocks(std::function<int(Wanted&)> try_again, std::function<void(const Wanted&, int result)> complete)
      : try_again_(std::move(try_again)), complete_(std::move(complete)) {}
  ~LowerLocks();

  // The number by which the backend knows a holder.
  static uint64_t owner_below(const LockOwner& owner);

  // A wait that the table has parked, or may: remembered until it is taken.
  void park(Wanted wanted);
  [[nodiscard]] bool take_parked(uint32_t instance, uint64_t request, Wanted& out);
  // To be tried again until it is had.
  void retry(Wanted wanted);
  // True if it was waiting here; it is then completed with -EINTR.
  bool cancel(uint32_t instance, uint64_t request);
  void drop_instance(uint32_t instance);

 private:
  static constexpr auto kTick = std::chrono::milliseconds(50);
  struct Retry {
    Wanted wanted;
    bool cancelled = false;
  };
  void run();
  void settle(std::list<Retry>::iterator, int result);

  const std::function<int(Wanted&)> try_again_;
  const std::function<void(const Wanted&, int)> complete_;
  std::mutex lock_;
  std::condition_variable work_;
  std::map<std::pair<uint32_t, uint64_t>, Wanted> parked_;  // guarded by lock_
  std::list<Retry> retries_;                                // guarded by lock_; only run() takes away
  bool stopping_ = false;                                   // guarded by lock_
  std::thread thread_;                                      // started by the first retry, under lock_
};

}  // namespace poly
