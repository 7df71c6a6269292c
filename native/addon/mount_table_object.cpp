#include <sys/sysmacros.h>
#include <unistd.h>

#include <fcntl.h>

#include "fastpath/mount_table.hpp"
#include "native/addon/objects.hpp"
#include "native/core/foreign_mounts.hpp"

namespace poly {
namespace {

std::string device_text(uint64_t device) {
  return std::to_string(major(device)) + ":" + std::to_string(minor(device));
}

class MountTableObject final : public Napi::ObjectWrap<MountTableObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "MountTable",
        {InstanceAccessor<&MountTableObject::fd>("fd"), InstanceMethod<&MountTableObject::insert>("insert"),
         InstanceMethod<&MountTableObject::update>("update"),
         InstanceMethod<&MountTableObject::remove>("remove"),
         InstanceMethod<&MountTableObject::lookup>("lookup"),
         InstanceMethod<&MountTableObject::entries>("entries"),
         InstanceAccessor<&MountTableObject::generation>("generation"),
         InstanceMethod<&MountTableObject::follow>("followMounts")});
  }

  explicit MountTableObject(const Napi::CallbackInfo& info) : ObjectWrap(info) {
    fd_.reset(fcntl(to_int(info[0]), F_DUPFD_CLOEXEC, 0));
    bool writable = info[1].ToBoolean().Value();
    int err = !fd_       ? -errno
              : writable ? MountTable::attach_writer(fd_.get(), table_)
                         : MountTable::attach_reader(fd_.get(), table_);
    if (!writable) fd_.reset();  // the mapping is enough to read
    if (err) throw_errno(info.Env(), err, "mount table");
  }

 private:
  Napi::Value fd(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), fd_.get()); }

  using Change = int (MountTable::*)(const NormalPath&, const MountEntry&);
  Napi::Value change(const Napi::CallbackInfo& info, Change change, const char* verb) {
    auto from = info[0].As<Napi::Object>();
    std::string text = get_string(from, "path");
    NormalPath path;
    int err = normalise(text.c_str(), path);
    MountEntry entry;
    entry.service = static_cast<uint32_t>(get_number(from, "service", 0));
    entry.instance = static_cast<uint32_t>(get_number(from, "instance", 0));
    entry.flags =
        (get_bool(from, "readOnly") ? kMountReadOnly : 0) | (get_bool(from, "kernel") ? kMountKernel : 0);
    entry.device = parse_device(get_string(from, "device"));
    entry.mount_id = static_cast<uint64_t>(get_number(from, "mountId", 0));
    if (!err) err = (table_.*change)(path, entry);
    return err ? throw_errno(info.Env(), err, std::string("mount table ") + verb + " " + text)
               : info.Env().Undefined();
  }
  Napi::Value insert(const Napi::CallbackInfo& info) { return change(info, &MountTable::insert, "insert"); }
  Napi::Value update(const Napi::CallbackInfo& info) { return change(info, &MountTable::update, "update"); }

  Napi::Value remove(const Napi::CallbackInfo& info) {
    std::string text = to_text(info[0]);
    NormalPath path;
    int err = normalise(text.c_str(), path);
    if (!err) err = table_.remove(path);
    return err ? throw_errno(info.Env(), err, "mount table remove " + text) : info.Env().Undefined();
  }

  static Napi::Object describe(Napi::Env env, const MountEntry& entry) {
    auto out = Napi::Object::New(env);
    out.Set("service", entry.service);
    out.Set("instance", entry.instance);
    out.Set("readOnly", Napi::Boolean::New(env, (entry.flags & kMountReadOnly) != 0));
    out.Set("kernel", Napi::Boolean::New(env, (entry.flags & kMountKernel) != 0));
    return out;
  }

  Napi::Value lookup(const Napi::CallbackInfo& info) {
    std::string text = to_text(info[0]);
    NormalPath path;
    MountMatch match;
    int err = normalise(text.c_str(), path);
    if (!err) err = table_.lookup(path, match);
    if (err == -ENOENT) return info.Env().Null();
    if (err) return throw_errno(info.Env(), err, "mount table lookup " + text);
    auto out = describe(info.Env(), match.entry);
    out.Set("path", std::string(path.view().substr(0, match.prefix_length)));
    out.Set("exact", Napi::Boolean::New(info.Env(), match.exact));
    return out;
  }

  Napi::Value entries(const Napi::CallbackInfo& info) {
    auto out = Napi::Array::New(info.Env());
    int err = table_.for_each([&](std::string_view path, const MountEntry& entry) {
      auto item = describe(info.Env(), entry);
      item.Set("path", std::string(path));
      item.Set("device", device_text(entry.device));
      item.Set("mountId", Napi::Number::New(info.Env(), static_cast<double>(entry.mount_id)));
      out[out.Length()] = item;
    });
    return err ? throw_errno(info.Env(), err, "mount table") : out;
  }

  Napi::Value generation(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(table_.generation()));
  }

  Napi::Value follow(const Napi::CallbackInfo& info) {
    std::string mountinfo;
    ForeignMounts counts;
    int err = read_mountinfo(mountinfo);
    if (!err) err = follow_mounts(table_, mountinfo, counts);
    if (err) return throw_errno(info.Env(), err, "mount table: following mountinfo");
    auto out = Napi::Object::New(info.Env());
    out.Set("entries", Napi::Number::New(info.Env(), static_cast<double>(counts.entries)));
    out.Set("hidden", Napi::Number::New(info.Env(), static_cast<double>(counts.hidden)));
    return out;
  }

  Fd fd_;
  MountTable table_;
};

}  // namespace

Napi::Function define_mount_table(Napi::Env env) {
  return MountTableObject::define(env);
}

}  // namespace poly
