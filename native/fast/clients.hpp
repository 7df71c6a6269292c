// Who is attached to the service: the table of clients, and the thread that speaks on the attach socket
// (wire.hpp). A client ends with its socket, which the kernel closes when its process ends.
//
// Locks: each slot's and lock_ are leaves.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "fastpath/closer.hpp"
#include "fastpath/fd.hpp"
#include "native/fast/attached_client.hpp"
#include "native/fast/peer.hpp"

namespace poly {

// What the attach thread asks the service for.
class ClientHost {
 public:
  virtual ~ClientHost() = default;
  // False: not all is there yet that clients of a predecessor had; they ask again until it is.
  virtual bool ready() { return true; }
  // 0, `out` filled and noted in the client: `root_fd` is the root of the instance's own mount. -errno.
  [[nodiscard]] virtual int prove(FastClient& client, uint32_t instance, int root_fd, AttachProven& out) = 0;
  // A client; `process` is its pidfd, or -1.
  virtual void arrived(FastClient& client, int process) = 0;
  // A client that says it was here before, with this key, takes up the files it had open.
  virtual void returned(FastClient& client) = 0;
  // Nothing of the client runs any more: its files are to be closed. From any thread.
  virtual void ended(FastClient& client) = 0;
  // A predecessor's client that was expected has ended instead.
  virtual void stayed_away(uint64_t key) = 0;
};

union AttachMessage {
  AttachHello hello;
  AttachProve prove;
};

class Clients {
 public:
  static constexpr uint32_t kMaxClients = 4096;  // divides 2^16: an id is index | generation << 16
  static constexpr uint32_t kMaxPerUid = 2048;   // connections; one user does not keep out the others
  using UidList = std::vector<std::shared_ptr<UidQueues>>;

  // `uids_changed`: called from the attach thread when a uid has come or gone, as servers must then sleep on
  // other bells. Nothing is to be served from here when this is destroyed.
  Clients(ClientHost& host, const Placement& placement, std::function<void()> uids_changed);
  ~Clients() { stop(); }

  // A client of a predecessor, which may return with this key while its process (a pidfd) lives. Before
  // start().
  void expect(uint64_t key, Fd process);
  // Listens at `path` (mode 0666: who may do what is decided by credentials) and starts the attach thread.
  [[nodiscard]] int start(const std::string& path);
  void stop();

  // Null when there is none (any more). For servers: some tens of nanoseconds.
  std::shared_ptr<AttachedClient> find(uint32_t id);
  std::vector<std::shared_ptr<AttachedClient>> all();
  std::shared_ptr<const UidList> uids();
  // Grows with every change of uids().
  uint64_t uids_version() const { return uids_version_.load(std::memory_order_acquire); }

 private:
  struct Slot {
    std::mutex lock;
    std::shared_ptr<AttachedClient> client;  // guarded by lock
    uint16_t generation = 0;                 // attach thread only
  };
  struct Connection {
    Fd socket;
    uid_t uid = 0;
    std::shared_ptr<AttachedClient> client;
  };

  void run();
  void accept_all();
  [[nodiscard]] bool may_connect(int socket, uid_t& uid);
  // Descriptors that no more can be had for are waited for; a level-triggered listener would spin.
  void pause_listening(bool pause);
  // False: the connection is over.
  [[nodiscard]] bool serve(Connection&);
  [[nodiscard]] bool answer_message(Connection&, const AttachMessage&, ssize_t size, std::vector<Fd>& fds);
  [[nodiscard]] bool answer_hello(Connection&, const AttachHello&, std::vector<Fd>& fds);
  [[nodiscard]] bool answer_prove(Connection&, const AttachProve&, std::vector<Fd>& fds);
  [[nodiscard]] int admit(Connection&, const AttachHello&, int memfd, AttachWelcome&);
  [[nodiscard]] int fast_client(const AttachHello&, const Peer&, std::shared_ptr<FastClient>& out);
  // Null: all are taken. Attach thread only, as is insert().
  [[nodiscard]] Slot* free_slot();
  void insert(Slot&, const std::shared_ptr<AttachedClient>&);
  [[nodiscard]] int queues_of(uid_t uid, std::shared_ptr<UidQueues>& out);
  void drop(Connection&);
  Closer& closer_of(uid_t uid);
  void process_ended(int pidfd);
  void forget_unused_uid(uid_t uid);
  void publish_uids();

  ClientHost& host_;
  const Placement placement_;
  const std::function<void()> uids_changed_;
  const uint32_t incarnation_;
  Fd listener_, epoll_, stop_event_;
  bool paused_ = false;  // attach thread only
  std::thread thread_;
  std::array<Slot, kMaxClients> slots_;
  // The attach thread's own.
  std::map<int, Connection> connections_;
  std::map<uid_t, std::shared_ptr<UidQueues>> queues_;
  std::map<uint64_t, std::pair<pid_t, std::weak_ptr<FastClient>>> by_key_;
  std::map<int, std::pair<uint64_t, Fd>> expected_;  // by pidfd
  // What clients have sent that is not what it should be, and sockets that may hold such: each uid (nearly)
  // has a thread of its own that waits for them to close.
  std::array<std::unique_ptr<Closer>, 64> closers_;

  std::mutex lock_;
  std::shared_ptr<const UidList> uids_;  // guarded by lock_
  std::atomic<uint64_t> uids_version_{1};
};

}  // namespace poly
