// Fast-path calls against the kernel's: two private tmpfs that begin equal; every operation is done to one by
// the kernel, as a random user, and to the other by a call with that user's credentials. Results and, now and
// then, the whole trees must be the same. What a call declines the kernel does to the second tree, too. In a
// jail, as links lead out of the trees. Needs root.
#include <dirent.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>
#include <map>

#include "test/unit/fast_rig.hpp"
#include "test/unit/jail.hpp"

using namespace rig;

namespace {

const char* const kNames[]{"a", "b", "c", "d", "e"};

// What is declined is done behind the service's back, and where files are reached by name it must not take
// names away: nothing leads above where a path begins.
bool leads_up = true;

std::string random_path() {
  std::string path;
  const size_t components = 1 + below(3);
  for (size_t i = 0; i < components; i++) {
    const uint64_t kind = leads_up ? below(24) : 1 + below(23);
    path += kind == 0 ? ".." : kind == 1 ? "." : kNames[below(5)];
    if (i + 1 < components) path += "/";
  }
  if (below(25) == 0) path += "/";
  return path;
}

// An operation, in terms of the call.
struct Step {
  Op op;
  std::string path, path2;
  uint32_t flags = 0, mode = 0, umask = 0;
  bool follow = true;
  SetAttr set;
  uint64_t offset = 0, size = 0;
  std::string data;
  int slot = -1;       // open file
  int directory = -1;  // where paths begin, of the directory handles
};

struct Result {
  int error = 0;
  std::string text;  // what else is to be equal
};

std::string describe(const struct stat& st) {
  char text[160];
  std::snprintf(text, sizeof text, "mode %o owner %u:%u links %lu size %ld", st.st_mode, st.st_uid, st.st_gid,
                static_cast<unsigned long>(st.st_nlink),
                static_cast<long>(S_ISDIR(st.st_mode) ? 0 : st.st_size));
  return text;
}

std::string describe(const Attr& attr) {
  struct stat st {};
  st.st_mode = attr.stx_mode;
  st.st_uid = attr.stx_uid;
  st.st_gid = attr.stx_gid;
  st.st_nlink = attr.stx_nlink;
  st.st_size = static_cast<off_t>(attr.stx_size);
  return describe(st);
}

std::array<uint64_t, kOpCount> total_served{}, total_declined{};

Result outcome(int rc, std::string text = "") {
  return rc < 0 ? Result{-errno, ""} : Result{0, std::move(text)};
}

// ---- The kernel's side ----

struct Slots {
  std::array<Fd, 8> files;
  std::array<Fd, 4> directories;
};

int base_of(int root, const Slots& slots, const Step& step) {
  return step.directory < 0 ? root : slots.directories[static_cast<size_t>(step.directory)].get();
}

Result kernel_set(int base, int file, const Step& step) {
  const SetAttr& set = step.set;
  const char* path = step.path.c_str();
  const int flag = step.follow ? 0 : AT_SYMLINK_NOFOLLOW;
  if (set.mask & kSetMode)
    return outcome(file >= 0 ? ::fchmod(file, set.mode) : ::fchmodat(base, path, set.mode, 0));
  if (set.mask & (kSetUid | kSetGid)) {
    const uid_t uid = set.mask & kSetUid ? set.uid : static_cast<uid_t>(-1);
    const gid_t gid = set.mask & kSetGid ? set.gid : static_cast<gid_t>(-1);
    return outcome(file >= 0 ? ::fchown(file, uid, gid) : ::fchownat(base, path, uid, gid, flag));
  }
  if (set.mask & kSetSize) {
    if (file >= 0) return outcome(::ftruncate(file, static_cast<off_t>(set.size)));
    // truncate(2) has no *at: through the base's magic link.
    const std::string text = "/proc/self/fd/" + std::to_string(base) + "/" + step.path;
    return outcome(::truncate(text.c_str(), static_cast<off_t>(set.size)));
  }
  auto time = [&](uint32_t given, uint32_t now, const timespec& value) {
    if (set.mask & now) return timespec{0, UTIME_NOW};
    return set.mask & given ? value : timespec{0, UTIME_OMIT};
  };
  const timespec times[2]{time(kSetAtime, kSetAtimeNow, set.atime), time(kSetMtime, kSetMtimeNow, set.mtime)};
  return outcome(file >= 0 ? ::futimens(file, times) : ::utimensat(base, path, times, flag));
}

Result kernel_xattr(int base, const Step& step) {
  // By path, as the *xattrat(2) calls came with Linux 6.13 only.
  const std::string text = "/proc/self/fd/" + std::to_string(base) + "/" + step.path;
  const char *path = text.c_str(), *name = step.path2.c_str();
  char room[256];
  switch (step.op) {
    case Op::setxattr:
      return outcome(
          ::setxattr(path, name, step.data.data(), step.data.size(), static_cast<int>(step.flags)));
    case Op::removexattr:
      return outcome(::removexattr(path, name));
    default: {
      const ssize_t n = ::getxattr(path, name, room, sizeof room);
      return n < 0 ? outcome(-1) : Result{0, std::string(room, static_cast<size_t>(n))};
    }
  }
}

Result kernel_file(Slots& slots, const Step& step) {
  Fd& slot = slots.files[static_cast<size_t>(step.slot)];
  const int fd = slot.get();
  char room[512];
  switch (step.op) {
    case Op::read: {
      const ssize_t n = ::pread(fd, room, step.size, static_cast<off_t>(step.offset));
      return n < 0 ? outcome(-1) : Result{0, std::string(room, static_cast<size_t>(n))};
    }
    case Op::write:
      return outcome(static_cast<int>(
          ::pwrite(fd, step.data.data(), step.data.size(), static_cast<off_t>(step.offset))));
    case Op::fallocate:
      return outcome(::fallocate(fd, static_cast<int>(step.flags), static_cast<off_t>(step.offset),
                                 static_cast<off_t>(step.size)));
    case Op::lseek: {
      const off_t n = ::lseek(fd, static_cast<off_t>(step.offset), static_cast<int>(step.flags));
      return n < 0 ? outcome(-1) : Result{0, std::to_string(n)};
    }
    case Op::release:
      slot.reset();
      return {};
    case Op::getattr: {
      struct stat st;
      if (::fstat(fd, &st) != 0) return outcome(-1);
      return {0, describe(st)};
    }
    default:
      return kernel_set(-1, fd, step);
  }
}

Result kernel_names(int base, const Step& step) {
  const char *path = step.path.c_str(), *path2 = step.path2.c_str();
  switch (step.op) {
    case Op::mkdir:
      return outcome(::mkdirat(base, path, step.mode));
    case Op::mknod:
      return outcome(::mknodat(base, path, step.mode, 0));
    case Op::symlink:
      return outcome(::symlinkat(path2, base, path));
    case Op::link:
      return outcome(::linkat(base, path, base, path2, step.follow ? AT_SYMLINK_FOLLOW : 0));
    case Op::unlink:
      return outcome(::unlinkat(base, path, 0));
    case Op::rmdir:
      return outcome(::unlinkat(base, path, AT_REMOVEDIR));
    case Op::rename:
      return outcome(::renameat2(base, path, base, path2, step.flags));
    case Op::readlink: {
      char room[256];
      const ssize_t n = ::readlinkat(base, path, room, std::min(sizeof room, step.size));
      return n < 0 ? outcome(-1) : Result{0, std::string(room, static_cast<size_t>(n))};
    }
    default:
      return {-ENOSYS, ""};
  }
}

Result kernel_look(int base, const Step& step) {
  if (step.flags)
    return outcome(static_cast<int>(::syscall(439, base, step.path.c_str(), step.flags, AT_EACCESS)));
  struct stat st;
  if (::fstatat(base, step.path.c_str(), &st, step.follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0) return outcome(-1);
  return {0, describe(st)};
}

Result kernel_open(int base, Slots& slots, const Step& step) {
  const bool place = step.op == Op::opendir;
  const int flags = place ? O_PATH | O_DIRECTORY : static_cast<int>(step.flags);
  const int fd = ::openat(base, step.path.c_str(), flags | O_CLOEXEC, step.mode);
  if (fd < 0) return outcome(-1);
  (place ? slots.directories : std::span<Fd>(slots.files))[static_cast<size_t>(step.slot)].reset(fd);
  return {};
}

Result kernel_do(int root, Slots& slots, const Step& step, const Credentials& who) {
  ::umask(step.umask);
  AsUser as(who);
  const int base = base_of(root, slots, step);
  switch (step.op) {
    case Op::open:
    case Op::opendir:
      return kernel_open(base, slots, step);
    case Op::setxattr:
    case Op::getxattr:
    case Op::removexattr:
      return kernel_xattr(base, step);
    case Op::setattr:
      return step.slot < 0 ? kernel_set(base, -1, step) : kernel_file(slots, step);
    case Op::getattr:
      return step.slot < 0 ? kernel_look(base, step) : kernel_file(slots, step);
    default:
      return step.slot < 0 ? kernel_names(base, step) : kernel_file(slots, step);
  }
}

// ---- The fast path's side ----

struct Twin {
  explicit Twin(Where where) : rig(where) {
    REQUIRE(make_memory({}, kernel_root) == 0);
    for (int root : {kernel_root.get(), rig.local.host_root.get()}) REQUIRE(::fchmod(root, 0777) == 0);
  }

  Ask ask_for(const Step& step) const {
    Ask ask(step.op);
    if (!step.follow) ask.no_follow();
    ask.at(step.path).and_at(step.path2).flags(step.flags).mode(step.mode);
    if (step.slot >= 0 && step.op != Op::open && step.op != Op::opendir)
      ask.of(handles[static_cast<size_t>(step.slot)]);
    if (step.directory >= 0)
      ask.call.directory = ask.call.directory2 = places[static_cast<size_t>(step.directory)];
    WireCall& call = ask.call;
    call.umask = step.umask;
    call.offset = step.offset;
    call.size = step.op == Op::write || step.op == Op::setxattr ? step.data.size() : step.size;
    call.set_mask = step.set.mask;
    call.set_mode = step.set.mode;
    call.set_uid = step.set.uid;
    call.set_gid = step.set.gid;
    call.set_size = step.set.size;
    call.atime_sec = step.set.atime.tv_sec;
    call.mtime_sec = step.set.mtime.tv_sec;
    return ask;
  }

  // The call's result, or the kernel's where it declines.
  Result ours(const Step& step, const Credentials& who) {
    rig.become(who);
    std::memcpy(rig.data.data(), step.data.data(), step.data.size());
    const bool unknown = (step.slot >= 0 && step.op != Op::open && step.op != Op::opendir &&
                          handles[static_cast<size_t>(step.slot)] == 0) ||
                         (step.directory >= 0 && places[static_cast<size_t>(step.directory)] == 0);
    const int32_t result = unknown ? kDeclined : rig.run(ask_for(step));
    if (result == kDeclined) {
      declined[static_cast<size_t>(step.op)]++;
      const Result kernel = kernel_do(rig.local.host_root.get(), slots, step, who);
      if (kernel.error == 0) note_open(step, 0);
      return kernel;
    }
    served[static_cast<size_t>(step.op)]++;
    if (result < 0) return {result, ""};
    note_open(step, rig.answer.file);
    return {0, text_of(step)};
  }
  void note_open(const Step& step, uint32_t handle) {
    const auto slot = static_cast<size_t>(step.slot);
    if (step.op == Op::open) handles[slot] = handle;
    if (step.op == Op::release) handles[slot] = 0;
    if (step.op != Op::opendir) return;
    places[slot] = handle;
    if (handle) {  // the kernel needs it too, for what will be declined
      const Credentials root{0, 0, {}, true};
      REQUIRE(kernel_do(rig.local.host_root.get(), slots, step, root).error == 0);
    }
  }
  std::string text_of(const Step& step) const {
    const std::string bytes(reinterpret_cast<const char*>(rig.data.data()),
                            std::min<size_t>(rig.answer.value, 4096));
    switch (step.op) {
      case Op::getattr:
        return step.flags ? "" : describe(rig.answer.attr);
      case Op::read:
      case Op::readlink:
      case Op::getxattr:
        return bytes;
      case Op::lseek:
        return std::to_string(rig.answer.value);
      default:
        return "";
    }
  }

  FastRig rig;
  Fd kernel_root;
  Slots kernel_slots, slots;
  std::array<uint32_t, 8> handles{};
  std::array<uint32_t, 4> places{};
  std::array<uint64_t, kOpCount> served{}, declined{};
};

// Everything below a directory, one line each.
void list(int dir, const std::string& prefix, std::vector<std::string>& out) {
  DIR* stream = ::fdopendir(::openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  REQUIRE(stream != nullptr);
  while (const dirent* entry = ::readdir(stream)) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    struct stat st;
    REQUIRE(::fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0);
    std::string line = prefix + name + " " + describe(st);
    if (st.st_mtime < 1'000'000) line += " mtime " + std::to_string(st.st_mtime);
    char room[512];
    const std::string path = "/proc/self/fd/" + std::to_string(dir) + "/" + name;
    if (S_ISREG(st.st_mode)) {
      const Fd fd(::openat(dir, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOATIME));
      line +=
          " text " +
          std::string(room, static_cast<size_t>(std::max<ssize_t>(0, ::read(fd.get(), room, sizeof room))));
    }
    if (S_ISLNK(st.st_mode))
      line +=
          " -> " + std::string(room, static_cast<size_t>(::readlinkat(dir, name.c_str(), room, sizeof room)));
    for (const char* xattr : {"user.a", "user.b", "system.posix_acl_access", "system.posix_acl_default"}) {
      const ssize_t n = ::lgetxattr(path.c_str(), xattr, room, sizeof room);
      if (n >= 0) line += " " + std::string(xattr) + "=" + std::string(room, static_cast<size_t>(n));
    }
    out.push_back(line);
    if (S_ISDIR(st.st_mode)) {
      const Fd below(::openat(dir, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      list(below.get(), prefix + name + "/", out);
    }
  }
  ::closedir(stream);
}

bool equal_trees(Twin& twin) {
  std::vector<std::string> kernel, ours;
  list(twin.kernel_root.get(), "", kernel);
  list(twin.rig.local.host_root.get(), "", ours);
  std::ranges::sort(kernel);
  std::ranges::sort(ours);
  if (CHECK(kernel == ours)) return true;
  for (size_t i = 0; i < std::min(kernel.size(), ours.size()); i++) {
    if (kernel[i] == ours[i]) continue;
    std::fprintf(stderr, "  kernel %s\n  ours   %s\n", kernel[i].c_str(), ours[i].c_str());
    break;
  }
  return false;
}

// ---- Random steps ----

uint32_t random_open_flags() {
  uint32_t flags = static_cast<uint32_t>(below(3)) | O_NONBLOCK;
  if (below(2)) flags |= O_CREAT;
  if (below(4) == 0) flags |= O_EXCL;
  if (!(flags & O_CREAT)) flags &= ~static_cast<uint32_t>(O_EXCL);
  if (below(4) == 0) flags |= O_TRUNC;
  if (below(4) == 0) flags |= O_NOFOLLOW;
  if (below(12) == 0) flags |= O_NOATIME;
  return flags;
}

SetAttr random_set(bool of_file) {
  SetAttr set;
  switch (below(6)) {
    case 0:
    case 1:
      set.mask = kSetMode;
      set.mode = static_cast<mode_t>(below(3) ? 0755 | below(010000) : below(010000));
      break;
    case 2:
    case 3:
      set.mask = static_cast<uint32_t>(1 + below(3)) * kSetUid;
      set.uid = kUsers[below(4)];
      set.gid = kGroups[below(4)];
      break;
    case 4:
      set.mask = kSetSize;
      set.size = below(300);
      if (!of_file && below(20) == 0) set.size = 1ull << 63;
      break;
    default: {
      constexpr uint32_t kKinds[]{kSetAtime | kSetMtime, kSetMtime,
                                  kSetAtime | kSetMtime | kSetAtimeNow | kSetMtimeNow,
                                  kSetAtime | kSetMtime | kSetAtimeNow, kSetAtime | kSetAtimeNow};
      set.mask = kKinds[below(5)];
      set.atime.tv_sec = static_cast<time_t>(below(1000));
      set.mtime.tv_sec = static_cast<time_t>(below(1000));
    }
  }
  return set;
}

Step step_on_file(const Twin& twin) {
  constexpr Op kOps[]{Op::read,    Op::write,     Op::write, Op::setattr,
                      Op::getattr, Op::fallocate, Op::lseek, Op::release};
  Step step;
  step.slot = static_cast<int>(below(twin.handles.size()));
  step.op = kOps[below(8)];
  step.offset = below(200);
  step.size = below(200);
  if (step.op == Op::write) step.data = std::string(1 + below(100), static_cast<char>('a' + below(26)));
  if (step.op == Op::setattr) step.set = random_set(true);
  if (step.op == Op::lseek) step.flags = below(2) ? SEEK_DATA : SEEK_HOLE;
  // KEEP_SIZE, PUNCH_HOLE; others are declined, and here is no promotion.
  constexpr uint32_t kModes[]{0, 1, 3};
  if (step.op == Op::fallocate) step.flags = kModes[below(3)];
  return step;
}

Step step_on_xattr() {
  constexpr Op kOps[]{Op::setxattr, Op::setxattr, Op::getxattr, Op::removexattr};
  Step step;
  step.op = kOps[below(4)];
  const uint64_t kind = below(6);
  step.path2 = kind == 0   ? "system.posix_acl_access"
               : kind == 1 ? "system.posix_acl_default"
               : below(2)  ? "user.a"
                           : "user.b";
  step.size = 256;
  if (step.op != Op::setxattr) return step;
  step.data = kind < 2 ? random_acl() : std::string(1 + below(20), 'v');
  step.flags = static_cast<uint32_t>(below(3));
  return step;
}

Step step_on_path() {
  constexpr Op kOps[]{Op::mkdir,   Op::mkdir,   Op::mknod,   Op::symlink, Op::link,     Op::unlink,
                      Op::unlink,  Op::rmdir,   Op::rename,  Op::rename,  Op::readlink, Op::getattr,
                      Op::getattr, Op::setattr, Op::setattr, Op::setattr};
  Step step;
  step.op = kOps[below(16)];
  step.path2 = random_path();
  step.mode = static_cast<uint32_t>(below(010000));
  if (below(2)) step.mode |= 0777;
  step.size = 200;
  step.follow = below(3) != 0;
  switch (step.op) {
    case Op::mknod: {
      constexpr mode_t kTypes[]{S_IFREG, S_IFREG, S_IFIFO, S_IFSOCK, 0, S_IFDIR};
      step.mode |= kTypes[below(6)];
      break;
    }
    case Op::symlink:
      if (below(15) == 0) step.path2 = "/nowhere/" + step.path2;
      break;
    case Op::rename:
      step.flags = below(3) ? 0 : static_cast<uint32_t>(1 + below(3));
      break;
    case Op::getattr:
      if (below(2)) step.flags = static_cast<uint32_t>(1 + below(7)), step.follow = true;
      break;
    case Op::readlink:
      step.follow = false;
      break;
    case Op::setattr:
      step.set = random_set(false);
      if (step.set.mask & (kSetMode | kSetSize)) step.follow = true;
      break;
    default:
      break;
  }
  return step;
}

Step random_step(const Twin& twin) {
  const uint64_t kind = below(20);
  Step step = kind < 6 ? step_on_file(twin) : kind < 8 ? step_on_xattr() : step_on_path();
  if (kind >= 16) {
    step = {};
    step.op = kind == 19 ? Op::opendir : Op::open;
    step.slot = static_cast<int>(below(kind == 19 ? 4 : 8));
    step.flags = kind == 19 ? 0 : random_open_flags();
    step.mode = static_cast<uint32_t>(below(010000));
    step.follow = !(step.flags & O_NOFOLLOW);
  }
  step.path = random_path();
  step.umask = below(2) ? 0 : static_cast<uint32_t>(below(01000));
  if (step.slot < 0 || step.op == Op::open || step.op == Op::opendir)
    step.directory = below(5) == 0 ? static_cast<int>(below(4)) : -1;
  return step;
}

bool possible(const Twin& twin, const Step& step) {
  if (step.directory >= 0 && !twin.kernel_slots.directories[static_cast<size_t>(step.directory)])
    return false;
  if (step.slot < 0) return true;
  const auto slot = static_cast<size_t>(step.slot);
  // A slot is emptied before it is filled.
  if (step.op == Op::open) return !twin.kernel_slots.files[slot];
  if (step.op == Op::opendir) return !twin.kernel_slots.directories[slot];
  return static_cast<bool>(twin.kernel_slots.files[slot]);
}

void one_life(Where where, int steps) {
  Twin twin(where);
  for (int i = 0; i < steps; i++) {
    const Step step = random_step(twin);
    if (!possible(twin, step)) continue;
    const Credentials who = random_credentials();
    const Result kernel = kernel_do(twin.kernel_root.get(), twin.kernel_slots, step, who);
    const Result ours = twin.ours(step, who);
    const bool same = CHECK_EQ(ours.error, kernel.error) && CHECK(ours.text == kernel.text);
    if (!same || (i % 10 == 9 && !equal_trees(twin))) {
      std::fprintf(stderr, "  step %d: op %d %s %s flags %x mode %o set %x as %u:%u, kernel %d %s, ours %s\n",
                   i, static_cast<int>(step.op), step.path.c_str(), step.path2.c_str(), step.flags, step.mode,
                   step.set.mask, who.uid, who.gid, kernel.error, kernel.text.c_str(), ours.text.c_str());
      return;
    }
  }
  (void)equal_trees(twin);
  for (size_t op = 0; op < kOpCount; op++) {
    total_served[op] += twin.served[op];
    total_declined[op] += twin.declined[op];
  }
}

void calls_do_what_the_kernel_does() {
  REQUIRE(::chmod("/", 0755) == 0);  // the jail, for paths by /proc
  // By file handle and by parent and name.
  for (int life = 0; life < 20; life++) {
    leads_up = life % 2 == 0;
    one_life(kEverywhere[leads_up ? 2 : 3], 2000);
  }
  for (size_t op = 0; op < kOpCount; op++) {
    if (total_served[op] + total_declined[op] == 0) continue;
    std::printf("%s: %llu served, %llu declined\n", std::string(kOpNames[op]).c_str(),
                static_cast<unsigned long long>(total_served[op]),
                static_cast<unsigned long long>(total_declined[op]));
  }
}

}  // namespace

TEST(calls_do_what_the_kernel_does) {
  in_jail(calls_do_what_the_kernel_does);
}

CHECK_MAIN()
