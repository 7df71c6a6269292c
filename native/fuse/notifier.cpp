#include "native/fuse/notifier.hpp"

#include <pthread.h>

#include <algorithm>
#include <iterator>

#include "native/core/thread_start.hpp"
#include "native/fuse/connection.hpp"

namespace poly {

Notifier::~Notifier() {
  {
    std::lock_guard guard(lock_);
    stopping_ = true;
  }
  work_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void Notifier::post(Connection& connection, const void* message, size_t size, Waits waits,
                    const TicketRef& ticket) {
  auto bytes = static_cast<const std::byte*>(message);
  if (ticket) ticket->add();
  std::lock_guard guard(lock_);
  put(connection, lanes_[&connection], {0, {bytes, bytes + size}, waits, ticket});
}

void Notifier::send_apart(Connection& connection, const void* message, size_t size) {
  auto bytes = static_cast<const std::byte*>(message);
  const auto begun = std::make_shared<Ticket>(), out = std::make_shared<Ticket>();
  {
    std::lock_guard guard(lock_);
    lanes_[&connection];  // forget() looks there
    apart_.push_back({&connection, {bytes, bytes + size}, begun, out});
    wake_one();
  }
  if (begun->wait(kApart)) (void)out->wait(kInKernel);
}

bool Notifier::post_before_reply(Connection& connection, std::span<const std::byte> message, size_t queue,
                                 std::span<const std::byte> reply) {
  std::lock_guard guard(lock_);
  Lane& lane = lanes_[&connection];
  if (lane.for_directory != 0) return false;
  put(connection, lane, {0, {message.begin(), message.end()}, Waits::kForPages, nullptr});
  put(connection, lane, {queue, {reply.begin(), reply.end()}, Waits::kForPages, nullptr});
  return true;
}

bool Notifier::post_reply(Connection& connection, size_t queue, const void* message, size_t size) {
  auto bytes = static_cast<const std::byte*>(message);
  std::lock_guard guard(lock_);
  auto it = lanes_.find(&connection);
  if (it == lanes_.end() || (it->second.items.empty() && !it->second.sending)) return false;
  put(connection, it->second, {queue, {bytes, bytes + size}, Waits::kForPages, nullptr});
  return true;
}

// Caller holds lock_.
void Notifier::put(Connection& connection, Lane& lane, Item item) {
  lane.for_directory += item.waits == Waits::kForDirectory;
  lane.items.push_back(std::move(item));
  if (lane.sending || lane.ready) return;
  lane.ready = true;
  ready_.push_back(&connection);
  wake_one();
}

// Caller holds lock_.
void Notifier::wake_one() {
  if (idle_ < ready_.size() + apart_.size() && threads_.size() < kThreads)
    threads_.emplace_back([this] { run(); });
  work_.notify_one();
}

void Notifier::forget(Connection& connection) {
  std::deque<Item> never;
  {
    std::unique_lock guard(lock_);
    auto it = lanes_.find(&connection);
    if (it == lanes_.end()) return;
    sent_.wait(guard, [&] {
      std::ranges::move(it->second.items, std::back_inserter(never));
      it->second.items.clear();
      std::erase_if(apart_, [&](const Apart& apart) { return apart.connection == &connection; });
      return !it->second.sending && it->second.sending_apart == 0;
    });
    std::erase(ready_, &connection);
    lanes_.erase(it);
  }
  for (auto& item : never) {
    if (item.ticket) item.ticket->done();
  }
}

size_t Notifier::waiting() {
  std::lock_guard guard(lock_);
  size_t n = apart_.size();
  for (auto& [connection, lane] : lanes_) n += lane.items.size() + lane.sending + lane.sending_apart;
  return n;
}

// Caller holds lock_, and again afterwards.
void Notifier::run_apart(std::unique_lock<std::mutex>& guard) {
  const Apart apart = std::move(apart_.front());
  apart_.pop_front();
  Lane& lane = lanes_.at(apart.connection);
  lane.sending_apart++;  // forget() waits
  guard.unlock();
  apart.begun->done();
  (void)apart.connection->send(0, apart.message.data(), apart.message.size());  // as in run()
  apart.out->done();
  guard.lock();
  lane.sending_apart--;
  sent_.notify_all();
}

void Notifier::run() {
  begin_thread("poly-notifier");
  std::unique_lock guard(lock_);
  for (;;) {
    idle_++;
    work_.wait(guard, [&] { return stopping_ || !ready_.empty() || !apart_.empty(); });
    idle_--;
    if (stopping_) return;
    if (!apart_.empty()) {
      run_apart(guard);
      continue;
    }
    Connection& connection = *ready_.front();
    ready_.pop_front();
    Lane& lane = lanes_.at(&connection);
    lane.ready = false;
    if (lane.items.empty()) continue;  // forget() is at it
    lane.sending = true;               // and forget() waits
    Item item = std::move(lane.items.front());
    lane.items.pop_front();
    guard.unlock();
    // ENOENT: the kernel holds nothing of that name or node, which is what we wanted, or asks no more.
    connection.notifying_since.store(coarse_ns());
    (void)connection.send(item.queue, item.message.data(), item.message.size());
    connection.notifying_since.store(0);
    if (item.ticket) item.ticket->done();
    guard.lock();
    lane.for_directory -= item.waits == Waits::kForDirectory;
    lane.sending = false;
    lane.ready = !lane.items.empty();
    if (lane.ready) ready_.push_back(&connection);
    sent_.notify_all();
  }
}

}  // namespace poly
