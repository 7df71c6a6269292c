#include "fastpath/closer.hpp"

#include <iterator>
#include <thread>

namespace poly {

Closer::Closer() {
  std::thread([state = state_] { run(*state); }).detach();
}

Closer::~Closer() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->over = true;
  }
  state_->wake.notify_one();
}

void Closer::close(Fd fd) {
  std::vector<Fd> one;
  one.push_back(std::move(fd));
  close(std::move(one));
}

void Closer::close(std::vector<Fd> fds) {
  if (fds.empty()) return;
  state_->pending.fetch_add(fds.size(), std::memory_order_relaxed);
  {
    const std::lock_guard lock(state_->mutex);
    state_->queue.insert(state_->queue.end(), std::make_move_iterator(fds.begin()),
                         std::make_move_iterator(fds.end()));
  }
  state_->wake.notify_one();
}

void Closer::run(State& state) {
  std::vector<Fd> batch;
  for (;;) {
    {
      std::unique_lock lock(state.mutex);
      state.wake.wait(lock, [&] { return state.over || !state.queue.empty(); });
      if (state.queue.empty()) return;
      batch.swap(state.queue);
    }
    for (Fd& fd : batch) {
      fd.reset();
      state.pending.fetch_sub(1, std::memory_order_relaxed);
    }
    batch.clear();
  }
}

}  // namespace poly
