#include "native/addon/objects.hpp"
#include "native/core/service.hpp"

namespace poly {
namespace {

Napi::Number number(Napi::Env env, uint64_t value) {
  return Napi::Number::New(env, static_cast<double>(value));
}

// Takes leave of backends in a thread of the pool; resolves with a line for each that may have lost
// something.
class Leaving final : public Napi::AsyncWorker {
 public:
  Leaving(Napi::Env env, std::vector<std::shared_ptr<LibserviceHost>> hosts)
      : AsyncWorker(env), hosts_(std::move(hosts)), done_(Napi::Promise::Deferred::New(env)) {}
  Napi::Promise promise() const { return done_.Promise(); }

 protected:
  void Execute() override {
    for (auto& host : hosts_) {
      if (std::string lost = Service::leave(host); !lost.empty()) lost_.push_back(std::move(lost));
    }
  }
  void OnOK() override {
    hosts_.clear();
    auto lines = Napi::Array::New(Env(), lost_.size());
    for (size_t i = 0; i < lost_.size(); i++)
      lines.Set(static_cast<uint32_t>(i), Napi::String::New(Env(), lost_[i]));
    done_.Resolve(lines);
  }

 private:
  std::vector<std::shared_ptr<LibserviceHost>> hosts_;
  std::vector<std::string> lost_;
  Napi::Promise::Deferred done_;
};

class ServiceObject final : public Napi::ObjectWrap<ServiceObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "Service",
        {InstanceMethod<&ServiceObject::add_libservice>("addLibservice"),
         InstanceMethod<&ServiceObject::remove_libservice>("removeLibservice"),
         InstanceMethod<&ServiceObject::add_instance>("addInstance"),
         InstanceMethod<&ServiceObject::remove_instance>("removeInstance"),
         InstanceMethod<&ServiceObject::set_read_only>("setReadOnly"),
         InstanceMethod<&ServiceObject::hand_over>("handOver"),
         InstanceMethod<&ServiceObject::release>("release"), InstanceMethod<&ServiceObject::stats>("stats"),
         InstanceMethod<&ServiceObject::stop>("stop")});
  }

  explicit ServiceObject(const Napi::CallbackInfo& info) : ObjectWrap(info) {
    auto options = info[0].As<Napi::Object>();
    Fd keeper(static_cast<int>(get_number(options, "keeperFd", -1)));
    auto threads = static_cast<size_t>(get_number(options, "maxThreads", 64));
    events_ = Napi::ThreadSafeFunction::New(info.Env(), options.Get("onEvent").As<Napi::Function>(),
                                            "poly events", 0, 1);
    events_.Unref(info.Env());  // events alone do not keep the process alive
    const auto poll_cpu = static_cast<int>(get_number(options, "pollCpu", -1));
    service_ = std::make_unique<Service>(std::move(keeper), get_string(options, "scope"), threads, poll_cpu,
                                         [this](uint32_t instance) { ended(instance); });
    Failure failure = service_->start(get_string(options, "attachSocket"));
    if (failure) throw_errno(info.Env(), failure.error, failure.what);
  }

  ~ServiceObject() override { service_.reset(); }

 private:
  // From a worker thread.
  void ended(uint32_t instance) {
    (void)events_.NonBlockingCall([instance](Napi::Env env, Napi::Function callback) {
      auto event = Napi::Object::New(env);
      event.Set("type", "instance-ended");
      event.Set("instance", Napi::Number::New(env, instance));
      event.Set("reason", "unmounted");
      event.Set("message", "the kernel closed the connection");
      callback.Call({event});
    });
  }

  Napi::Value result(const Napi::CallbackInfo& info, const Failure& failure) {
    return failure ? throw_errno(info.Env(), failure.error, failure.what) : info.Env().Undefined();
  }

  static CephSettings ceph_settings(const Napi::Object& from) {
    CephSettings ceph;
    ceph.root = get_string(from, "source");
    ceph.user = get_string(from, "user");
    ceph.conf = get_string(from, "conf");
    ceph.keyring = get_string(from, "keyring");
    ceph.fs = get_string(from, "fs");
    ceph.uuid = get_string(from, "uuid");
    ceph.write_back = get_string(from, "write") == "back";
    ceph.widen = get_bool(from, "widen");
    ceph.cache = static_cast<uint64_t>(get_number(from, "cache", 0));
    ceph.dirty = static_cast<uint64_t>(get_number(from, "dirty", 0));
    return ceph;
  }

  Napi::Value add_libservice(const Napi::CallbackInfo& info) {
    auto from = info[0].As<Napi::Object>();
    LibserviceSpec spec;
    spec.id = static_cast<uint32_t>(get_number(from, "id", 0));
    spec.type = get_string(from, "type");
    spec.source = get_string(from, "source");
    spec.size = static_cast<uint64_t>(get_number(from, "size", 0));
    spec.inodes = static_cast<uint64_t>(get_number(from, "inodes", 0));
    spec.mode = static_cast<mode_t>(get_number(from, "mode", 0755));
    spec.uid = static_cast<uid_t>(get_number(from, "uid", geteuid()));
    spec.gid = static_cast<gid_t>(get_number(from, "gid", getegid()));
    spec.huge = get_string(from, "huge");
    spec.ceph = ceph_settings(from);
    spec.op_timeout = get_number(from, "opTimeout", 0);
    std::string root;
    Failure failure = service_->add_libservice(spec, root);
    if (failure || root.empty()) return result(info, failure);
    return Napi::String::New(info.Env(), root);
  }

  Napi::Value add_instance(const Napi::CallbackInfo& info) {
    auto from = info[0].As<Napi::Object>();
    InstanceSpec spec;
    spec.id = static_cast<uint32_t>(get_number(from, "id", 0));
    spec.libservice = static_cast<uint32_t>(get_number(from, "libservice", 0));
    spec.subdirectory = get_string(from, "subdirectory");
    spec.read_only = get_bool(from, "readOnly");
    spec.attr_timeout = get_number(from, "attrTimeout", 1.0);
    spec.entry_timeout = get_number(from, "entryTimeout", 1.0);
    spec.device = parse_device(get_string(from, "device"));
    spec.mount_id = static_cast<uint64_t>(get_number(from, "mountId", 0));
    spec.allow_other = get_bool(from, "allowOther");
    return result(info, service_->add_instance(spec));
  }

  Napi::Value remove_libservice(const Napi::CallbackInfo& info) {
    std::shared_ptr<LibserviceHost> host;
    if (Failure failure = service_->remove_libservice(static_cast<uint32_t>(to_int(info[0])), host))
      return result(info, failure);
    return leave(info, {std::move(host)});
  }
  Napi::Value remove_instance(const Napi::CallbackInfo& info) {
    return result(info, service_->remove_instance(static_cast<uint32_t>(to_int(info[0]))));
  }
  Napi::Value set_read_only(const Napi::CallbackInfo& info) {
    return result(
        info, service_->set_read_only(static_cast<uint32_t>(to_int(info[0])), info[1].ToBoolean().Value()));
  }

  Napi::Value hand_over(const Napi::CallbackInfo& info) {
    return result(info, service_->hand_over(Fd(to_int(info[0]))));
  }

  Napi::Value release(const Napi::CallbackInfo& info) {
    size_t answered = 0;
    Failure failure = service_->release(static_cast<uint32_t>(to_int(info[0])), answered);
    if (failure) return throw_errno(info.Env(), failure.error, failure.what);
    return number(info.Env(), answered);
  }

  static Napi::Value describe_ops(Napi::Env env, const OpStats& stats) {
    auto out = Napi::Array::New(env);
    for (size_t i = 0; i < kOpCount; i++) {
      OpStats::Totals totals = stats.totals(static_cast<Op>(i));
      if (totals.count == 0) continue;
      auto histogram = Napi::Array::New(env, OpStats::kBuckets);
      for (uint32_t b = 0; b < OpStats::kBuckets; b++) histogram[b] = number(env, totals.histogram[b]);
      auto item = Napi::Object::New(env);
      item.Set("op", std::string(kOpNames[i]));
      item.Set("count", number(env, totals.count));
      item.Set("errors", number(env, totals.errors));
      item.Set("totalNs", number(env, totals.total_ns));
      item.Set("histogram", histogram);
      out[out.Length()] = item;
    }
    return out;
  }

  Napi::Array describe_clients(Napi::Env env) {
    auto out = Napi::Array::New(env);
    if (!service_->fast()) return out;
    for (auto& client : service_->fast()->clients()) {
      const FastClient& fast = *client->fast;
      auto instances = Napi::Array::New(env);
      for (auto& proof : fast.view()->proven) instances[instances.Length()] = number(env, proof.instance);
      auto item = Napi::Object::New(env);
      item.Set("client", number(env, client->id));
      item.Set("pid", number(env, static_cast<uint64_t>(client->pid)));
      item.Set("uid", number(env, client->queues->uid));
      item.Set("openFiles", number(env, service_->dispatcher().count_client_files(fast.key)));
      item.Set("calls", number(env, fast.stats.calls.load()));
      item.Set("declined", number(env, fast.stats.declined.load()));
      item.Set("totalNs", number(env, fast.stats.total_ns.load()));
      item.Set("instances", instances);
      out[out.Length()] = item;
    }
    return out;
  }

  Napi::Value stats(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    auto instances = Napi::Array::New(env);
    Dispatcher& dispatcher = service_->dispatcher();
    for (auto& [id, served] : service_->instances()) {
      uint64_t locks, parked;
      dispatcher.locks().count(id, locks, parked);
      auto item = Napi::Object::New(env);
      item.Set("instance", Napi::Number::New(env, id));
      item.Set("nodes", number(env, dispatcher.nodes().count(id)));
      item.Set("openFiles", number(env, dispatcher.open_files(id)));
      item.Set("lendableFiles", number(env, dispatcher.lendable_files(*served.instance)));
      item.Set("locks", number(env, locks));
      item.Set("parkedLockWaits", number(env, parked));
      const LibserviceHost& host = *served.instance->host;
      if (const uint64_t since = host.silent_since.load()) {
        item.Set("silentSeconds", static_cast<double>(coarse_ns() - since) / 1e9);
        item.Set("released", host.released.load());
      }
      item.Set("ops", describe_ops(env, served.instance->stats));
      instances[instances.Length()] = item;
    }
    auto out = Napi::Object::New(env);
    out.Set("threads", number(env, service_->workers().threads()));
    out.Set("threadsBusy", number(env, service_->workers().busy()));
    out.Set("requests", number(env, service_->workers().handled()));
    out.Set("instances", instances);
    out.Set("clients", describe_clients(env));
    return out;
  }

  Napi::Value stop(const Napi::CallbackInfo& info) { return leave(info, service_->stop()); }

  Napi::Value leave(const Napi::CallbackInfo& info, std::vector<std::shared_ptr<LibserviceHost>> hosts) {
    auto* leaving = new Leaving(info.Env(), std::move(hosts));  // deletes itself when it is done
    auto promise = leaving->promise();
    leaving->Queue();
    return promise;
  }

  Napi::ThreadSafeFunction events_;
  std::unique_ptr<Service> service_;
};

}  // namespace

Napi::Function define_service(Napi::Env env) {
  return ServiceObject::define(env);
}

}  // namespace poly
