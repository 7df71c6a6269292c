// The queues that poly-bench-queue compares, behind one face. A Peer is the queue; a Side is one thread's way
// to it:
//   bool push(Hint)                  false: full, call again
//   void ring()                      after a push: wakes a sleeping dequeuer, if there is one
//   bool pop(Hint&)                  false: nothing, call again
//   bool await(Hint&, stop)          sleeps once, until something may be there or stop_all(); true: got one
// All sleep in futex(2) through a Bell, the condition variable's ring through its own futex.
#pragma once

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <vector>

#include "fastpath/paper_request_queue.hpp"
#include "fastpath/request_queue.hpp"

#ifdef POLY_HAVE_MOODYCAMEL
#include <concurrentqueue.h>
#endif
#ifdef POLY_HAVE_BOOST
#include <boost/lockfree/queue.hpp>
#endif
#ifdef POLY_HAVE_TBB
#include <tbb/concurrent_queue.h>
#endif

namespace poly_bench {

using poly::Hint;
using Stop = std::atomic<bool>;

// More than there are items in a closed system of 64 enqueuers: no queue is ever full.
inline constexpr uint32_t kCapacity = 1024;

inline void futex(std::atomic<uint32_t>& word, int operation, uint32_t value) {
  syscall(SYS_futex, &word, operation | FUTEX_PRIVATE_FLAG, value, nullptr, nullptr, 0);
}

// An event count: whoever waits looks again between announcing itself and sleeping.
class Bell {
 public:
  void ring(int sleepers = 1) {
    std::atomic_thread_fence(std::memory_order_seq_cst);  // the push before, the look after
    if (sleepers_.load(std::memory_order_relaxed) == 0) return;
    rings_.fetch_add(1, std::memory_order_release);
    futex(rings_, FUTEX_WAKE, static_cast<uint32_t>(sleepers));
  }
  template <class Attempt>
  bool await(Attempt attempt) {
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    const uint32_t seen = rings_.load(std::memory_order_acquire);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const bool done = attempt();
    if (!done) futex(rings_, FUTEX_WAIT, seen);
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
    return done;
  }

 private:
  alignas(64) std::atomic<uint32_t> rings_{0};
  std::atomic<uint32_t> sleepers_{0};
};

// What one bell serves: every queue whose dequeuers may take any item.
class OneBell {
 public:
  void stop_all() { bell_.ring(INT_MAX); }

 protected:
  template <class Side>
  static bool await(Side& side, Bell& bell, Hint& out, const Stop& stop) {
    bool got = false;
    (void)bell.await([&] { return (got = side.pop(out)) || stop.load(); });
    return got;
  }
  Bell bell_;
};

struct Unmap {
  size_t size = 0;
  void operator()(void* memory) const { munmap(memory, size); }
};
using Pages = std::unique_ptr<void, Unmap>;

inline Pages pages(size_t size) {
  void* memory =
      mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  return Pages(memory, Unmap{size});
}

class Rcqb : public OneBell {
 public:
  Rcqb() : memory_(pages(poly::RequestQueue::bytes(kCapacity))) {
    poly::RequestQueue::format(memory_.get(), kCapacity);
  }
  class Side {
   public:
    explicit Side(Rcqb& peer) : peer_(peer), queue_(peer.memory_.get(), kCapacity, 1) {}
    bool push(const Hint& hint) { return queue_.enqueue(hint); }
    void ring() { peer_.bell_.ring(); }
    bool pop(Hint& out) { return queue_.dequeue(out); }
    bool await(Hint& out, const Stop& stop) { return OneBell::await(*this, peer_.bell_, out, stop); }

   private:
    Rcqb& peer_;
    poly::RequestQueue queue_;
  };

 private:
  Pages memory_;
};

// A dequeuer's ticket names the slot it waits for: a bell per slot.
class PaperRcqb {
 public:
  PaperRcqb() : memory_(pages(poly::PaperRequestQueue::bytes(kCapacity))), bells_(kCapacity) {
    poly::PaperRequestQueue::format(memory_.get(), kCapacity);
  }
  void stop_all() {
    for (Bell& bell : bells_) bell.ring(INT_MAX);
  }
  class Side {
   public:
    explicit Side(PaperRcqb& peer) : peer_(peer), queue_(peer.memory_.get(), kCapacity, 1) {}
    bool push(const Hint& hint) { return queue_.enqueue(hint); }
    void ring() { peer_.bells_[queue_.enqueue_slot()].ring(); }
    bool pop(Hint& out) { return queue_.dequeue(out); }
    bool await(Hint& out, const Stop& stop) {
      bool got = false;
      (void)peer_.bells_[queue_.dequeue_slot()].await([&] { return (got = pop(out)) || stop.load(); });
      return got;
    }

   private:
    PaperRcqb& peer_;
    poly::PaperRequestQueue queue_;
  };

 private:
  Pages memory_;
  std::vector<Bell> bells_;
};

class MutexRing {
 public:
  void stop_all() {
    const std::lock_guard lock(mutex_);
    filled_.notify_all();
  }
  class Side {
   public:
    explicit Side(MutexRing& peer) : peer_(peer) {}
    bool push(const Hint& hint) {
      const std::lock_guard lock(peer_.mutex_);
      if (peer_.tail_ - peer_.head_ == kCapacity) return false;
      peer_.ring_[peer_.tail_++ % kCapacity] = hint;
      return true;
    }
    void ring() { peer_.filled_.notify_one(); }
    bool pop(Hint& out) {
      const std::lock_guard lock(peer_.mutex_);
      return take(out);
    }
    bool await(Hint& out, const Stop& stop) {
      std::unique_lock lock(peer_.mutex_);
      if (peer_.tail_ == peer_.head_ && !stop.load()) peer_.filled_.wait(lock);
      return take(out);
    }

   private:
    bool take(Hint& out) {
      if (peer_.tail_ == peer_.head_) return false;
      out = peer_.ring_[peer_.head_++ % kCapacity];
      return true;
    }
    MutexRing& peer_;
  };

 private:
  std::mutex mutex_;
  std::condition_variable filled_;
  uint64_t head_ = 0, tail_ = 0;
  Hint ring_[kCapacity];
};

#ifdef POLY_HAVE_MOODYCAMEL
class Moodycamel : public OneBell {
 public:
  class Side {
   public:
    explicit Side(Moodycamel& peer) : peer_(peer), producer_(peer.queue_), consumer_(peer.queue_) {}
    bool push(const Hint& hint) { return peer_.queue_.enqueue(producer_, hint); }
    void ring() { peer_.bell_.ring(); }
    bool pop(Hint& out) { return peer_.queue_.try_dequeue(consumer_, out); }
    bool await(Hint& out, const Stop& stop) { return OneBell::await(*this, peer_.bell_, out, stop); }

   private:
    Moodycamel& peer_;
    moodycamel::ProducerToken producer_;
    moodycamel::ConsumerToken consumer_;
  };

 private:
  moodycamel::ConcurrentQueue<Hint> queue_{kCapacity};
};
#endif

#ifdef POLY_HAVE_BOOST
class BoostLockfree : public OneBell {
 public:
  class Side {
   public:
    explicit Side(BoostLockfree& peer) : peer_(peer) {}
    bool push(const Hint& hint) { return peer_.queue_.bounded_push(hint); }
    void ring() { peer_.bell_.ring(); }
    bool pop(Hint& out) { return peer_.queue_.pop(out); }
    bool await(Hint& out, const Stop& stop) { return OneBell::await(*this, peer_.bell_, out, stop); }

   private:
    BoostLockfree& peer_;
  };

 private:
  boost::lockfree::queue<Hint> queue_{kCapacity};
};
#endif

#ifdef POLY_HAVE_TBB
class TbbBounded : public OneBell {
 public:
  TbbBounded() { queue_.set_capacity(kCapacity); }
  class Side {
   public:
    explicit Side(TbbBounded& peer) : peer_(peer) {}
    bool push(const Hint& hint) { return peer_.queue_.try_push(hint); }
    void ring() { peer_.bell_.ring(); }
    bool pop(Hint& out) { return peer_.queue_.try_pop(out); }
    bool await(Hint& out, const Stop& stop) { return OneBell::await(*this, peer_.bell_, out, stop); }

   private:
    TbbBounded& peer_;
  };

 private:
  tbb::concurrent_bounded_queue<Hint> queue_;
};
#endif

}  // namespace poly_bench
