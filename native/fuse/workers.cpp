#include "native/fuse/workers.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "libservices/identity.hpp"
#include "native/core/thread_start.hpp"

namespace poly {
namespace {

constexpr uint64_t kStopEvent = UINT64_MAX;

size_t cpu_count() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? static_cast<size_t>(CPU_COUNT(&set)) : 1;
}

// The n-th CPU this process may run on.
void pin_to_cpu(size_t n) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &allowed) || n-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    (void)sched_setaffinity(0, sizeof one, &one);  // a hint: unpinned is slower, not wrong
    return;
  }
}

// What each reader waits in, with the one event that ends them all.
std::vector<Fd> epoll_sets(size_t count, int stop_event) {
  std::vector<Fd> sets;
  for (size_t i = 0; i < count; i++) {
    Fd epoll(epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{EPOLLIN, {.u64 = kStopEvent}};
    (void)epoll_ctl(epoll.get(), EPOLL_CTL_ADD, stop_event, &event);
    sets.push_back(std::move(epoll));
  }
  return sets;
}

}  // namespace

// One thread's memory: messages come into `message`; the reply goes behind a short message, or into `small`
// behind a long one. Resident from the start: a SIGKILL while the kernel copies into a page that is not there
// yet would fail the request with EIO instead of leaving it for the successor (fuse_copy_fill,
// fs/fuse/dev.c).
struct Workers::Buffers {
  static constexpr size_t kShort = 8192;
  static constexpr size_t kSize = kShort + kReplyRoom;
  static_assert(kSize >= kMessageRoom);

  explicit Buffers(size_t shard) : shard(shard) {
    void* memory = mmap(nullptr, kSize + kShort, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    base = memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
    if (!base) return;
    // All three are refinements: pages are not swapped (refused above RLIMIT_MEMLOCK), not made read-only by
    // a fork, and not taken away for a moment to become a huge one.
    (void)mlock(base, kSize + kShort);
    (void)madvise(base, kSize + kShort, MADV_DONTFORK);
    (void)madvise(base, kSize + kShort, MADV_NOHUGEPAGE);
  }
  ~Buffers() {
    if (base) munmap(base, kSize + kShort);
  }
  std::span<std::byte> message() { return {base, kMessageRoom}; }
  std::span<std::byte> reply_after(size_t message_size) {
    if (message_size <= kShort) return {base + kShort, kReplyRoom};
    return {base + kSize, kShort};
  }

  std::byte* base;
  const size_t shard;
  ReplayRecord* record = nullptr;
  UnderWay under_way;
};

Workers::Workers(Dispatcher& dispatcher, size_t max_threads, std::function<void(uint32_t)> ended)
    : dispatcher_(dispatcher),
      max_threads_(std::max(max_threads, cpu_count() + kReserve)),
      readers_(std::min(cpu_count(), kMaxReaders)),
      ended_(std::move(ended)),
      stop_event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      epolls_(epoll_sets(readers_, stop_event_.get())),
      monitor_([this] { return threads(); }, [this] { grow(); }) {
  for (size_t i = 0; i < readers_; i++) start_thread(i, false);
}

Workers::~Workers() {
  stop();
}

bool Workers::stop() {
  if (stopping_.exchange(true)) return threads_.load() == 0;
  uint64_t one = 1;
  (void)!write(stop_event_.get(), &one, sizeof one);
  monitor_.stop();
  std::unique_lock guard(threads_lock_);
  return threads_gone_.wait_for(guard, std::chrono::seconds(2), [&] { return threads_.load() == 0; });
}

int Workers::add(std::shared_ptr<Connection> connection) {
  Connection& c = *connection;
  uint32_t id = c.instance.id;
  {
    std::unique_lock guard(connections_lock_);
    connections_[id] = std::move(connection);
    connection_count_.store(static_cast<uint32_t>(connections_.size()));
  }
  for (size_t i = 0; i < readers_; i++) {
    int fd = c.queues[i].get();
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0) return -errno;
    epoll_event event{EPOLLIN, {.u64 = id}};
    if (epoll_ctl(epolls_[i].get(), EPOLL_CTL_ADD, fd, &event) != 0) return -errno;
  }
  return 0;
}

bool Workers::remove(const std::shared_ptr<Connection>& connection) {
  for (size_t i = 0; i < readers_; i++)
    (void)epoll_ctl(epolls_[i].get(), EPOLL_CTL_DEL, connection->queues[i].get(),
                    nullptr);  // ENOENT: end() was first
  {
    std::unique_lock guard(connections_lock_);
    connections_.erase(connection->instance.id);
    connection_count_.store(static_cast<uint32_t>(connections_.size()));
  }
  auto deadline = std::chrono::steady_clock::now() + kDrainTime;
  while (connection.use_count() > 1) {
    if (std::chrono::steady_clock::now() > deadline) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  std::lock_guard guard(connection->backlog_lock);
  backlog_size_.fetch_sub(connection->backlog.size());
  connection->backlog.clear();
  return connection.use_count() == 1;
}

std::shared_ptr<Connection> Workers::find(uint32_t instance) {
  std::shared_lock guard(connections_lock_);
  auto it = connections_.find(instance);
  return it == connections_.end() ? nullptr : it->second;
}

void Workers::start_thread(size_t queue, bool helper) {
  threads_.fetch_add(1);
  std::thread([this, queue, helper] { run(queue, helper); }).detach();
}

void Workers::run(size_t queue, bool helper) {
  begin_thread(helper ? "poly-helper" : "poly-reader");
  prepare_thread_identity();
  if (!helper) {
    pin_to_cpu(queue);
    sched_param param{};
    (void)sched_setscheduler(0, SCHED_BATCH, &param);
  }
  {
    Buffers buffers(next_shard_.fetch_add(1));
    buffers.record = dispatcher_.replays().reserve();
    {
      std::lock_guard guard(threads_lock_);
      under_way_.push_back(&buffers.under_way);
    }
    while (buffers.base && !stopping_.load(std::memory_order_relaxed)) {
      epoll_event events[16];
      int n = epoll_wait(epolls_[queue].get(), events, 16, helper ? kHelperIdleMs : -1);
      if (n < 0 && errno != EINTR) break;
      if (n == 0) break;  // an idle helper
      for (int i = 0; i < n; i++) {
        if (events[i].data.u64 == kStopEvent) continue;
        auto connection = find(static_cast<uint32_t>(events[i].data.u64));
        if (connection) drain(*connection, queue, buffers);
      }
    }
    if (buffers.record) dispatcher_.replays().release(buffers.record);
    std::lock_guard guard(threads_lock_);
    std::erase(under_way_, &buffers.under_way);
  }
  std::lock_guard guard(threads_lock_);
  threads_.fetch_sub(1);
  threads_gone_.notify_all();
}

bool Workers::drain(Connection& connection, size_t queue, Buffers& buffers) {
  bool any = false;
  while (!stopping_.load(std::memory_order_relaxed)) {
    ssize_t n = read(connection.queues[queue].get(), buffers.message().data(), kMessageRoom);
    if (n < 0) {
      if (errno == EAGAIN) break;  // nothing more, or another thread took it
      if (errno == EINTR || errno == ENOENT)
        continue;       // ENOENT: that request was aborted before it could be read
      end(connection);  // ENODEV: unmounted
      break;
    }
    any = true;
    auto message = buffers.message().first(static_cast<size_t>(n));
    fuse_in_header header{};
    std::memcpy(&header, message.data(), std::min(sizeof header, message.size()));
    const bool urgent = is_urgent(header.opcode);
    if (urgent || admit(connection)) {
      handle(connection, queue, buffers, message);
      if (!urgent) leave(connection);
    } else {
      delay(connection, queue, message);
    }
    if (backlog_size_.load() != 0) handle_backlog(buffers);
  }
  return any;
}

// All sequentially consistent: whoever delays a request looks again afterwards, and whoever leaves looks at
// the backlog afterwards, so one of the two sees the other and nothing is stranded.
bool Workers::admit(Connection& connection) {
  const size_t share = connection_count_.load() > 1 ? max_threads_ / 2 : max_threads_;
  const bool room = ordinary_.fetch_add(1) + 1 + kReserve <= max_threads_;
  const bool within_share = connection.in_flight.fetch_add(1) + 1 <= share;
  if (room && within_share) return true;
  leave(connection);
  return false;
}

void Workers::leave(Connection& connection) {
  connection.in_flight.fetch_sub(1);
  ordinary_.fetch_sub(1);
}

void Workers::delay(Connection& connection, size_t queue, std::span<const std::byte> message) {
  std::lock_guard guard(connection.backlog_lock);
  connection.backlog.push_back({queue, {message.begin(), message.end()}});
  backlog_size_.fetch_add(1);
}

// A delayed request of any connection that may be handled now, and is admitted; null when there is none.
std::shared_ptr<Connection> Workers::take_delayed(Connection::Delayed& out) {
  std::shared_lock guard(connections_lock_);
  auto it = connections_.upper_bound(backlog_turn_.load(std::memory_order_relaxed));
  for (size_t n = connections_.size(); n-- > 0; ++it) {
    if (it == connections_.end()) it = connections_.begin();
    auto& [id, connection] = *it;
    std::lock_guard backlog_guard(connection->backlog_lock);
    if (connection->backlog.empty() || !admit(*connection)) continue;
    backlog_turn_.store(id, std::memory_order_relaxed);
    out = std::move(connection->backlog.front());
    connection->backlog.pop_front();
    backlog_size_.fetch_sub(1);
    return connection;
  }
  return nullptr;
}

void Workers::handle_backlog(Buffers& buffers) {
  Connection::Delayed delayed;
  while (std::shared_ptr<Connection> connection = take_delayed(delayed)) {
    std::memcpy(buffers.message().data(), delayed.message.data(), delayed.message.size());
    handle(*connection, delayed.queue, buffers, buffers.message().first(delayed.message.size()));
    leave(*connection);
  }
}

void Workers::handle(Connection& connection, size_t queue, Buffers& buffers,
                     std::span<const std::byte> message) {
  monitor_.begin();
  UnderWay& now = buffers.under_way;
  fuse_in_header header{};
  std::memcpy(&header, message.data(), std::min(sizeof header, message.size()));
  now.instance.store(connection.instance.id, std::memory_order_relaxed);
  now.queue.store(static_cast<uint32_t>(queue), std::memory_order_relaxed);
  now.unique.store(header.unique, std::memory_order_relaxed);
  now.since.store(coarse_ns(), std::memory_order_relaxed);
  now.turn.fetch_add(1, std::memory_order_release);
  Call call(connection, dispatcher_, queue, buffers.shard, message, buffers.reply_after(message.size()));
  if (call.run(buffers.record)) {
    const int err = call.send();
    // A reply the kernel does not take (EINVAL: a bug of ours) must not leave its client waiting for ever.
    if (err && err != -ENOENT && err != -ENODEV) connection.reply_error(queue, call.in.unique, -EIO);
  }
  call.finish();
  now.turn.fetch_add(1, std::memory_order_release);
  monitor_.end();
}

// What is answered here the kernel does not take from the thread any more (ENOENT), when that comes back.
void Workers::watch(const BackendWatch::Judge& judge) {
  std::lock_guard guard(threads_lock_);
  for (UnderWay* at : under_way_) {
    const uint64_t turn = at->turn.load(std::memory_order_acquire);
    if ((turn & 1) == 0) continue;
    const CallUnderWay call{at->instance.load(), at->since.load(), at->answered.load() == turn};
    const auto queue = at->queue.load();
    const uint64_t unique = at->unique.load();
    if (at->turn.load(std::memory_order_acquire) != turn || !judge(call)) continue;
    at->answered.store(turn);
    if (auto connection = find(call.instance)) connection->reply_error(queue, unique, -EIO);
  }
}

void Workers::end(Connection& connection) {
  for (size_t i = 0; i < readers_; i++)
    (void)epoll_ctl(epolls_[i].get(), EPOLL_CTL_DEL, connection.queues[i].get(), nullptr);
  connection.ended.store(true);
  if (!connection.end_told.exchange(true)) ended_(connection.instance.id);
}

// All readers are held up: one more thread, in a reader's place.
void Workers::grow() {
  if (threads_.load() < max_threads_ && !stopping_.load()) start_thread(threads_.load() % readers_, true);
}

}  // namespace poly
