// A fast-path client as calls see it: one process attached to the service, whom the kernel vouches for.
//
// What may change while calls run (credentials, proofs) is one snapshot that is replaced whole: a call takes
// one and is judged by it from beginning to end. Thread safety: all of it, from any thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "fastpath/mount_flags.hpp"
#include "native/core/access.hpp"

namespace poly {

struct ClientView {
  Credentials credentials{.uid = UINT32_MAX, .gid = UINT32_MAX, .groups = {}, .capable = false};
  bool one_identity = true;  // real, effective and saved ids are the same
  pid_t pid = 0;
  struct Proof {
    uint32_t instance = 0;
    MountFlags flags;
  };
  std::vector<Proof> proven;  // instances whose mounts the client has shown to reach

  const Proof* proof(uint32_t instance) const {
    for (const Proof& p : proven) {
      if (p.instance == instance) return &p;
    }
    return nullptr;
  }
};

// What a client has asked, for `poly stat --clients`.
struct ClientStats {
  std::atomic<uint64_t> calls{0}, declined{0}, total_ns{0};

  void add(bool left_to_kernel, uint64_t ns) {
    calls.fetch_add(1, std::memory_order_relaxed);
    total_ns.fetch_add(ns, std::memory_order_relaxed);
    if (left_to_kernel) declined.fetch_add(1, std::memory_order_relaxed);
  }
};

class FastClient {
 public:
  // Open files of one client, directory handles included; beyond it opens are left to the kernel.
  static constexpr uint32_t kMaxFiles = 1u << 16;

  // `key`: random and never 0. Nobody, until it has credentials.
  explicit FastClient(uint64_t key) : key(key), view_(std::make_shared<ClientView>()) {}

  std::shared_ptr<const ClientView> view() const {
    std::lock_guard guard(lock_);
    return view_;
  }
  // As identify_peer() found them: root has root's file capabilities, nobody else has any. What was proven
  // with other credentials is proven no more.
  void set_credentials(uid_t uid, gid_t gid, std::vector<gid_t> groups, pid_t pid, bool one_identity = true) {
    auto fresh = std::make_shared<ClientView>();
    std::ranges::sort(groups);
    fresh->credentials = {uid, gid, std::move(groups), uid == 0};
    fresh->one_identity = one_identity;
    fresh->pid = pid;
    std::lock_guard guard(lock_);
    view_ = std::move(fresh);
  }
  void prove(uint32_t instance, const MountFlags& flags) {
    std::lock_guard guard(lock_);
    auto fresh = std::make_shared<ClientView>(*view_);
    std::erase_if(fresh->proven, [&](const ClientView::Proof& p) { return p.instance == instance; });
    fresh->proven.push_back({instance, flags});
    view_ = std::move(fresh);
  }

  const uint64_t key;
  ClientStats stats;
  // Never too few: files that were given to the kernel are not taken off before it matters (calls.cpp). Of a
  // client of a predecessor: Dispatcher::count_client_files().
  std::atomic<uint32_t> open_files{0};

 private:
  mutable std::mutex lock_;
  std::shared_ptr<const ClientView> view_;  // guarded by lock_
};

}  // namespace poly
