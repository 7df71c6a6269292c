// One connection to a Ceph filesystem: made from the settings, named by a uuid, ended in bounded time.
#pragma once

#include <chrono>
#include <string>

#include "libservices/ceph/library.hpp"
#include "libservices/ceph/settings.hpp"

namespace poly::ceph {

class Client {
 public:
  Client() = default;
  ~Client() { (void)disconnect(kSoon, kSoon); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // 0 or -errno, and then `what` is one line for people: which setting or which step is at fault. Ends within
  // about kMountTimeout, but for a reclaim while there is no metadata server.
  // `root` is the directory that has become the client's.
  [[nodiscard]] int connect(const CephSettings&, Callbacks, std::string& root, std::string& what);
  // Of a cluster that takes no answer to be gone; and of one that has to write back what the cache may hold
  // (client_oc_max_dirty, 100 MB) and is slow. A change that is on its way the MDS acknowledges with its next
  // journal flush only (mds_tick_interval, 5 s).
  static constexpr std::chrono::seconds kSoon{3}, kInTime{60};
  // Writes back and leaves the cluster: without its consent when it has not answered after `answer`, or has
  // not let us go after `end`. What the connection is made of then stays until the process ends. 0, or -errno
  // of what was not written back (ETIMEDOUT when left without consent).
  [[nodiscard]] int disconnect(std::chrono::seconds answer, std::chrono::seconds end);

  const Library* operator->() const { return library_; }
  const Library& library() const { return *library_; }
  Mount mount() const { return mount_; }

 private:
  int join(const CephSettings&, Callbacks&, const std::string& root, std::string& what);
  int configure(const CephSettings&, std::string& what);
  int set(const char* option, const std::string& value, std::string& what);

  const Library* library_ = nullptr;
  Mount mount_ = nullptr;
  bool mounted_ = false;
  bool initialized_ = false;
};

}  // namespace poly::ceph
