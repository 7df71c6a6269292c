#include "native/core/service.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "libservices/ceph/ceph.hpp"
#include "libservices/local/local.hpp"
#include "libservices/memory/memory.hpp"

namespace poly {
namespace {

// What stands after the scope in the names of the keeper's fds.
constexpr const char* kStateName = "state";
std::string fuse_prefix(uint32_t instance) {
  return "fuse/" + std::to_string(instance) + "/";
}
std::string root_name(uint32_t libservice) {
  return "root/" + std::to_string(libservice);
}
constexpr size_t kMemoryReadFds = 256;
std::string client_prefix() {
  return "client/";
}
std::string park_prefix(uint32_t libservice) {
  return "park/" + std::to_string(libservice) + "/";
}

// False: some fast-path call of the instance is held up.
bool wait_for_calls(const Instance& instance) {
  constexpr auto kLongest = std::chrono::milliseconds(500);
  auto deadline = std::chrono::steady_clock::now() + kLongest;
  while (instance.fast_calls.load(std::memory_order_acquire) != 0) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

uint64_t nanoseconds(double seconds) {
  return static_cast<uint64_t>(std::min(seconds, 1e9) * 1e9);
}

}  // namespace

Service::Service(Fd keeper, std::string scope, size_t max_threads, int poll_cpu,
                 std::function<void(uint32_t)> ended)
    : keeper_(KeeperClient::from_fd(std::move(keeper))),
      scope_(std::move(scope)),
      parking_(keeper_),
      max_threads_(max_threads),
      poll_cpu_(poll_cpu),
      ended_(std::move(ended)) {}

Service::~Service() {
  stop();
  for (auto& [id, host] : libservices_) host->libservice->set_invalidate_sink(nullptr);
}

Failure Service::start(const std::string& attach_socket) {
  std::vector<NamedFds> found;
  if (int err = keeper_.get(scope_ + kStateName, found)) return {err, "asking the keeper for pool memory"};
  if (!found.empty() && !found[0].second.empty()) {
    pool_fd_ = std::move(found[0].second[0]);
  } else {
    if (int err = PoolMemory::create(pool_fd_)) return {err, "creating pool memory"};
    if (Failure failure = keep(kStateName, pool_fd_)) return failure;
  }
  if (int err = pool_.map(pool_fd_.get())) return {err, "mapping pool memory"};
  for (uint32_t i = 0; i < PoolMemory::kInstances; i++) {
    if (pool_.instances[i].state.load() != 0) awaited_.insert(pool_.instances[i].id);
  }
  dispatcher_ = std::make_unique<Dispatcher>(pool_);
  workers_ = std::make_unique<Workers>(*dispatcher_, max_threads_, ended_);
  if (attach_socket.empty()) return {};
  const std::string prefix = scope_ + client_prefix();
  std::vector<ParkedFd> clients;
  if (Failure failure = parked(prefix, clients)) return failure;
  fast_ = std::make_unique<FrontEnd>(*dispatcher_, parking_, prefix, static_cast<uint32_t>(max_threads_),
                                     poll_cpu_);
  if (!awaited_.empty()) fast_->restoring();
  if (int err = fast_->start(attach_socket, std::move(clients))) return {err, attach_socket};
  return {};
}

// Hands over what must outlive this service; `name` without the scope.
Failure Service::keep(const std::string& name, const Fd& fd) {
  const int raw = fd.get();
  if (int err = keeper_.put(scope_ + name, std::span(&raw, 1)))
    return {err, "handing " + name + " to the keeper"};
  return {};
}

// Should we die meanwhile: a connection goes when all that serving it needs is there, so a successor takes
// the mount up or finds no connection. What a thread is held up in (held_up_) has no mount any more.
Failure Service::hand_over(Fd keeper) {
  if (int err = keeper_.replace(std::move(keeper))) return {err, "the new keeper"};
  if (Failure failure = keep(kStateName, pool_fd_)) return failure;
  for (auto& [id, host] : libservices_) {
    if (Failure failure = keep(root_name(id), host->root)) return failure;
    if (int err = host->libservice->park_again())
      return {err, "handing " + park_prefix(id) + " to the keeper"};
  }
  if (fast_) fast_->park_again();
  for (auto& [id, served] : served_) {
    const std::vector<Fd>& queues = served.connection->queues;
    for (size_t i = queues.size(); i-- > 0;) {  // the mounted one last: without it there is no connection
      if (Failure failure = keep(fuse_prefix(id) + std::to_string(i), queues[i])) return failure;
    }
  }
  return {};
}

Failure Service::parked(const std::string& prefix, std::vector<ParkedFd>& out) {
  std::vector<NamedFds> found;
  if (int err = keeper_.get(prefix, found)) return {err, "asking the keeper for " + prefix};
  for (auto& [name, fds] : found) {
    if (!fds.empty()) out.push_back({name, std::move(fds[0])});
  }
  return {};
}

// The root directory as the keeper has it, else made or opened now and put there.
Failure Service::root_fd(const LibserviceSpec& spec, Fd& out) {
  const std::string name = root_name(spec.id);
  std::vector<NamedFds> found;
  if (int err = keeper_.get(scope_ + name, found)) return {err, "asking the keeper for " + name};
  for (auto& [found_name, fds] : found) {
    if (found_name != scope_ + name || fds.empty()) continue;
    out = std::move(fds[0]);
    return {};
  }
  if (spec.type == "memory") {
    MemoryOptions options{spec.size, spec.inodes, spec.mode, spec.uid, spec.gid, spec.huge};
    if (int err = make_memory(options, out)) return {err, "mounting a private tmpfs"};
  } else {
    int fd = open(spec.source.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return {-errno, spec.source};
    out.reset(fd);
  }
  return keep(name, out);
}

Failure Service::make_local(const LibserviceSpec& spec, LibserviceHost& host) {
  Fd root;
  if (Failure failure = root_fd(spec, root)) return failure;
  LocalOptions options;
  options.parking_prefix = scope_ + park_prefix(spec.id);
  options.parking = &parking_;
  options.handles = dispatcher_.get();
  if (Failure failure = parked(options.parking_prefix, options.parked)) return failure;
  host.root.reset(fcntl(root.get(), F_DUPFD_CLOEXEC, 0));
  if (!host.root) return {-errno, root_name(spec.id)};
  host.private_backend = spec.type == "memory";
  // Elsewhere an open file may be in somebody's way: of a lease, or of unmounting.
  if (host.private_backend) options.read_fds = kMemoryReadFds;
  std::unique_ptr<Local> local;
  if (int err = Local::create(std::move(root), std::move(options), local))
    return {err, spec.type + " " + spec.source};
  host.libservice = std::move(local);
  return {};
}

Failure Service::make_ceph(const LibserviceSpec& spec, LibserviceHost& host, std::string& root) {
  CephSettings settings = spec.ceph;
  settings.succeeds = !awaited_.empty();
  std::unique_ptr<Ceph> ceph;
  std::string what;
  if (int err = Ceph::create(settings, ceph, what)) return {err, what};
  ceph->set_invalidate_sink(dispatcher_.get());
  root = ceph->root_path();
  host.libservice = std::move(ceph);
  host.watched = true;
  return {};
}

Failure Service::add_libservice(const LibserviceSpec& spec, std::string& root) {
  if (libservices_.contains(spec.id)) return {-EEXIST, "libservice " + std::to_string(spec.id)};
  if (spec.type != "memory" && spec.type != "local" && spec.type != "ceph")
    return {-EINVAL, "libservice type '" + spec.type + "'"};
  auto host = std::make_shared<LibserviceHost>();
  host->id = spec.id;
  if (Failure failure = spec.type == "ceph" ? make_ceph(spec, *host, root) : make_local(spec, *host))
    return failure;
  host->op_timeout = nanoseconds(spec.op_timeout);
  if (host->watched && !watch_) {
    watch_ = std::make_unique<BackendWatch>(*dispatcher_, [this](const BackendWatch::Judge& judge) {
      workers_->watch(judge);
      if (fast_) fast_->watch(judge);
    });
  }
  libservices_[spec.id] = std::move(host);
  return {};
}

Failure Service::remove_libservice(uint32_t id, std::shared_ptr<LibserviceHost>& out) {
  auto it = libservices_.find(id);
  if (it == libservices_.end()) return {-ENOENT, "libservice " + std::to_string(id)};
  if (it->second->instances.load() != 0) return {-EBUSY, "libservice " + std::to_string(id)};
  out = std::move(it->second);
  libservices_.erase(it);
  (void)keeper_.clear(scope_ + park_prefix(id));
  if (int err = keeper_.drop(scope_ + root_name(id))) return {err, "dropping " + root_name(id)};
  return {};
}

// All fds of the connection: those the keeper has, plus clones for readers that have none yet. A clone is
// with the keeper before anything is read through it: what a lost clone has read is lost too.
Failure Service::queues(uint32_t instance, std::vector<Fd>& out) {
  std::string prefix = scope_ + fuse_prefix(instance);
  std::vector<NamedFds> found;
  if (int err = keeper_.get(prefix, found)) return {err, "asking the keeper for the FUSE connection"};
  std::map<size_t, Fd> by_number;
  for (auto& [name, fds] : found) {
    size_t number = strtoul(name.c_str() + prefix.size(), nullptr, 10);
    if (!fds.empty()) by_number[number] = std::move(fds[0]);
  }
  if (!by_number.contains(0))
    return {-ENOENT, "the keeper has no FUSE connection for instance " + std::to_string(instance)};
  uint32_t master = static_cast<uint32_t>(by_number[0].get());
  for (size_t i = 1; i < workers_->queues(); i++) {
    if (by_number.contains(i)) continue;
    Fd clone(open("/dev/fuse", O_RDWR | O_CLOEXEC));
    if (!clone) return {-errno, "/dev/fuse"};
    if (ioctl(clone.get(), FUSE_DEV_IOC_CLONE, &master) != 0) return {-errno, "cloning the FUSE connection"};
    if (Failure failure = keep(fuse_prefix(instance) + std::to_string(i), clone)) return failure;
    by_number[i] = std::move(clone);
  }
  for (auto& [number, fd] : by_number) out.push_back(std::move(fd));
  return {};
}

InstanceRecord* Service::instance_record(uint32_t id, bool& known) {
  InstanceRecord* unused = nullptr;
  for (uint32_t i = 0; i < PoolMemory::kInstances; i++) {
    InstanceRecord& record = pool_.instances[i];
    if (record.state.load() == 0) {
      if (!unused) unused = &record;
    } else if (record.id == id) {
      known = true;
      return &record;
    }
  }
  known = false;
  return unused;
}

Failure Service::add_instance(const InstanceSpec& spec) {
  std::string label = "instance " + std::to_string(spec.id);
  if (served_.contains(spec.id)) return {-EEXIST, label};
  auto host = libservices_.find(spec.libservice);
  if (host == libservices_.end()) return {-ENOENT, "libservice " + std::to_string(spec.libservice)};
  std::vector<Fd> fds;
  if (Failure failure = queues(spec.id, fds)) return failure;
  bool known;
  InstanceRecord* record = instance_record(spec.id, known);
  if (!record) return {-ENFILE, "more than " + std::to_string(PoolMemory::kInstances) + " instances"};

  auto instance = std::make_unique<Instance>(spec.id, host->second);
  instance->read_only.store(spec.read_only);
  if (!known) record->control_secret[0] = record->control_secret[1] = 0;
  if (record->control_secret[0] == 0 &&
      getrandom(record->control_secret, sizeof record->control_secret, 0) < 0)
    return {-errno, "making a secret for " + label};
  if (!known) record->init_flags.store(0);
  instance->record = record;
  instance->control = {record->control_secret[0], record->control_secret[1]};
  instance->attr_timeout = nanoseconds(spec.attr_timeout);
  instance->entry_timeout = nanoseconds(spec.entry_timeout);
  if (!known) {
    record->id = spec.id;
    record->state.store(1, std::memory_order_release);
  }
  if (int err = dispatcher_->add_instance(*instance, spec.subdirectory.c_str(), known)) {
    if (!known) record->state.store(0);
    return {err, spec.subdirectory.empty() ? label : spec.subdirectory};
  }
  ConnectionOptions options{spec.attr_timeout, spec.entry_timeout};
  auto connection = std::make_shared<Connection>(*instance, std::move(fds), options, notifier_);
  instance->invalidator = connection.get();
  dispatcher_->set_lock_completion(spec.id, connection.get());
  if (known) {
    // What the predecessor had read and not answered comes again (Linux 6.9; before, those requests wait for
    // an abort). Before anything is read here: the kernel re-sends all it has no answer to, what we are busy
    // with included, and a request of ours that came again would find no record and run twice.
    fuse_out_header resend{sizeof resend, kFuseNotifyResend, 0};
    (void)connection->send(0, &resend, sizeof resend);
  }
  if (int err = workers_->add(connection)) return {err, "serving " + label};
  if (int err = serve_fast(spec, *instance)) return {err, "the root of " + label};
  served_[spec.id] = {std::move(instance), std::move(connection)};
  if (awaited_.erase(spec.id) && awaited_.empty()) {
    if (fast_) fast_->restored();
    for (auto& [id, restored] : libservices_) restored->libservice->all_restored();
    for (auto& [id, served] : served_) {
      if (served.instance->shares()) dispatcher_->invalidate_all(*served.instance);
    }
  }
  return {};
}

int Service::serve_fast(const InstanceSpec& spec, Instance& instance) {
  if (!fast_ || spec.device == 0) return 0;
  Ref<Node> root = dispatcher_->nodes().get(instance.root, instance.id);
  if (!root) return -ESTALE;
  Attr attr;
  if (int err = instance.libservice().getattr(*root, nullptr, attr)) return err;
  fast_->add(instance.id, {spec.device, spec.mount_id, attr.stx_ino, spec.allow_other});
  return 0;
}

Failure Service::remove_instance(uint32_t id) {
  auto it = served_.find(id);
  if (it == served_.end()) return {-ENOENT, "instance " + std::to_string(id)};
  Served served = std::move(it->second);
  served_.erase(it);
  if (fast_) fast_->remove(id);
  dispatcher_->detach_instance(*served.instance);
  bool drained = workers_->remove(served.connection) && wait_for_calls(*served.instance);
  notifier_.forget(*served.connection);
  if (drained) {
    dispatcher_->drop_instance(*served.instance);
    bool known;
    if (InstanceRecord* record = instance_record(id, known); record && known) record->state.store(0);
  } else {
    // A thread is held up in its backend and will come back to both; what they hold goes with the process.
    held_up_.push_back(std::move(served));
  }
  if (int err = keeper_.clear(scope_ + fuse_prefix(id))) return {err, "dropping the FUSE connection"};
  return {};
}

Failure Service::release(uint32_t id, size_t& answered) {
  auto it = served_.find(id);
  if (it == served_.end()) return {-ENOENT, "instance " + std::to_string(id)};
  LibserviceHost& host = *it->second.instance->host;
  if (!host.watched) return {-EOPNOTSUPP, "a filesystem without a backend that could be away"};
  answered = watch_->release(host);
  return {};
}

Failure Service::set_read_only(uint32_t id, bool read_only) {
  auto it = served_.find(id);
  if (it == served_.end()) return {-ENOENT, "instance " + std::to_string(id)};
  it->second.instance->read_only.store(read_only);
  return {};
}

std::vector<std::shared_ptr<LibserviceHost>> Service::stop() {
  if (watch_) watch_->stop();
  if (fast_) fast_->stop();
  if (workers_) workers_->stop();
  std::vector<std::shared_ptr<LibserviceHost>> left;
  for (auto& [id, host] : libservices_) left.push_back(host);
  return left;
}

std::string Service::leave(const std::shared_ptr<LibserviceHost>& host) {
  const bool answers = host->silent_since.load() == 0 && !host->released.load();
  const int err = host->libservice->leave(answers);
  if (err == -ETIMEDOUT) (void)new std::shared_ptr(host);  // its library is still at it, and calls back
  if (err == 0 || !host->libservice->loses_unsynced()) return {};
  return "libservice " + std::to_string(host->id) +
         ": what was written and not synced may be lost: " + strerrordesc_np(-err);
}

}  // namespace poly
