// A filesystem service with real FUSE mounts, in a mount namespace of its own, and processes that use them.
//
// The service's process never touches a mount itself: clients are processes of their own, forked before the
// service has threads, and hold none of its descriptors. So whatever dies, the kernel ends the connections
// and nobody hangs. Clients and service talk through shared memory. Needs root.
#pragma once

#include <linux/fuse.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "native/fuse/notifier.hpp"
#include "native/fuse/workers.hpp"
#include "test/unit/local_rig.hpp"

namespace rig {

// Memory that forked processes share; zeroed.
template <typename T>
class Shared {
 public:
  Shared() {
    void* memory = ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    value_ = new (memory) T;
  }
  ~Shared() { ::munmap(value_, sizeof(T)); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  T* operator->() { return value_; }
  T& operator*() { return *value_; }

 private:
  T* value_;
};

class MountRig {
 public:
  struct Mount {
    std::string path;
    std::unique_ptr<Instance> instance;
    std::shared_ptr<Connection> connection;
  };

  explicit MountRig(size_t mounts = 1, double timeout = 600, Where where = kEverywhere[2])
      : local(where), timeout_(timeout) {
    REQUIRE(::unshare(CLONE_NEWNS) == 0);
    REQUIRE(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
    for (size_t i = 0; i < mounts; i++) {
      this->mounts.push_back({dir_.path + "/" + std::to_string(i), nullptr, nullptr});
      REQUIRE(::mkdir(this->mounts.back().path.c_str(), 0755) == 0);
    }
  }
  ~MountRig() {
    for (pid_t pid : clients_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    for (Mount& mount : mounts) {
      CHECK_EQ(::umount2(mount.path.c_str(), MNT_DETACH), 0);
      if (!mount.instance) continue;
      dispatcher->detach_instance(*mount.instance);
      CHECK(workers->remove(mount.connection));
      notifier.forget(*mount.connection);
      dispatcher->drop_instance(*mount.instance);
      mount.connection = nullptr;
    }
    workers = nullptr;
    dispatcher = nullptr;
    mounts.clear();
    host = nullptr;
  }

  // Before start(). The body returns when it is done; what its checks find counts.
  void client(const std::function<void()>& body) {
    REQUIRE(!dispatcher);
    const pid_t parent = ::getpid(), pid = ::fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != parent) ::_exit(1);
      ::alarm(kSeconds);
      check::failures.store(0);
      while (!started_->load()) ::usleep(1000);
      body();
      std::fflush(nullptr);
      ::_exit(check::failures.load() == 0 ? 0 : 1);
    }
    clients_.push_back(pid);
  }

  void start() {
    REQUIRE(PoolMemory::create(memfd_) == 0 && pool.map(memfd_.get()) == 0);
    dispatcher = std::make_unique<Dispatcher>(pool);
    host = std::make_shared<LibserviceHost>();
    host->private_backend = local.where.memory;
    host->libservice = std::make_unique<ForwardingLibservice>(static_cast<Libservice&>(*local.fs));
    workers = std::make_unique<Workers>(*dispatcher, 16, [](uint32_t) {});
    uint32_t id = 1;
    for (Mount& mount : mounts) serve(mount, id++);
    started_->store(true);
  }

  // Waits for all clients; false when one failed or took too long.
  bool wait() {
    bool ok = true;
    for (pid_t pid : clients_) {
      int status = -1;
      ok &= ::waitpid(pid, &status, 0) == pid && status == 0;
    }
    clients_.clear();
    return ok;
  }

  Instance& instance(size_t i = 0) { return *mounts[i].instance; }
  // As a fast-path client asks.
  int fast(Request& request, Reply& reply, size_t i = 0) {
    request.fast = true;
    return dispatcher->dispatch(instance(i), request, reply, 0);
  }
  // A node's id, as if a kernel had looked it up; 0: none.
  uint64_t node(const char* name, size_t i = 0) { return node_in(instance(i).root, name, i); }
  uint64_t node_in(uint64_t directory, const char* name, size_t i = 0) {
    Request request;
    request.op = Op::lookup;
    request.node = directory;
    request.name = name;
    Reply reply;
    CHECK_EQ(dispatcher->dispatch(instance(i), request, reply, 0), 0);
    return reply.entry.node;
  }

  static constexpr unsigned kSeconds = 100;
  LocalRig local;
  PoolMemory pool;
  std::shared_ptr<LibserviceHost> host;
  Notifier notifier;
  std::unique_ptr<Dispatcher> dispatcher;
  std::unique_ptr<Workers> workers;
  std::vector<Mount> mounts;

 private:
  void serve(Mount& mount, uint32_t id) {
    mount.instance = std::make_unique<Instance>(id, host);
    mount.instance->attr_timeout = mount.instance->entry_timeout = static_cast<uint64_t>(timeout_ * 1e9);
    REQUIRE(dispatcher->add_instance(*mount.instance, "", false) == 0);
    std::vector<Fd> queues;
    queues.emplace_back(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
    REQUIRE(static_cast<bool>(queues[0]));
    auto master = static_cast<uint32_t>(queues[0].get());
    const std::string options = "fd=" + std::to_string(master) +
                                ",rootmode=40755,user_id=0,group_id=0,default_permissions,allow_other";
    REQUIRE(::mount("poly-unit", mount.path.c_str(), "fuse", MS_NOSUID | MS_NODEV, options.c_str()) == 0);
    while (queues.size() < workers->queues()) {
      Fd clone(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
      REQUIRE(clone && ::ioctl(clone.get(), FUSE_DEV_IOC_CLONE, &master) == 0);
      queues.push_back(std::move(clone));
    }
    mount.connection = std::make_shared<Connection>(*mount.instance, std::move(queues),
                                                    ConnectionOptions{timeout_, timeout_}, notifier);
    mount.instance->invalidator = mount.connection.get();
    dispatcher->set_lock_completion(id, mount.connection.get());
    REQUIRE(workers->add(mount.connection) == 0);
  }

  const double timeout_;
  TempDir dir_;
  Fd memfd_;
  std::vector<pid_t> clients_;
  Shared<std::atomic<bool>> started_;
};

}  // namespace rig
