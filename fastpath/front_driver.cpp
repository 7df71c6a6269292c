#include "fastpath/front_driver.hpp"

#include <signal.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "fastpath/attach_socket.hpp"
#include "fastpath/raw_calls.hpp"
#include "fastpath/waiting.hpp"

namespace poly {
namespace {

// Nobody has taken the call after this: ring whoever sleeps. The server of this CPU may be held up in its
// backend. Longer than a tick of Linux at 250 Hz: a timer that is due before the tick has the clock set anew,
// twice a call; on a virtual machine that is two exits and trebled the round trip on one core (7 us to 23
// us).
constexpr uint64_t kFirstLookNs = 5'000'000;
// Then post again, in case the hint was lost with somebody who died at the queue; see whether the service
// lives.
constexpr uint64_t kLookNs = 20'000'000;
constexpr uint64_t kRetryNs = 5'000'000;
constexpr uint8_t kMostFailures = 6;

// Handlers must not run in a section that holds a lock they may ask for.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &old_, nullptr); }

 private:
  sigset_t old_;
};

class Locked {
 public:
  explicit Locked(pthread_mutex_t& mutex) : mutex_(mutex) { pthread_mutex_lock(&mutex_); }
  ~Locked() { pthread_mutex_unlock(&mutex_); }

 private:
  pthread_mutex_t& mutex_;
};

void sleep_ns(uint64_t ns) {
  timespec time{static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
  (void)raw::call(SYS_nanosleep, &time, nullptr);
}

}  // namespace

int FrontDriver::attach(const char* socket_path, uint32_t buffers) {
  SignalsBlocked signals;
  Locked locked(recovery_);
  if (std::strlen(socket_path) >= kPathSize) return -ENAMETOOLONG;
  std::strcpy(path_, socket_path);
  if (!memory_) {
    if (int err = make_memory(buffers)) return err;
  }
  return hello();
}

void FrontDriver::on_return(void (*tell)(void*), void* context) {
  returned_ = tell;
  returned_context_ = context;
}

// Untouched buffers cost address space only; a forked child gets none of it.
int FrontDriver::make_memory(uint32_t buffers) {
  if (buffers == 0 || buffers > kMaxBuffers) return -EINVAL;
  auto fd =
      static_cast<int>(raw::call(SYS_memfd_create, "poly-request-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd < 0) return fd;
  size_t size = buffers * sizeof(RequestBuffer);
  long rc = raw::call(SYS_ftruncate, fd, size);
  if (rc == 0) rc = raw::call(SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  void* memory = rc == 0 ? raw::map(size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd) : nullptr;
  if (!memory) {
    raw::close(fd);
    return rc < 0 ? static_cast<int>(rc) : -ENOMEM;
  }
  (void)raw::call(SYS_madvise, memory, size, MADV_DONTFORK);
  memory_ = static_cast<RequestBuffer*>(memory);
  memory_fd_ = raw::move_high(fd);
  buffers_ = buffers;
  for (uint32_t i = 0; i < buffers; i++) free_[i / 64].fetch_or(uint64_t{1} << i % 64);
  return 0;
}

// Caller holds recovery_. The old connection stays until the new one stands: while it is open the service
// keeps the client's open files.
int FrontDriver::hello() {
  int fresh = raw::move_high(connect_attach(path_));
  if (fresh < 0) return fresh;
  AttachHello hello{kWireMagic, kWireAbi, AttachKind::kHello, buffers_, key_};
  AttachWelcome welcome{};
  int queue_fd = -1;
  int err = exchange(fresh, &hello, sizeof hello, memory_fd_, &welcome, sizeof welcome, queue_fd);
  if (err == 0) err = welcome.result;
  Attachment* attachment = nullptr;
  if (err == 0) err = map_queues(queue_fd, welcome, attachment);
  if (queue_fd >= 0) raw::close(queue_fd);
  if (err) {
    raw::close(fresh);
    return err;
  }
  key_ = welcome.key;
  if (const int old = socket_.exchange(fresh); old >= 0) raw::close(old);
  attachment_.store(attachment, std::memory_order_release);
  return 0;
}

// Beside the old one, which other threads may be using still: it is never unmapped. That costs address space
// per restart of the service or change of uid.
int FrontDriver::map_queues(int fd, const AttachWelcome& welcome, Attachment*& out) {
  if (fd < 0 || welcome.groups == 0 || welcome.groups > kMaxGroups ||
      welcome.capacity > RequestQueue::kMaxCapacity)
    return -EPROTO;
  size_t size = QueueMemory::bytes(welcome.groups, welcome.capacity);
  void* shared = raw::map(size, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  void* own = raw::map(sizeof(Attachment), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  if (!shared || !own) return -ENOMEM;
  (void)raw::call(SYS_madvise, shared, size, MADV_DONTFORK);
  out = new (own) Attachment{QueueMemory(shared, welcome.groups, welcome.capacity, welcome.owner),
                             welcome.client, welcome.incarnation};
  return 0;
}

int FrontDriver::prove(uint32_t instance, int root_fd, AttachProven& out) {
  AttachProve message{kWireMagic, kWireAbi, AttachKind::kProve, instance};
  int none;
  if (int err = exchange(socket_, &message, sizeof message, root_fd, &out, sizeof out, none)) return err;
  return out.result;
}

void FrontDriver::forget() {
  if (memory_fd_ >= 0) raw::close(memory_fd_);
  if (const int old = socket_.exchange(-1); old >= 0) raw::close(old);
  memory_ = nullptr;  // MADV_DONTFORK: in a child there is nothing to unmap
  memory_fd_ = -1;
  attachment_.store(nullptr);
  buffers_ = 0;
  key_ = 0;
  recovery_ = PTHREAD_MUTEX_INITIALIZER;
  for (auto& word : free_) word.store(0);
}

void FrontDriver::make_way(int fd, int (*elsewhere)(int)) {
  if (fd < 0) return;
  if (socket_.load() == fd) socket_.store(elsewhere(fd));
  if (memory_fd_ == fd) memory_fd_ = elsewhere(fd);
}

RequestBuffer* FrontDriver::acquire() {
  for (uint32_t w = 0; w < kMaxBuffers / 64; w++) {
    uint64_t bits = free_[w].load(std::memory_order_relaxed);
    while (bits) {
      uint64_t lowest = bits & -bits;
      if (free_[w].compare_exchange_weak(bits, bits & ~lowest, std::memory_order_acquire))
        return &memory_[w * 64 + static_cast<uint32_t>(__builtin_ctzll(lowest))];
    }
  }
  return nullptr;
}

void FrontDriver::release(RequestBuffer* buffer) {
  auto index = static_cast<uint32_t>(buffer - memory_);
  free_[index / 64].fetch_or(uint64_t{1} << index % 64, std::memory_order_release);
}

uint32_t FrontDriver::next_sequence(const RequestBuffer& buffer) {
  return (sequence_of(buffer.state.load(std::memory_order_relaxed)) + 1) & (~0u >> 2);
}

const CopyTable* FrontDriver::copy_table() const {
  const QueueMemory* queues = this->queues();
  return queues ? &queues->layout().placement.copy : nullptr;
}

// A call is posted once to each service: a second time only to another process, when the one that it was
// posted to is dead, whoever found that out. Hints may be repeated.
int32_t FrontDriver::run(RequestBuffer& buffer, ChunkReader* chunks) {
  const uint32_t sequence = next_sequence(buffer);
  const Attachment* to = attachment_.load(std::memory_order_acquire);
  buffer.call.resent = 0;
  for (uint32_t posted_to = 0; to; buffer.call.resent = 1) {
    posted_to = to->incarnation;
    buffer.client_cpu.store(current_cpu(), std::memory_order_relaxed);
    buffer.state.store(call_state(sequence, CallPhase::kPosted), std::memory_order_release);
    do {
      if (await(buffer, sequence, posted_to, chunks)) return buffer.answer.result;
      to = recover(posted_to);
    } while (to && to->incarnation == posted_to);
  }
  return kDeclined;
}

// Puts a hint into the queue of this CPU's core group and sees to it that a server looks. A full queue is
// other clients' work under way: wait a little, and try again.
FrontDriver::Woken FrontDriver::post(Attachment& to, RequestBuffer& buffer, uint32_t sequence) {
  QueueMemory& queues = to.queues;
  const uint32_t cpu = current_cpu() % kMaxCpus;
  const uint32_t group = queues.layout().placement.group_of_cpu[cpu] % queues.groups();
  const auto index = static_cast<uint16_t>(&buffer - memory_);
  for (uint64_t pause = 1000; !queues.queue(group).enqueue({to.client, index, sequence}); pause *= 2) {
    ring_any(queues);
    sleep_ns(std::min<uint64_t>(pause, 1'000'000));
    // Whoever filled it may have died, or scribbled: the waiting loop posts again, and looks for the service.
    if (pause > kLookNs) break;
  }
  // Pairs with the server's fence between its bell and its last look at the queues.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (is_seen(queues, group, buffer, sequence)) return Woken::kSpinner;
  return ring(queues, group, cpu);
}

// Who has just answered this buffer from another CPU is about to look at it again, or has taken the call
// already: for that moment nobody is rung, who would only take this CPU from us.
bool FrontDriver::is_seen(QueueMemory& queues, uint32_t group, const RequestBuffer& buffer,
                          uint32_t sequence) {
  constexpr int kMoment = 64;  // looks; about a microsecond
  if (!spins_[&buffer - memory_].answered.exchange(false, std::memory_order_relaxed)) return false;
  const uint32_t posted = call_state(sequence, CallPhase::kPosted);
  const auto& spinning = queues.layout().spinning[group].cpu_plus_one;
  for (int i = 0; i < kMoment; i++) {
    if (buffer.state.load(std::memory_order_acquire) != posted) return true;
    if (spinning.load(std::memory_order_relaxed) != 0) return false;
    cpu_relax();
  }
  return false;
}

bool FrontDriver::wake(Doorbell& bell) {
  if (bell.word.load(std::memory_order_relaxed) != Doorbell::kAsleep ||
      bell.word.exchange(Doorbell::kAwake) != Doorbell::kAsleep)
    return false;
  futex_wake(bell.word, 1);
  return true;
}

// The server of this CPU is the cheapest to wake; when it is at work, perhaps held up in a backend, another.
// The numbers come from memory that others of our uid can write: they are cut to what may be used.
FrontDriver::Woken FrontDriver::ring(QueueMemory& queues, uint32_t group, uint32_t cpu) {
  QueueMemoryLayout& layout = queues.layout();
  const uint32_t spinner = layout.spinning[group].cpu_plus_one.load(std::memory_order_relaxed);
  if (spinner) return spinner - 1 == cpu ? Woken::kSleeper : Woken::kSpinner;
  if (!wake(layout.bells[layout.placement.server_of_cpu[cpu] % kMaxServers])) ring_any(queues);
  return Woken::kSleeper;
}

void FrontDriver::ring_any(QueueMemory& queues) {
  QueueMemoryLayout& layout = queues.layout();
  uint64_t asleep = layout.asleep.load(std::memory_order_relaxed);
  for (; asleep; asleep &= asleep - 1) {
    if (wake(layout.bells[__builtin_ctzll(asleep)])) return;
  }
}

// True: answered. After a spin in vain (the server was preempted, or the call takes long) the next calls
// sleep at once, twice as many each time; then a whole spin is tried again, for what was in its way may be
// over. While chunks come, the server is at work on another CPU, and there is something to do here.
bool FrontDriver::spin(RequestBuffer& buffer, uint32_t sequence, ChunkReader* chunks) {
  Spins& spins = spins_[&buffer - memory_];
  if (const uint8_t left = spins.skip.load(std::memory_order_relaxed)) {
    spins.skip.store(left - 1, std::memory_order_relaxed);
    return false;
  }
  const uint32_t done = call_state(sequence, CallPhase::kDone);
  auto look = [&] {
    if (buffer.state.load(std::memory_order_acquire) == done) return true;
    if (chunks) (void)chunks->step();
    return false;
  };
  const uint64_t limit = kSpinNs + crossing_ns(std::min<uint64_t>(buffer.call.size, kDataSize));
  bool ready;
  size_t taken;
  do {
    taken = chunks ? chunks->done() : 0;
    ready = spin_until(look, limit);
  } while (!ready && chunks && chunks->done() != taken);
  const int failures =
      ready ? 0 : std::min(spins.failures.load(std::memory_order_relaxed) + 1, int{kMostFailures});
  spins.failures.store(static_cast<uint8_t>(failures), std::memory_order_relaxed);
  spins.skip.store(static_cast<uint8_t>((1 << failures) - 1), std::memory_order_relaxed);
  spins.answered.store(ready, std::memory_order_relaxed);
  return ready;
}

// Hints and waits. False: the service is not there any more, or seems not to be.
bool FrontDriver::await(RequestBuffer& buffer, uint32_t sequence, uint32_t incarnation, ChunkReader* chunks) {
  const uint32_t done = call_state(sequence, CallPhase::kDone);
  auto ready = [&] { return buffer.state.load(std::memory_order_acquire) == done; };
  // Another after a change of credentials. Null: another service's, or none.
  auto attachment = [&] {
    Attachment* now = attachment_.load(std::memory_order_acquire);
    return now && now->incarnation == incarnation ? now : nullptr;
  };
  Attachment* to = attachment();
  if (to && post(*to, buffer, sequence) == Woken::kSpinner && spin(buffer, sequence, chunks)) return true;
  for (uint64_t limit = kFirstLookNs; !ready() && to; limit = kLookNs) {
    buffer.sleeping.store(1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);  // with the server's between kDone and its look here
    const uint32_t state = buffer.state.load(std::memory_order_acquire);
    int rc = state == done ? 0 : futex_wait(buffer.state, state, limit);
    buffer.sleeping.store(0, std::memory_order_relaxed);
    if (rc != -ETIMEDOUT || ready()) continue;
    to = attachment();
    if (limit == kLookNs && !service_is_there()) to = nullptr;
    if (!to || phase_of(buffer.state.load()) != CallPhase::kPosted) continue;
    if (limit == kLookNs) (void)post(*to, buffer, sequence);
    ring_any(to->queues);
  }
  return ready();
}

bool FrontDriver::service_is_there() const {
  char nothing;
  long rc = raw::call(SYS_recvfrom, socket_.load(), &nothing, 1, MSG_PEEK | MSG_DONTWAIT, nullptr, nullptr);
  return rc == -EAGAIN || rc == -EINTR;
}

// One thread looks for the service's successor, the others wait for it here. Null: nobody came.
const FrontDriver::Attachment* FrontDriver::recover(uint32_t known_incarnation) {
  SignalsBlocked signals;
  Locked locked(recovery_);
  const Attachment* known = attachment_.load(std::memory_order_acquire);
  if (!known || known->incarnation != known_incarnation) return known;
  const uint64_t end = monotonic_now() + kPatienceNs;
  do {
    if (hello() == 0) {
      if (returned_) returned_(returned_context_);
      return attachment_.load(std::memory_order_acquire);
    }
    sleep_ns(kRetryNs);
  } while (monotonic_now() < end);
  attachment_.store(nullptr, std::memory_order_release);
  return nullptr;
}

}  // namespace poly
