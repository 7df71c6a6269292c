#include "native/core/backend_watch.hpp"

#include "native/core/thread_start.hpp"

namespace poly {

BackendWatch::BackendWatch(Dispatcher& dispatcher, std::function<void(const Judge&)> visit)
    : dispatcher_(dispatcher), visit_(std::move(visit)), thread_([this] { run(); }) {}

void BackendWatch::stop() {
  {
    std::lock_guard guard(lock_);
    stopping_ = true;
    wake_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void BackendWatch::run() {
  begin_thread("poly-watch");
  std::unique_lock guard(lock_);
  while (!wake_.wait_for(guard, kTick, [&] { return stopping_; })) {
    guard.unlock();
    look();
    guard.lock();
  }
}

void BackendWatch::look() {
  std::lock_guard guard(look_lock_);
  const uint64_t now = coarse_ns();
  std::map<LibserviceHost*, Waiting> waiting;
  visit_([&](const CallUnderWay& call) {
    const Dispatcher::Use instance = dispatcher_.use(call.instance);
    if (!instance || !instance->host->watched) return false;
    LibserviceHost& host = *instance->host;
    auto [it, first] = waiting.try_emplace(&host, Waiting{instance->host, call.since});
    if (call.since < it->second.since) it->second.since = call.since;
    const bool overdue = host.op_timeout && now >= call.since + host.op_timeout;
    if (overdue) host.released.store(true);
    return overdue && !call.answered;
  });
  for (auto& [host, state] : waiting) {
    if (now < state.since + kNotice && !host->released.load()) continue;
    host->silent_since.store(state.since);
    silent_[host] = state.host;
  }
  std::erase_if(silent_, [&](const auto& item) {
    LibserviceHost& host = *item.second;
    auto it = waiting.find(&host);
    if (it != waiting.end() && (host.released.load() || now >= it->second.since + kNotice)) return false;
    host.silent_since.store(0);
    host.released.store(false);
    return true;
  });
}

size_t BackendWatch::release(LibserviceHost& host) {
  std::lock_guard guard(look_lock_);
  size_t answered = 0;
  host.released.store(true);  // first: what comes now does not wait
  visit_([&](const CallUnderWay& call) {
    const Dispatcher::Use instance = dispatcher_.use(call.instance);
    if (!instance || instance->host.get() != &host) return false;
    silent_[&host] = instance->host;
    const bool answer = !call.answered;
    answered += answer;
    return answer;
  });
  if (!silent_.contains(&host)) host.released.store(false);  // nothing was held up
  return answered;
}

}  // namespace poly
