#include "libservices/ceph/client.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <future>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "libservices/ceph/credentials.hpp"

namespace poly::ceph {
namespace {

constexpr const char* kMountTimeout = "8";  // seconds

// Asks the metadata server: it counts a directory's entries always (Client::_getxattr of 16.2).
void ask(const Library& library, Mount mount) {
  Inode* root;
  if (library.ll_lookup_root(mount, &root) != 0) return;
  char entries[24];
  (void)library.ll_getxattr(mount, root, "ceph.dir.entries", entries, sizeof entries,
                            own_permissions(library));
  (void)library.ll_forget(mount, root, 1);
}

// Of a client's end, shared with the thread that brings it about.
struct Leaving {
  std::promise<void> answered;
  std::promise<int> left;
};

}  // namespace

int Client::set(const char* option, const std::string& value, std::string& what) {
  const int err = library_->conf_set(mount_, option, value.c_str());
  if (err) what = std::string("setting ") + option + "=" + value;
  return err;
}

int Client::configure(const CephSettings& s, std::string& what) {
  if (int err = library_->conf_read_file(mount_, s.conf.c_str())) {
    what = "reading " + s.conf;
    return err;
  }
  struct Option {
    const char* name;
    std::string value;
  };
  std::vector<Option> options{
      // Who may do what is decided before we are called (libservice.hpp): by the kernel, or by the
      // dispatcher.
      {"client_permissions", "false"},
      {"fuse_default_permissions", "true"},
      {"client_acl_type", "posix_acl"},
      {"client_mount_timeout", kMountTimeout},
      // After a lost OSD or MDS is back, requests go again at once, not after 10 and 5 seconds.
      {"objecter_timeout", "2"},
      {"objecter_tick_interval", "1"},
      {"log_to_stderr", "false"},
  };
  if (!s.keyring.empty()) {
    if (access(s.keyring.c_str(), R_OK) != 0) {
      what = "keyring " + s.keyring;
      return -errno;
    }
    options.push_back({"keyring", s.keyring});
  }
  if (s.cache) options.push_back({"client_oc_size", std::to_string(s.cache)});
  // With nothing allowed to be dirty, libcephfs writes through its cache: the call ends when the OSDs have
  // it.
  if (!s.write_back) {
    options.push_back({"client_oc_max_dirty", "0"});
  } else if (s.dirty) {
    options.push_back({"client_oc_max_dirty", std::to_string(s.dirty)});
    options.push_back({"client_oc_target_dirty", std::to_string(s.dirty / 2)});
  }
  for (auto& option : options) {
    if (int err = set(option.name, option.value, what)) return err;
  }
  return 0;
}

// A user whose rights end at a directory is told so of those above it.
int Client::connect(const CephSettings& s, Callbacks callbacks, std::string& root, std::string& what) {
  library_ = load(what);
  if (!library_) return -ENOSYS;
  for (size_t end = s.widen ? 0 : s.root.size();; end = std::min(s.root.find('/', end + 1), s.root.size())) {
    root = end == 0 ? "/" : s.root.substr(0, end);
    const int err = join(s, callbacks, root, what);
    if ((err != -EACCES && err != -EPERM) || !initialized_ || root == s.root) return err;
    (void)library_->release(std::exchange(mount_, nullptr));
    initialized_ = false;
  }
}

int Client::join(const CephSettings& s, Callbacks& callbacks, const std::string& root, std::string& what) {
  if (int err = library_->create(&mount_, s.user.c_str())) {
    what = "user " + s.user;
    return err;
  }
  if (int err = configure(s, what)) return err;
  if (int err = library_->init(mount_)) {
    const std::string keys = s.keyring.empty() ? "the keyring of its configuration" : "keyring " + s.keyring;
    what = "client." + s.user + " with " + keys + ", of the cluster in " + s.conf;
    return err;
  }
  initialized_ = true;
  if (!s.fs.empty()) {
    if (int err = library_->select_filesystem(mount_, s.fs.c_str())) {
      what = "filesystem " + s.fs;
      return err;
    }
  }
  if (s.succeeds) {
    // The metadata server ends the predecessor's session at once, where it would wait a minute for it else;
    // and has the OSDs refuse what is still on its way from it.
    (void)library_->start_reclaim(mount_, s.uuid.c_str(), kReclaimReset);
    library_->finish_reclaim(mount_);
  }
  library_->set_uuid(mount_, s.uuid.c_str());
  library_->ll_register_callbacks(mount_, &callbacks);
  if (int err = library_->mount(mount_, root.c_str())) {
    what = s.root + (s.fs.empty() ? "" : " of filesystem " + s.fs) + " for client." + s.user;
    return err;
  }
  mounted_ = true;
  return 0;
}

int Client::disconnect(std::chrono::seconds answer, std::chrono::seconds end) {
  if (!mount_) return 0;
  const auto begin = std::chrono::steady_clock::now();
  auto leaving = std::make_shared<Leaving>();
  auto answered = leaving->answered.get_future();
  auto left = leaving->left.get_future();
  std::thread([leaving, library = library_, mount = std::exchange(mount_, nullptr), mounted = mounted_] {
    int err = 0;
    if (mounted) ask(*library, mount);
    leaving->answered.set_value();
    if (mounted) {
      err = library->sync_fs(mount);
      (void)library->unmount(mount);
    }
    (void)library->release(mount);
    leaving->left.set_value(err);
  }).detach();
  if (answered.wait_until(begin + answer) != std::future_status::ready) return -ETIMEDOUT;
  return left.wait_until(begin + end) == std::future_status::ready ? left.get() : -ETIMEDOUT;
}

}  // namespace poly::ceph
