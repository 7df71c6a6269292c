#include "native/fast/servers.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "fastpath/copy_calibration.hpp"
#include "fastpath/waiting.hpp"
#include "libservices/identity.hpp"
#include "native/core/op_stats.hpp"
#include "native/core/thread_start.hpp"

namespace poly {
namespace {

// futex_waitv(2): 128 words at most.
constexpr size_t kMostBells = 128;

// The CPUs that this process may run on, `first` before the others if it is one of them.
std::vector<uint32_t> allowed_cpus(int first) {
  cpu_set_t set;
  std::vector<uint32_t> cpus;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return {0};
  for (uint32_t cpu = 0; cpu < CPU_SETSIZE && cpu < kMaxCpus; cpu++) {
    if (CPU_ISSET(cpu, &set)) cpus.insert(static_cast<int>(cpu) == first ? cpus.begin() : cpus.end(), cpu);
  }
  return cpus;
}

}  // namespace

struct Servers::Server {
  uint32_t number;
  bool helper;
  uint32_t cpu = 0;  // the one it is pinned to; a helper's changes
  ServerContext context;
  uint64_t uids_version = 0;
  std::shared_ptr<const Clients::UidList> uids;
  // The uid served last, and where its client was: decides whether to spin.
  UidQueues* hot = nullptr;
  // Whose call was the last, found once for a run of its calls and let go before sleeping; and in which
  // buffer: the next is likely to come there, and is seen there sooner than in the queue.
  std::shared_ptr<AttachedClient> last;
  RequestBuffer* last_buffer = nullptr;
  uint32_t client_cpu = 0;
  const RequestBuffer* invited_for = nullptr;
  uint32_t fruitless = 0;  // rounds in a row that found nothing though there should be something
  uint32_t handoffs = 0;   // calls in a row by clients on this CPU
  char paths[kMaxPaths];
  // The call it is at, for watch(), which looks at it in kLooked only: meanwhile the server does not go on.
  enum Phase : uint32_t { kNone, kRunning, kLooked, kAnswered };
  std::atomic<uint32_t> phase{kNone};
  uint64_t since = 0;
  AttachedClient* client = nullptr;
  RequestBuffer* buffer = nullptr;
  uint32_t taken = 0;
  uint32_t instance = 0;  // of a call in kAnswered
  WireCall call{};
};

// One core group: the measured machines have one last-level cache. Servers in CPU order.
Servers::Servers(CallHandler& handler, uint32_t max_threads, int poll_cpu)
    : handler_(handler),
      max_threads_(std::clamp<uint32_t>(max_threads, 1, kMaxServers)),
      cpus_(allowed_cpus(poll_cpu)),
      polling_(static_cast<int>(cpus_[0]) == poll_cpu),
      monitor_([this] { return threads(); }, [this] { grow(); }) {
  placement_.copy = cached_copy_table();
  primaries_ = std::min({static_cast<uint32_t>(cpus_.size()), kMaxPrimaries, max_threads_});
  for (uint32_t i = 0; i < cpus_.size(); i++)
    placement_.server_of_cpu[cpus_[i]] = static_cast<uint8_t>(i % primaries_);
}

void Servers::start(Clients& clients) {
  clients_.store(&clients);
  {
    std::lock_guard guard(lock_);
    used_ = (uint64_t{1} << primaries_) - 1;  // so that a helper takes none of these numbers
  }
  for (uint32_t i = 0; i < primaries_; i++) start_thread(i);
}

void Servers::start_thread(uint32_t number) {
  {
    std::lock_guard guard(lock_);
    used_ |= uint64_t{1} << number;
  }
  threads_.fetch_add(1);
  std::thread([this, number] {
    auto server = std::make_unique<Server>();
    server->number = number;
    server->helper = number >= primaries_;
    prepare(*server);
    {
      std::lock_guard guard(lock_);
      running_[number] = server.get();
    }
    handler_.begin(server->context);
    run(*server);
    handler_.end(server->context);
    {
      std::lock_guard guard(lock_);
      running_[number] = nullptr;
    }
    server.reset();  // lets go of its client while that still has somewhere to go
    std::lock_guard guard(lock_);
    used_ &= ~(uint64_t{1} << number);
    threads_.fetch_sub(1);
    gone_.notify_all();
  }).detach();
}

// Before start() there are no threads, and so all of them are busy: nothing to help with.
void Servers::grow() {
  if (threads_.load() == 0) return;
  uint32_t number;
  {
    std::lock_guard guard(lock_);
    number = static_cast<uint32_t>(__builtin_ctzll(~used_ | uint64_t{1} << 63));
  }
  if (number < max_threads_ && !stopping_.load()) start_thread(number);
}

void Servers::prepare(Server& server) {
  begin_thread(server.helper ? "poly-fast+" : "poly-fast");
  prepare_thread_identity();
  server.context.shard = server.number;
  if (server.helper) return;
  server.cpu = cpus_[server.number];
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(server.cpu, &one);
  (void)sched_setaffinity(0, sizeof one, &one);  // a hint: unpinned is slower, not wrong
  sched_param param{};
  (void)sched_setscheduler(0, SCHED_BATCH, &param);
}

bool Servers::stop() {
  if (stopping_.exchange(true)) return threads_.load() == 0;
  monitor_.stop();
  uids_changed();
  std::unique_lock guard(lock_);
  return gone_.wait_for(guard, std::chrono::seconds(2), [&] {
    guard.unlock();
    uids_changed();
    guard.lock();
    return threads_.load() == 0;
  });
}

void Servers::uids_changed() {
  no_uid_bell_.fetch_add(1);
  futex_wake(no_uid_bell_, INT32_MAX);
  Clients* clients = clients_.load();
  if (!clients) return;
  for (auto& queues : *clients->uids()) queues->wake_all();
}

void Servers::run(Server& server) {
  while (!stopping_.load(std::memory_order_relaxed)) {
    renew_uids(server);
    if (round(server)) {
      recruit(server);
      continue;
    }
    if (fruitless(server)) continue;
    server.invited_for = invited_[server.number].buffer.exchange(nullptr, std::memory_order_acquire);
    const bool remote = server.hot && server.client_cpu != server.cpu;
    const RequestBuffer* caller = server.invited_for ? server.invited_for
                                  : remote           ? server.last_buffer
                                                     : nullptr;
    if (((caller && !has_neighbours(server.number, caller)) || polls(server)) && spin(server)) continue;
    if (polls(server)) continue;
    if (!sleep(server)) return;
  }
}

// By the last call, as its client says.
uint64_t Servers::bytes_moved(const Server& server) {
  return std::min<uint64_t>(server.call.size, kDataSize);
}

// A caller on this CPU waits while we run, and we sleep while it runs: two switches a call. Where another CPU
// is idle, a server that spins there is four times as fast; so after some such calls in a row one is woken to
// spin. Each time that was for nothing it takes twice as many.
// Not where that CPU has clients of its own: they would wait for the spinning to end; handing over is fair to
// all.
void Servers::recruit(Server& server) {
  if (server.helper || server.client_cpu != server.cpu) {
    server.handoffs = 0;
    return;
  }
  if (++server.handoffs < patience_.load(std::memory_order_relaxed)) return;
  server.handoffs = 0;
  const uint32_t other = (server.number + 1) % primaries_;
  if (other == server.number || has_neighbours(other, server.last_buffer)) return;
  invited_[other].spin_ns.store(kInvitedSpinNs + 2 * crossing_ns(bytes_moved(server)),
                                std::memory_order_relaxed);
  if (invited_[other].buffer.exchange(server.last_buffer, std::memory_order_release)) return;
  server.hot->wake(other);
}

// A lone client that is woken here and there has been on this CPU, too, and is no neighbour of itself.
bool Servers::has_neighbours(uint32_t number, const RequestBuffer* caller) const {
  const Neighbour& last = neighbours_[number];
  return last.buffer.load(std::memory_order_relaxed) != caller &&
         coarse_ns() - last.called_at.load(std::memory_order_relaxed) < kNeighboursNs;
}

void Servers::renew_uids(Server& server) {
  const uint64_t version = clients_.load(std::memory_order_relaxed)->uids_version();
  if (server.uids_version == version) return;
  server.uids_version = version;
  server.uids = clients_.load(std::memory_order_relaxed)->uids();
  server.hot = nullptr;
}

// One from each uid in turn, so that nobody's flood is in the way of another's call.
bool Servers::round(Server& server) {
  bool any = server.last_buffer && serve(server, *server.last, *server.last_buffer);
  if (server.helper) server.cpu = current_cpu();
  for (auto& queues : *server.uids) {
    for (uint32_t group = 0; group < placement_.groups; group++) {
      Hint hint;
      if (queues->memory.queue(group).dequeue(hint) && serve(server, *queues, hint)) any = true;
    }
  }
  return any;
}

// A hint of one uid's queue is about that uid's clients only.
bool Servers::serve(Server& server, UidQueues& queues, Hint hint) {
  if (!server.last || server.last->id != hint.client) {
    auto client = clients_.load(std::memory_order_relaxed)->find(hint.client);
    if (!client) return false;
    server.last = std::move(client);
    server.last_buffer = nullptr;
  }
  AttachedClient& client = *server.last;
  if (client.queues.get() != &queues || hint.buffer >= client.buffers) return false;
  server.last_buffer = &client.memory[hint.buffer];
  return serve(server, client, *server.last_buffer);
}

// The buffer's state word is the truth: who wins the compare-and-swap runs the call.
bool Servers::serve(Server& server, AttachedClient& client, RequestBuffer& buffer) {
  uint32_t state = buffer.state.load(std::memory_order_acquire);
  if (phase_of(state) != CallPhase::kPosted) return false;
  const uint32_t taken = call_state(sequence_of(state), CallPhase::kTaken);
  if (!buffer.state.compare_exchange_strong(state, taken, std::memory_order_acquire)) return false;
  const auto index = static_cast<uint32_t>(&buffer - client.memory);
  if (const uint8_t aside = client.aside[index].load()) {
    if (aside == AttachedClient::kBack) client.aside[index].store(AttachedClient::kServed);
    buffer.answer.result = kDeclined;
    finish(buffer, taken, server.cpu);
    return true;
  }
  monitor_.begin();
  server.hot = client.queues.get();
  server.client_cpu = buffer.client_cpu.load(std::memory_order_relaxed);
  if (server.client_cpu == server.cpu) {
    neighbours_[server.number].buffer.store(&buffer, std::memory_order_relaxed);
    neighbours_[server.number].called_at.store(coarse_ns(), std::memory_order_relaxed);
  }
  client.queues->false_alarms.store(0, std::memory_order_relaxed);
  server.context.teller =
      server.client_cpu == server.cpu ? CopyTeller{} : CopyTeller{&buffer.progress, sequence_of(state)};

  server.call = buffer.call;
  server.since = coarse_ns();
  server.client = &client;
  server.buffer = &buffer;
  server.taken = taken;
  server.phase.store(Server::kRunning, std::memory_order_release);
  const WireCall& call = server.call;
  WireAnswer answer{};
  int32_t result = -EINVAL;
  const uint32_t paths = call.path_size + call.path2_size;
  if (call.path_size <= kMaxPaths && call.path2_size <= kMaxPaths && paths <= kMaxPaths) {
    std::memcpy(server.paths, buffer.paths, paths);
    const std::string_view path(server.paths, call.path_size);
    const std::string_view path2(server.paths + call.path_size, call.path2_size);
    result = handler_.run(client, index, sequence_of(state), call, path, path2, buffer.data, answer,
                          server.context);
  }
  answer.result = result;
  if (come_back(server)) {
    buffer.answer = answer;
    finish(buffer, taken, server.cpu);
  } else {
    client.aside[index].store(AttachedClient::kBack);
  }
  monitor_.end();
  return true;
}

bool Servers::come_back(Server& server) {
  for (;;) {
    uint32_t phase = Server::kRunning;
    if (server.phase.compare_exchange_strong(phase, Server::kNone)) return true;
    if (phase == Server::kAnswered) {
      std::lock_guard guard(lock_);  // watch() may be reading what the next call writes
      server.phase.store(Server::kNone);
      return false;
    }
    cpu_relax();
  }
}

void Servers::watch(const std::function<uint32_t(FastClient&, const WireCall&)>& instance_of,
                    const BackendWatch::Judge& judge) {
  std::lock_guard guard(lock_);
  for (Server* server : running_) {
    if (!server) continue;
    uint32_t phase = Server::kRunning;
    if (!server->phase.compare_exchange_strong(phase, Server::kLooked)) {
      if (phase == Server::kAnswered) (void)judge({server->instance, server->since, true});
      continue;
    }
    AttachedClient& client = *server->client;
    server->instance = instance_of(*client.fast, server->call);
    const bool answer = judge({server->instance, server->since, false});
    if (answer) {
      client.aside[static_cast<size_t>(server->buffer - client.memory)].store(AttachedClient::kHeldUp);
      server->buffer->answer.result = -EIO;
      finish(*server->buffer, server->taken, server->cpu);
    }
    server->phase.store(answer ? Server::kAnswered : Server::kRunning, std::memory_order_release);
  }
}

// Only if it is still the call that was taken: the client may have scribbled, and gets what it deserves.
void Servers::finish(RequestBuffer& buffer, uint32_t taken, uint32_t cpu) {
  buffer.server_cpu.store(cpu, std::memory_order_relaxed);
  const uint32_t done = call_state(sequence_of(taken), CallPhase::kDone);
  // Sequentially consistent, as is the look at `sleeping`: pairs with the client's fence between the two.
  buffer.state.compare_exchange_strong(taken, done);
  if (buffer.sleeping.load()) futex_wake(buffer.state, 1);
}

// A queue that promises hints and yields none was scribbled over, or has holes of the dead: it is repaired,
// now and then, and meanwhile looked at by the clock. True: there may be something now.
bool Servers::fruitless(Server& server) {
  if (!anything(server)) {
    server.fruitless = 0;
    return false;
  }
  if (++server.fruitless < kMostFruitless) return true;
  server.fruitless = 0;
  for (auto& queues : *server.uids) {
    for (uint32_t group = 0; group < placement_.groups; group++) {
      RequestQueue& queue = queues->memory.queue(group);
      if (!queue.maybe_any()) continue;
      queues->false_alarms.store(kMostFalseAlarms + 1, std::memory_order_relaxed);
      queue.repair([this](QueueOwner owner) {
        return clients_.load(std::memory_order_relaxed)->find(owner) != nullptr;
      });
    }
  }
  return false;
}

bool Servers::anything(const Server& server) const {
  for (auto& queues : *server.uids) {
    if (queues->false_alarms.load(std::memory_order_relaxed) > kMostFalseAlarms) continue;
    for (uint32_t group = 0; group < placement_.groups; group++) {
      if (queues->memory.queue(group).maybe_any()) return true;
    }
  }
  return false;
}

bool Servers::polls(const Server& server) const {
  return polling_ && server.number == 0 && !server.uids->empty() &&
         server.uids_version == clients_.load(std::memory_order_relaxed)->uids_version();
}

// Looks on without sleeping, if nobody else does. True: there is something. Who polls, too, is not to be seen
// while it serves: what it runs may take long, and callers ring another then.
bool Servers::spin(Server& server) {
  const uint32_t group = placement_.group_of_cpu[server.cpu];
  uint32_t nobody = 0;
  if (!spinner_[group].compare_exchange_strong(nobody, server.cpu + 1)) return false;
  auto show = [&](uint32_t value) {
    for (auto& queues : *server.uids)
      queues->memory.layout().spinning[group].cpu_plus_one.store(value, std::memory_order_relaxed);
  };
  show(server.cpu + 1);
  auto ready = [&] {
    return (server.last_buffer &&
            phase_of(server.last_buffer->state.load(std::memory_order_acquire)) == CallPhase::kPosted) ||
           anything(server) || stopping_.load(std::memory_order_relaxed);
  };
  // Until the caller may have copied out what it got, or copied in what comes next.
  const uint64_t limit = server.invited_for ? invited_[server.number].spin_ns.load(std::memory_order_relaxed)
                                            : kSpinNs + crossing_ns(bytes_moved(server));
  bool found;
  do {
    found = spin_until(ready, limit);
  } while (!found && polls(server));
  show(0);
  spinner_[group].store(0);
  if (server.invited_for) {
    const uint32_t patience = patience_.load(std::memory_order_relaxed);
    patience_.store(found ? kLeastPatience : std::min(2 * patience, kMostPatience),
                    std::memory_order_relaxed);
  }
  return found;
}

bool Servers::sleep(Server& server) {
  server.hot = nullptr;
  server.last = nullptr;
  server.last_buffer = nullptr;
  const uint32_t bell = no_uid_bell_.load();
  for (auto& queues : *server.uids) queues->lie_down(server.number);
  // Pairs with the client's fence between its hint and its look at the bells.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  int rc = 0;
  const bool idle = !anything(server) && !stopping_.load() &&
                    server.uids_version == clients_.load(std::memory_order_relaxed)->uids_version();
  if (idle) rc = wait_on_bells(server, bell, server.helper ? kHelperIdleNs : 0);
  for (auto& queues : *server.uids) {
    if (idle && queues->bell(server.number).word.load(std::memory_order_relaxed) != Doorbell::kAsleep)
      queues->false_alarms.fetch_add(1, std::memory_order_relaxed);  // until something of it is served
    queues->get_up(server.number);
  }
  return !server.helper || rc != -ETIMEDOUT;
}

// Sleeps on the bells of all uids, but for those that ring for fun: while there are such, only until the next
// tick.
int Servers::wait_on_bells(Server& server, uint32_t own_bell, uint64_t timeout_ns) {
  struct futex_waitv words[kMostBells];
  uint32_t count = 0;
  words[count++] = {own_bell, reinterpret_cast<uintptr_t>(&no_uid_bell_), FUTEX_32, 0};
  bool all = true;
  for (auto& queues : *server.uids) {
    if (count == kMostBells || queues->false_alarms.load(std::memory_order_relaxed) > kMostFalseAlarms) {
      all = false;
      continue;
    }
    const auto address = reinterpret_cast<uintptr_t>(&queues->bell(server.number).word);
    words[count++] = {Doorbell::kAsleep, address, FUTEX_32, 0};
  }
  const uint64_t limit = all ? timeout_ns : kTickNs;
  // The usual case, one uid, takes the cheaper call; uids_changed() rings that bell, too.
  if (all && count == 2)
    return futex_wait(server.uids->front()->bell(server.number).word, Doorbell::kAsleep, limit);
  const uint64_t end = monotonic_now() + limit;
  timespec until{static_cast<time_t>(end / 1'000'000'000), static_cast<long>(end % 1'000'000'000)};
  long rc = syscall(SYS_futex_waitv, words, count, 0, limit ? &until : nullptr, CLOCK_MONOTONIC);
  return rc < 0 && errno == ETIMEDOUT && all ? -ETIMEDOUT : 0;
}

}  // namespace poly
