#include "native/addon/objects.hpp"
#include "native/core/keeper_client.hpp"

namespace poly {
namespace {

class KeeperObject final : public Napi::ObjectWrap<KeeperObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "Keeper",
        {InstanceMethod<&KeeperObject::put>("put"), InstanceMethod<&KeeperObject::get>("get"),
         InstanceMethod<&KeeperObject::list>("list"), InstanceMethod<&KeeperObject::drop>("drop"),
         InstanceMethod<&KeeperObject::clear>("clear"), InstanceMethod<&KeeperObject::scope>("scope"),
         InstanceMethod<&KeeperObject::ping>("ping"), InstanceMethod<&KeeperObject::close>("close")});
  }

  explicit KeeperObject(const Napi::CallbackInfo& info) : ObjectWrap(info) {
    client_ = std::make_unique<KeeperClient>();
    std::string path = to_text(info[0]);
    if (int err = client_->connect(path)) throw_errno(info.Env(), err, "keeper " + path);
  }

 private:
  // Every call on a closed object fails alike.
  bool closed(const Napi::CallbackInfo& info) {
    if (!client_) throw_errno(info.Env(), -EBADF, "keeper");
    return !client_;
  }
  Napi::Value result(const Napi::CallbackInfo& info, int err, const char* verb) {
    return err ? throw_errno(info.Env(), err, std::string("keeper ") + verb + " " + to_text(info[0]))
               : info.Env().Undefined();
  }

  Napi::Value put(const Napi::CallbackInfo& info) {
    if (closed(info)) return info.Env().Undefined();
    auto array = info[1].As<Napi::Array>();
    std::vector<int> fds;
    for (uint32_t i = 0; i < array.Length(); i++) fds.push_back(to_int(array[i]));
    return result(info, client_->put(to_text(info[0]), fds), "put");
  }

  Napi::Value get(const Napi::CallbackInfo& info) {
    if (closed(info)) return info.Env().Undefined();
    std::vector<NamedFds> found;
    if (int err = client_->get(to_text(info[0]), found)) return result(info, err, "get");
    auto out = Napi::Array::New(info.Env());
    for (auto& [name, fds] : found) {
      auto numbers = Napi::Array::New(info.Env());
      for (auto& fd : fds) numbers[numbers.Length()] = Napi::Number::New(info.Env(), fd.release());
      auto item = Napi::Object::New(info.Env());
      item.Set("name", name);
      item.Set("fds", numbers);
      out[out.Length()] = item;
    }
    return out;
  }

  Napi::Value list(const Napi::CallbackInfo& info) {
    if (closed(info)) return info.Env().Undefined();
    std::vector<NamedCount> found;
    if (int err = client_->list(to_text(info[0]), found)) return result(info, err, "list");
    auto out = Napi::Array::New(info.Env());
    for (auto& [name, count] : found) {
      auto item = Napi::Object::New(info.Env());
      item.Set("name", name);
      item.Set("fds", Napi::Number::New(info.Env(), static_cast<double>(count)));
      out[out.Length()] = item;
    }
    return out;
  }

  Napi::Value drop(const Napi::CallbackInfo& info) {
    return closed(info) ? info.Env().Undefined() : result(info, client_->drop(to_text(info[0])), "drop");
  }
  Napi::Value clear(const Napi::CallbackInfo& info) {
    return closed(info) ? info.Env().Undefined() : result(info, client_->clear(to_text(info[0])), "clear");
  }

  Napi::Value scope(const Napi::CallbackInfo& info) {
    if (closed(info)) return info.Env().Undefined();
    Fd fd;
    auto most = info[1].IsNumber() ? static_cast<size_t>(info[1].As<Napi::Number>().Int64Value())
                                   : KeeperClient::kNoLimit;
    if (int err = client_->scope(to_text(info[0]), most, fd)) return result(info, err, "scope");
    return Napi::Number::New(info.Env(), fd.release());
  }

  Napi::Value ping(const Napi::CallbackInfo& info) {
    if (closed(info)) return info.Env().Undefined();
    KeeperStatus status;
    if (int err = client_->ping(status)) return throw_errno(info.Env(), err, "keeper ping");
    auto out = Napi::Object::New(info.Env());
    auto set = [&](const char* key, uint64_t value) {
      out.Set(key, Napi::Number::New(info.Env(), static_cast<double>(value)));
    };
    set("pid", status.pid);
    set("fds", status.fds);
    set("names", status.names);
    set("dropped", status.dropped);
    return out;
  }

  Napi::Value close(const Napi::CallbackInfo& info) {
    client_.reset();
    return info.Env().Undefined();
  }

  std::unique_ptr<KeeperClient> client_;
};

}  // namespace

Napi::Function define_keeper(Napi::Env env) {
  return KeeperObject::define(env);
}

}  // namespace poly
