// A filesystem service: the filesystem table of one process, from the keeper's fds to served mounts.
//
// Called by one control thread (Node's); the only thing that happens on others is the `ended` callback.
// Everything here fails with one line of text and an errno, for the person who reads the log.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "libservices/ceph/settings.hpp"
#include "native/core/dispatcher.hpp"
#include "native/core/keeper_client.hpp"
#include "native/core/parking_lot.hpp"
#include "native/fast/front_end.hpp"
#include "native/fuse/connection.hpp"
#include "native/fuse/notifier.hpp"
#include "native/fuse/workers.hpp"

namespace poly {

// What went wrong: 0 and empty, or -errno and the call that failed.
struct Failure {
  int error = 0;
  std::string what;
  explicit operator bool() const { return error != 0; }
};

struct LibserviceSpec {
  uint32_t id = 0;
  std::string type;    // "memory", "local" or "ceph"
  std::string source;  // local, ceph
  uint64_t size = 0, inodes = 0;
  mode_t mode = 0755;
  uid_t uid = 0;
  gid_t gid = 0;
  std::string huge;
  CephSettings ceph;
  double op_timeout = 0;  // seconds; 0: calls wait for ceph for as long as it takes
};

struct InstanceSpec {
  uint32_t id = 0;
  uint32_t libservice = 0;
  std::string subdirectory;
  bool read_only = false;
  double attr_timeout = 1.0, entry_timeout = 1.0;
  // Of the mount that shows it; 0: unknown, and then the fast path does not serve it.
  dev_t device = 0;
  uint64_t mount_id = 0;
  bool allow_other = false;  // that mount's option (mount.fuse(8))
};

class Service {
 public:
  // `scope`: what all names of its fds with the keeper begin with ("service-3/"). `poll_cpu`: the CPU that is
  // the fast path's to poll on, -1 for none.
  Service(Fd keeper, std::string scope, size_t max_threads, int poll_cpu,
          std::function<void(uint32_t instance)> ended);
  ~Service();

  // Takes up or creates pool memory, and listens for fast-path clients at `attach_socket` (empty: there are
  // none). First call, once.
  [[nodiscard]] Failure start(const std::string& attach_socket);
  // `root`: of ceph, the directory that is its root (CephSettings::widen).
  [[nodiscard]] Failure add_libservice(const LibserviceSpec&, std::string& root);
  // What is in `out` still has to be left: leave().
  [[nodiscard]] Failure remove_libservice(uint32_t id, std::shared_ptr<LibserviceHost>& out);
  // Takes leave of a backend, in any thread; may take a minute. "", or one line of what may be lost. Then it
  // is to be dropped where the service is used.
  [[nodiscard]] static std::string leave(const std::shared_ptr<LibserviceHost>&);
  [[nodiscard]] Failure add_instance(const InstanceSpec&);
  // The mount must be gone, or is aborted by the keeper and this service closing its last fds.
  [[nodiscard]] Failure remove_instance(uint32_t id);
  // Answers with EIO what the backend of an instance does not, and all further calls until it does.
  [[nodiscard]] Failure release(uint32_t id, size_t& answered);
  [[nodiscard]] Failure set_read_only(uint32_t id, bool read_only);
  // `keeper` leads to one that took the place of a keeper that died: everything that must outlive this
  // service goes there.
  [[nodiscard]] Failure hand_over(Fd keeper);
  // Ends all threads. What it returns still has to be left: leave().
  std::vector<std::shared_ptr<LibserviceHost>> stop();

  struct Served {
    std::unique_ptr<Instance> instance;
    std::shared_ptr<Connection> connection;
  };
  const std::map<uint32_t, Served>& instances() const { return served_; }
  Dispatcher& dispatcher() { return *dispatcher_; }
  Workers& workers() { return *workers_; }
  FrontEnd* fast() { return fast_.get(); }  // null: none

 private:
  [[nodiscard]] Failure keep(const std::string& name, const Fd& fd);
  [[nodiscard]] Failure parked(const std::string& prefix, std::vector<ParkedFd>& out);
  [[nodiscard]] Failure root_fd(const LibserviceSpec&, Fd& out);
  [[nodiscard]] Failure make_local(const LibserviceSpec&, LibserviceHost&);
  [[nodiscard]] Failure make_ceph(const LibserviceSpec&, LibserviceHost&, std::string& root);
  [[nodiscard]] int serve_fast(const InstanceSpec&, Instance&);
  [[nodiscard]] Failure queues(uint32_t instance, std::vector<Fd>& out);
  InstanceRecord* instance_record(uint32_t id, bool& known);

  KeeperClient keeper_;
  const std::string scope_;
  KeeperParking parking_;
  const size_t max_threads_;
  const int poll_cpu_;
  const std::function<void(uint32_t)> ended_;
  Fd pool_fd_;
  PoolMemory pool_;
  Notifier notifier_;
  std::map<uint32_t, std::shared_ptr<LibserviceHost>> libservices_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::map<uint32_t, Served> served_;
  std::set<uint32_t> awaited_;   // instances of a predecessor that have not been added again
  std::vector<Served> held_up_;  // removed while a thread was inside
  std::unique_ptr<Workers> workers_;
  std::unique_ptr<FrontEnd> fast_;
  std::unique_ptr<BackendWatch>
      watch_;  // last: it looks at the others; from the first libservice that is watched
};

}  // namespace poly
