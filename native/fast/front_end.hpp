// The fast path's front end of a service: attach socket, clients, servers, and the dispatcher below them. The
// sibling of native/fuse: nothing below the dispatcher knows which of the two asked.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "libservices/parking.hpp"
#include "native/core/dispatcher.hpp"
#include "native/fast/clients.hpp"
#include "native/fast/servers.hpp"

namespace poly {

// What proves that a descriptor is the root of an instance's own mount, and not of another view of it (a bind
// mount, perhaps read-only; another namespace's copy).
struct MountIdentity {
  dev_t device = 0;
  uint64_t mount_id = 0;  // statx(2) stx_mnt_id
  uint64_t root_inode = 0;
  bool allow_other = false;  // without it FUSE lets in nobody but who has mounted it
};

class FrontEnd final : public ClientHost, public CallHandler {
 public:
  // `parking` keeps the clients' pidfds under names that begin with `prefix`. `poll_cpu`: see Servers.
  FrontEnd(Dispatcher& dispatcher, ParkingLot& parking, std::string prefix, uint32_t max_threads,
           int poll_cpu);
  ~FrontEnd() override { stop(); }

  // Listens at `socket` and starts the threads. `parked`: what a predecessor's parking has. 0 or -errno.
  [[nodiscard]] int start(const std::string& socket, std::vector<ParkedFd> parked);
  // False: a thread is held up in a backend.
  bool stop();
  // Shows the calls under way; those for which it says true are answered with EIO.
  void watch(const BackendWatch::Judge& judge);

  // A predecessor's instances are to be taken up: until they are, or kLongestRestoring is over, nobody
  // attaches. A call that is asked again must find the instance and what it has left there; declined, it
  // might run twice.
  void restoring();
  void restored() { restoring_until_.store(0); }

  void add(uint32_t instance, const MountIdentity&);
  void remove(uint32_t instance);

  // The parking lot has lost all: what the clients that are here have parked goes there again.
  void park_again();

  const Servers& servers() const { return servers_; }
  std::vector<std::shared_ptr<AttachedClient>> clients() { return clients_.all(); }

  bool ready() override;
  int prove(FastClient&, uint32_t instance, int root_fd, AttachProven& out) override;
  void arrived(FastClient&, int process) override;
  void returned(FastClient&) override;
  void ended(FastClient&) override;
  void stayed_away(uint64_t key) override;
  int32_t run(AttachedClient&, uint32_t buffer, uint32_t sequence, const WireCall&, std::string_view path,
              std::string_view path2, std::span<std::byte> data, WireAnswer&, ServerContext&) override;
  void begin(ServerContext&) override;
  void end(ServerContext&) override;

 private:
  std::string parked_name(uint64_t key) const;

  Dispatcher& dispatcher_;
  ParkingLot& parking_;
  const std::string prefix_;
  Servers servers_;
  Clients clients_;
  bool started_ = false;
  static constexpr uint64_t kLongestRestoring = 5'000'000'000;
  std::atomic<uint64_t> restoring_until_{0};  // CLOCK_MONOTONIC ns; 0: nothing is to come
  std::mutex lock_;
  std::map<uint32_t, MountIdentity> mounts_;  // guarded by lock_
};

}  // namespace poly
