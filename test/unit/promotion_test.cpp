// Promotion through the kernel: a real FUSE mount in a namespace of its own, served by this process's
// threads, and children that turn a client's open files into descriptors. Needs root and /dev/fuse; skipped
// elsewhere.
//
// A mount whose server is gone hangs its users: the mount's users are children with an alarm, and this
// process ends the connection before it waits for them.
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "fastpath/mount_flags.hpp"
#include "native/fuse/workers.hpp"
#include "test/unit/fast_rig.hpp"

using namespace rig;

namespace {

constexpr unsigned kPatience = 20;  // seconds

struct MountRig {
  explicit MountRig(bool read_only = false) : local(kEverywhere[2]) {
    REQUIRE(::fchmod(local.host_root.get(), 0777) == 0);
    REQUIRE(PoolMemory::create(memfd) == 0 && pool.map(memfd.get()) == 0);
    dispatcher = std::make_unique<Dispatcher>(pool);
    host = std::make_shared<LibserviceHost>();
    host->libservice = std::make_unique<ForwardingLibservice>(static_cast<Libservice&>(*local.fs));
    workers = std::make_unique<Workers>(*dispatcher, 8, [](uint32_t) {});
    instance = std::make_unique<Instance>(1, host);
    instance->control = {0x0123456789abcdef, 0xfedcba9876543210};
    instance->read_only = read_only;
    REQUIRE(dispatcher->add_instance(*instance, "", false) == 0);
    mount_it(read_only);
  }
  ~MountRig() {
    CHECK_EQ(::umount2(temp.path.c_str(), MNT_DETACH), 0);
    dispatcher->detach_instance(*instance);
    CHECK(workers->remove(connection));
    notifier.forget(*connection);
    dispatcher->drop_instance(*instance);
    CHECK(workers->stop());
    connection = nullptr;
    dispatcher = nullptr;
    instance = nullptr;
    host = nullptr;
    local.stop();
  }
  void mount_it(bool read_only) {
    Fd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
    REQUIRE(static_cast<bool>(device));
    const std::string options = "fd=" + std::to_string(device.get()) +
                                ",rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other";
    REQUIRE(::mount("promotion_test", temp.path.c_str(), "fuse.poly-unit", read_only ? MS_RDONLY : 0,
                    options.c_str()) == 0);
    std::vector<Fd> queues;
    auto master = static_cast<uint32_t>(device.get());
    queues.push_back(std::move(device));
    while (queues.size() < workers->queues()) {
      Fd clone(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
      REQUIRE(::ioctl(clone.get(), _IOR(229, 0, uint32_t) /* FUSE_DEV_IOC_CLONE */, &master) == 0);
      queues.push_back(std::move(clone));
    }
    connection = std::make_shared<Connection>(*instance, std::move(queues), ConnectionOptions{}, notifier);
    instance->invalidator = connection.get();
    REQUIRE(workers->add(connection) == 0);
  }
  int32_t run(const Ask& ask) {
    answer = {};
    int32_t result = 0;
    thread([&] {
      result = run_call(*dispatcher, client, 0, ++sequence, ask.call, ask.path, ask.path2, data, answer, 0,
                        record);
    });
    return result;
  }
  uint32_t open(const std::string& path, uint32_t flags) {
    CHECK_EQ(run(Ask(Op::open).at(path).flags(flags).mode(0600)), 0);
    return answer.file;
  }
  void become(const Credentials& who) {
    client.set_credentials(who.uid, who.gid, who.groups, ::getpid());
    client.prove(1, {.read_only = instance->read_only});
  }
  std::string control() const {
    char name[32];
    control_name(instance->control, client.key, name);
    return temp.path + "/" + name;
  }

  LocalRig local;
  TempDir temp;
  Fd memfd;
  PoolMemory pool;
  std::unique_ptr<Dispatcher> dispatcher;
  std::shared_ptr<LibserviceHost> host;
  std::unique_ptr<Workers> workers;
  std::unique_ptr<Instance> instance;
  Notifier notifier;
  std::shared_ptr<Connection> connection;
  ServiceThread thread;
  FastClient client{0x1234'5678'9abc'def0};
  ReplayRecord* record = nullptr;
  std::vector<std::byte> data = std::vector<std::byte>(kDataSize);
  WireAnswer answer{};
  uint32_t sequence = 0;
};

// The body, in a child of the same mount namespace, as a client's process would do it. It says what went
// wrong by its exit status: the line.
template <typename Body>
void in_child(const Credentials& who, Body body) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::alarm(kPatience);
    if (::setgroups(who.groups.size(), who.groups.data()) != 0 ||
        ::setresgid(who.gid, who.gid, who.gid) != 0 || ::setresuid(who.uid, who.uid, who.uid) != 0)
      ::_exit(255);
    ::_exit(body());
  }
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  if (!CHECK_EQ(status, 0))
    std::fprintf(stderr, "  child: status %x, line %d\n", status, WEXITSTATUS(status));
}
#define NEED(condition) \
  if (!(condition)) return __LINE__ % 255

int promote(int directory, uint32_t handle, int flags) {
  char hex[16];
  std::snprintf(hex, sizeof hex, "%x", handle);
  return ::openat(directory, hex, O_CREAT | O_CLOEXEC | flags, 0);
}

// Everything in a child with a mount namespace of its own, so that nothing is left behind.
void in_namespace(void (*body)()) {
  if (::geteuid() != 0 || ::access("/dev/fuse", R_OK | W_OK) != 0) {
    std::printf("skipped: needs root and /dev/fuse\n");
    return;
  }
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::alarm(3 * kPatience);
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
      ::_exit(77);
    body();
    std::fflush(nullptr);
    ::_exit(check::failures.load() == 0 ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  CHECK_EQ(status, 0);
}

void a_file_becomes_a_descriptor() {
  MountRig rig;
  const Credentials who{1001, 2001, {}, false};
  rig.become(who);
  const uint32_t file = rig.open("f", O_RDWR | O_CREAT), reader = rig.open("f", O_RDONLY);
  std::memcpy(rig.data.data(), "fast", 4);
  Ask write(Op::write);
  write.of(file);
  write.call.size = 4;
  CHECK_EQ(rig.run(write), 0);
  CHECK_EQ(rig.run(Ask(Op::unlink).at("f")), 0);  // it has no name any more
  in_child(who, [&] {
    const int directory = ::open(rig.control().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    NEED(directory >= 0);
    NEED(promote(directory, file, O_RDONLY) < 0 && errno == EACCES);
    const int fd = promote(directory, file, O_RDWR);
    NEED(fd >= 0);
    char text[16]{};
    NEED(::pread(fd, text, sizeof text, 0) == 4 && std::memcmp(text, "fast", 4) == 0);
    NEED(::lseek(fd, 0, SEEK_END) == 4 && ::write(fd, "er", 2) == 2);
    struct stat st;
    NEED(::fstat(fd, &st) == 0 && st.st_size == 6 && st.st_uid == 1001);
    NEED(promote(directory, file, O_RDWR) < 0 && errno == ENOENT);
    NEED(promote(directory, reader, O_RDONLY) >= 0);
    NEED(promote(directory, 12345, O_RDONLY) < 0 && errno == ENOENT);
    NEED(::mkdirat(directory, "x", 0755) < 0);
    return 0;
  });
  CHECK_EQ(rig.run(Ask(Op::getattr).of(file)), kUnknownHandle);
  // The kernel's RELEASE comes when it likes.
  for (int i = 0; i < 500 && rig.dispatcher->open_files(1) != 0; i++) ::usleep(10'000);
  CHECK_EQ(rig.dispatcher->open_files(1), 0);
}

// The names are nobody else's, even for root; and nothing is listed.
void only_its_client_finds_the_directory() {
  MountRig rig;
  rig.become({1001, 2001, {}, false});
  (void)rig.open("f", O_RDWR | O_CREAT);
  in_child({0, 0, {}, true}, [&] {
    std::string wrong = rig.control();
    wrong.back() = wrong.back() == '0' ? '1' : '0';
    NEED(::open(wrong.c_str(), O_PATH) < 0 && errno == ENOENT);
    DIR* root = ::opendir(rig.temp.path.c_str());
    NEED(root != nullptr);
    int entries = 0;
    while (::readdir(root)) entries++;
    NEED(entries == 3);
    NEED(::access(rig.control().c_str(), W_OK | X_OK) == 0);
    NEED(::rmdir(rig.control().c_str()) < 0);
    NEED(::opendir(rig.control().c_str()) == nullptr);
    return 0;
  });
}

void a_read_only_mount() {
  // Made by the host: the instance itself must be read-only.
  MountRig rig(true);
  rig.local.host_write("f", "text");
  const Credentials who{1001, 2001, {}, false};
  rig.become(who);
  const uint32_t file = rig.open("f", O_RDONLY);
  in_child(who, [&] {
    const int directory = ::open(rig.control().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    NEED(directory >= 0);
    const int fd = promote(directory, file, O_RDONLY);
    char text[16]{};
    NEED(fd >= 0 && ::read(fd, text, sizeof text) == 4 && std::memcmp(text, "text", 4) == 0);
    NEED(promote(directory, file + 1, O_RDONLY) < 0 && errno == EROFS);
    return 0;
  });
  CHECK_EQ(rig.run(Ask(Op::release).of(file)), 0);
}

// Nobody serves the mount, so whatever asks it something hangs.
void flags_are_read_without_asking() {
  if (::syscall(457, nullptr, nullptr, 0, 0) < 0 && errno == ENOSYS) {
    std::printf("skipped: no statmount(2)\n");
    return;
  }
  TempDir temp;
  for (const bool restricted : {false, true}) {
    const Fd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
    const std::string options = "fd=" + std::to_string(device.get()) + ",rootmode=40000,user_id=0,group_id=0";
    REQUIRE(::mount("promotion_test", temp.path.c_str(), "fuse.poly-unit",
                    restricted ? MS_RDONLY | MS_NOEXEC : 0, options.c_str()) == 0);
    const Fd root(::open(temp.path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    struct statx stx;
    REQUIRE(statx(root.get(), "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, kUniqueMountId, &stx) == 0);
    MountFlags flags;
    CHECK_EQ(flags.read(root.get(), stx.stx_mnt_id), 0);
    CHECK_EQ(flags.read_only, restricted);
    CHECK_EQ(flags.no_execution, restricted);
    CHECK_EQ(::umount2(temp.path.c_str(), MNT_DETACH), 0);
  }
}

}  // namespace

TEST(flags_are_read_without_asking) {
  in_namespace(flags_are_read_without_asking);
}
TEST(a_file_becomes_a_descriptor) {
  in_namespace(a_file_becomes_a_descriptor);
}
TEST(only_its_client_finds_the_directory) {
  in_namespace(only_its_client_finds_the_directory);
}
TEST(a_read_only_mount) {
  in_namespace(a_read_only_mount);
}

CHECK_MAIN()
