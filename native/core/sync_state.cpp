// Data that was written, not synced, and is gone with a service that died: who had the file open hears of it.
//
// The state is in the open file's record. It is raised before the write is asked for and lowered before a
// sync is, so that a write beside a sync leaves it raised.
#include "native/core/dispatcher.hpp"

namespace poly {

void Dispatcher::note_write(Instance& instance, uint64_t file) {
  if (!instance.libservice().loses_unsynced()) return;
  uint32_t synced = kSynced;
  files_.record(static_cast<uint32_t>(file)).sync_state.compare_exchange_strong(synced, kUnsynced);
}

// fsync(2) or close(2): -EIO, once, if something was lost.
int Dispatcher::sync(Instance& instance, uint64_t file, int (*run)(Libservice&, File&), File& opened) {
  Libservice& libservice = instance.libservice();
  if (!libservice.loses_unsynced() && !libservice.locks_below()) return run(libservice, opened);
  auto& state = files_.record(static_cast<uint32_t>(file)).sync_state;
  const uint32_t before = state.exchange(kSynced);
  const int err = run(libservice, opened);
  uint32_t synced = kSynced;
  if (err && before == kUnsynced) state.compare_exchange_strong(synced, kUnsynced);
  return before == kLost ? -EIO : err;
}

// After a restart.
void Dispatcher::take_for_lost(Instance& instance) {
  if (!instance.libservice().loses_unsynced()) return;
  files_.for_each_live([&](uint32_t, OpenRecord& record) {
    uint32_t unsynced = kUnsynced;
    if (record.instance == instance.id) record.sync_state.compare_exchange_strong(unsynced, kLost);
  });
}

}  // namespace poly
