// Sends what must not be sent by a thread that answers requests: notifications (invalidations), which may
// wait for page or directory locks that an unanswered request holds, and replies that must come after them.
//
// Each connection's messages go out in the order they were posted, one at a time, but for those that are
// posted apart; different connections' by different threads, of which there are at most kThreads. A message
// that waits in the kernel so delays its own connection, and others only when kThreads of them are stuck. No
// lock is held while one goes out.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <map>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "native/core/ticket.hpp"

namespace poly {

class Connection;

class Notifier {
 public:
  static constexpr size_t kThreads = 4;
  // How long send_apart waits for a thread to begin; and then, so that it is in the kernel.
  static constexpr auto kApart = std::chrono::milliseconds(10);
  static constexpr auto kInKernel = std::chrono::microseconds(200);

  ~Notifier();
  // What a message may wait for in the kernel. A page's lock goes when a READ or WRITE is answered; a
  // directory's may be held by whoever asks something else meanwhile.
  enum class Waits { kForPages, kForDirectory };

  // Returns at once. Threads are started by messages. The ticket (may be null) counts the message until it is
  // out, or never will be.
  void post(Connection& connection, const void* message, size_t size, Waits waits, const TicketRef& ticket);
  // Sends a message that nothing need come before or after, beside the others. Returns when it is out, or is
  // waiting for pages in the kernel, or could not be sent in kApart.
  void send_apart(Connection& connection, const void* message, size_t size);
  // A message that waits for pages, and behind it a reply, whose asker may hold a directory's lock. False
  // when something that waits for a directory would come before them: then nothing has been done.
  [[nodiscard]] bool post_before_reply(Connection& connection, std::span<const std::byte> message,
                                       size_t queue, std::span<const std::byte> reply);
  // A reply, through one of the connection's queues, behind everything posted before. False when there is
  // nothing it would come after: then nothing has been done, and the caller sends it himself.
  [[nodiscard]] bool post_reply(Connection& connection, size_t queue, const void* message, size_t size);
  // Forgets what is queued for the connection and waits for what is being sent. An unmounted connection never
  // blocks.
  void forget(Connection& connection);

  // How many messages are queued or being sent, of all connections.
  size_t waiting();

 private:
  struct Item {
    size_t queue;
    std::vector<std::byte> message;
    Waits waits;
    TicketRef ticket;
  };
  struct Lane {
    std::deque<Item> items;
    size_t for_directory = 0;  // of the items, and the one being sent
    bool sending = false;
    bool ready = false;        // in ready_
    size_t sending_apart = 0;  // how many
  };
  struct Apart {
    Connection* connection;
    std::vector<std::byte> message;
    TicketRef begun, out;  // one message each
  };
  void put(Connection& connection, Lane& lane, Item item);
  void wake_one();
  void run();
  void run_apart(std::unique_lock<std::mutex>& guard);

  std::mutex lock_;
  std::condition_variable work_, sent_;
  std::map<Connection*, Lane> lanes_;  // guarded by lock_
  std::deque<Connection*> ready_;      // guarded by lock_; those with something to send and nobody sending
  std::deque<Apart> apart_;            // guarded by lock_
  size_t idle_ = 0;                    // guarded by lock_
  bool stopping_ = false;              // guarded by lock_
  std::vector<std::thread> threads_;   // guarded by lock_
};

}  // namespace poly
