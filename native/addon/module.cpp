// The addon's functions; server/native.ts is their documentation.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fastpath/copy_calibration.hpp"
#include "fastpath/mount_table.hpp"
#include "fastpath/ops.hpp"
#include "fastpath/unix_socket.hpp"
#include "native/addon/exec.hpp"
#include "native/addon/mounting.hpp"
#include "native/addon/objects.hpp"
#include "native/addon/sd_notify.hpp"
#include "native/core/pool_memory.hpp"

namespace poly {
namespace {

struct Classes {
  Napi::FunctionReference keeper, mount_table, mount_watch, service;
};

unsigned long mount_flags(const Napi::Object& flags) {
  constexpr struct {
    const char* name;
    unsigned long bit;
  } kFlags[]{{"ro", MS_RDONLY},         {"nosuid", MS_NOSUID},           {"nodev", MS_NODEV},
             {"noexec", MS_NOEXEC},     {"noatime", MS_NOATIME},         {"nodiratime", MS_NODIRATIME},
             {"relatime", MS_RELATIME}, {"strictatime", MS_STRICTATIME}, {"sync", MS_SYNCHRONOUS},
             {"dirsync", MS_DIRSYNC}};
  unsigned long bits = 0;
  for (auto& flag : kFlags) {
    if (get_bool(flags, flag.name)) bits |= flag.bit;
  }
  return bits;
}

Napi::Value version(const Napi::CallbackInfo& info) {
  auto ops = Napi::Array::New(info.Env());
  for (auto name : kOpNames) ops[ops.Length()] = Napi::String::New(info.Env(), std::string(name));
  auto out = Napi::Object::New(info.Env());
  out.Set("abi", Napi::Number::New(info.Env(), kPoolAbi));
  out.Set("ops", ops);
  return out;
}

Napi::Value peer_credentials_of(const Napi::CallbackInfo& info) {
  PeerCredentials peer;
  if (int err = peer_credentials(to_int(info[0]), peer)) return throw_errno(info.Env(), err, "SO_PEERCRED");
  auto out = Napi::Object::New(info.Env());
  out.Set("pid", Napi::Number::New(info.Env(), peer.pid));
  out.Set("uid", Napi::Number::New(info.Env(), peer.uid));
  out.Set("gid", Napi::Number::New(info.Env(), peer.gid));
  return out;
}

Napi::Value close_fd(const Napi::CallbackInfo& info) {
  if (close(to_int(info[0])) != 0) return throw_errno(info.Env(), -errno, "close");
  return info.Env().Undefined();
}

Napi::Value calibrate_copy_of_machine(const Napi::CallbackInfo& info) {
  calibrate_copy_in_background();
  return info.Env().Undefined();
}

Napi::Value notify(const Napi::CallbackInfo& info) {
  std::vector<int> fds;
  if (info[1].IsArray()) {
    auto array = info[1].As<Napi::Array>();
    for (uint32_t i = 0; i < array.Length(); i++) fds.push_back(to_int(array[i]));
  }
  int sent = sd_notify(to_text(info[0]), fds);
  if (sent < 0) return throw_errno(info.Env(), sent, "NOTIFY_SOCKET");
  return Napi::Boolean::New(info.Env(), sent > 0);
}

Napi::Value open_fuse(const Napi::CallbackInfo& info) {
  int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  return fd < 0 ? throw_errno(info.Env(), -errno, "/dev/fuse") : Napi::Number::New(info.Env(), fd);
}

Napi::Value mount_fuse_at(const Napi::CallbackInfo& info) {
  std::string target = to_text(info[0]);
  int err = mount_fuse(target, to_int(info[1]), to_text(info[2]), mount_flags(info[3].As<Napi::Object>()),
                       to_text(info[4]));
  return err ? throw_errno(info.Env(), err, "mount " + target) : info.Env().Undefined();
}

Napi::Value remount(const Napi::CallbackInfo& info) {
  std::string target = to_text(info[0]);
  unsigned long flags = MS_REMOUNT | mount_flags(info[1].As<Napi::Object>());
  if (mount("none", target.c_str(), nullptr, flags, nullptr) != 0)
    return throw_errno(info.Env(), -errno, "remount " + target);
  return info.Env().Undefined();
}

Napi::Value unmount(const Napi::CallbackInfo& info) {
  std::string target = to_text(info[0]);
  auto options = info[1].As<Napi::Object>();
  int flags = UMOUNT_NOFOLLOW | (get_bool(options, "lazy") ? MNT_DETACH : 0) |
              (get_bool(options, "force") ? MNT_FORCE : 0);
  if (umount2(target.c_str(), flags) != 0) return throw_errno(info.Env(), -errno, "umount " + target);
  return info.Env().Undefined();
}

// The kernel says so to poll(2) once the last mount is gone, or the connection was aborted (fuse_dev_poll,
// fs/fuse/dev.c).
Napi::Value fuse_ended(const Napi::CallbackInfo& info) {
  pollfd asked{to_int(info[0]), 0, 0};
  const int ready = poll(&asked, 1, 0);
  if (ready < 0) return throw_errno(info.Env(), -errno, "poll");
  return Napi::Boolean::New(info.Env(), (asked.revents & POLLERR) != 0);
}

Napi::Value fusermount_mount(const Napi::CallbackInfo& info) {
  Fd fd;
  std::string message, target = to_text(info[0]);
  if (int err = fusermount(target, to_text(info[1]), fd, message))
    return throw_errno(info.Env(), err, message.empty() ? "fusermount3 " + target : message);
  return Napi::Number::New(info.Env(), fd.release());
}

// setns(2) to a mount namespace needs a process with one thread's worth of fs state: Node's other threads
// share it, so this thread leaves them first.
Napi::Value enter_mount_namespace(const Napi::CallbackInfo& info) {
  std::string path = to_text(info[0]);
  Fd ns(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!ns) return throw_errno(info.Env(), -errno, path);
  if (unshare(CLONE_FS) != 0 || setns(ns.get(), CLONE_NEWNS) != 0)
    return throw_errno(info.Env(), -errno, "setns " + path);
  return info.Env().Undefined();
}

Napi::Value mount_table_create(const Napi::CallbackInfo& info) {
  Fd fd;
  if (int err = MountTable::create(static_cast<uint32_t>(to_int(info[0])), fd))
    return throw_errno(info.Env(), err, "creating the mount table");
  auto* classes = info.Env().GetInstanceData<Classes>();
  return classes->mount_table.New(
      {Napi::Number::New(info.Env(), fd.get()), Napi::Boolean::New(info.Env(), true)});
}

// The table as the keeper hands it out to everybody.
Napi::Value mount_table_fetch(const Napi::CallbackInfo& info) {
  std::string path = to_text(info[0]);
  Fd sock;
  if (int err = connect_unix(path, SOCK_SEQPACKET, sock)) return throw_errno(info.Env(), err, path);
  const timeval patience{2, 0};
  (void)setsockopt(sock.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  std::byte byte;
  std::vector<Fd> fds;
  ssize_t got = recv_with_fds(sock.get(), std::span(&byte, 1), fds, 0);
  if (got < 0) return throw_errno(info.Env(), static_cast<int>(got), path);
  if (fds.size() != 1) return info.Env().Null();
  auto* classes = info.Env().GetInstanceData<Classes>();
  return classes->mount_table.New(
      {Napi::Number::New(info.Env(), fds[0].get()), Napi::Boolean::New(info.Env(), false)});
}

Napi::Value exec_words(const Napi::CallbackInfo& info) {
  auto variables = info[1].As<Napi::Object>();
  std::vector<std::pair<std::string, std::string>> environment;
  auto names = variables.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); i++) {
    std::string name = to_text(names[i]);
    environment.emplace_back(name, get_string(variables, name.c_str()));
  }
  int err = exec_last_words(static_cast<size_t>(info[0].ToNumber().Int64Value()), environment);
  return throw_errno(info.Env(), err, "exec");
}

Napi::Value file_capabilities(const Napi::CallbackInfo& info) {
  std::string path = to_text(info[0]);
  ssize_t size = getxattr(path.c_str(), "security.capability", nullptr, 0);
  return Napi::Boolean::New(info.Env(), size > 0);
}

template <Napi::FunctionReference Classes::*kClass>
Napi::Value construct(const Napi::CallbackInfo& info) {
  std::vector<napi_value> arguments;
  for (size_t i = 0; i < info.Length(); i++) arguments.push_back(info[i]);
  return (info.Env().GetInstanceData<Classes>()->*kClass).New(arguments);
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* classes = new Classes;
  classes->keeper = Napi::Persistent(define_keeper(env));
  classes->mount_table = Napi::Persistent(define_mount_table(env));
  classes->mount_watch = Napi::Persistent(define_mount_watch(env));
  classes->service = Napi::Persistent(define_service(env));
  env.SetInstanceData(classes);
  auto define = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  define("version", version);
  define("peerCredentials", peer_credentials_of);
  define("closeFd", close_fd);
  define("calibrateCopy", calibrate_copy_of_machine);
  define("sdNotify", notify);
  define("openFuse", open_fuse);
  define("fuseEnded", fuse_ended);
  define("mountFuse", mount_fuse_at);
  define("remount", remount);
  define("umount", unmount);
  define("fusermountMount", fusermount_mount);
  define("enterMountNamespace", enter_mount_namespace);
  define("keeperConnect", construct<&Classes::keeper>);
  define("mountTableCreate", mount_table_create);
  define("mountTableAttach", construct<&Classes::mount_table>);
  define("mountTableFetch", mount_table_fetch);
  define("watchMounts", construct<&Classes::mount_watch>);
  define("exec", exec_words);
  define("fileCapabilities", file_capabilities);
  define("createService", construct<&Classes::service>);
  return exports;
}

}  // namespace
}  // namespace poly

static Napi::Object init_addon(Napi::Env env, Napi::Object exports) {
  return poly::init(env, exports);
}
NODE_API_MODULE(polytropon, init_addon)
