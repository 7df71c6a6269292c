// Exactly once: the service dies before and after each of its libservice calls, and after the last; its
// successor is asked again. The answer and the files must be as if the request had run once.
#include "native/core/replay.hpp"

#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <functional>
#include <set>

#include "test/unit/fuse_rig.hpp"

using namespace rig;

namespace {

// Ends the process at the n-th occasion; there is one before and one after every call.
class MortalLibservice final : public ForwardingLibservice {
 public:
  MortalLibservice(Libservice& next, int lives) : ForwardingLibservice(next), lives_(lives) {}
  void before() override { occasion(); }
  void after() override { occasion(); }

 private:
  void occasion() {
    if (lives_-- == 0) ::_exit(1);
  }
  int lives_;
};

struct Scene {
  const char* name;
  std::function<void(FuseRig&)> prepare;
  std::function<Message(FuseRig&)> ask;
  int error;  // of the answer
  std::function<void(FuseRig&, const Answer&)> check;
};

constexpr uint64_t kUnique = 5000;

// One child is the service that dies; the parent is the successor. Returns false when the request was
// answered without dying at occasion `n`, that is when there are no more of them.
bool die_at(const Scene& scene, Where where, int n) {
  FuseRig rig(where);
  scene.prepare(rig);
  const Message message = [&] {
    Message m = scene.ask(rig);
    m.header.unique = kUnique;
    return m;
  }();
  const uint64_t files_before = rig.open_files();
  // The predecessor's heap is the child's; pool memory and files are shared.
  const pid_t pid = ::fork();
  if (pid == 0) {
    MortalLibservice mortal(*rig.local.fs, n);
    rig.life->host->libservice = std::make_unique<ForwardingLibservice>(static_cast<Libservice&>(mortal));
    const std::vector<std::byte> bytes = message.bytes();
    std::vector<std::byte> out(kReplyRoom);
    Call call(*rig.life->connection, *rig.life->dispatcher, 0, 0, bytes, out);
    (void)call.run(rig.life->record);
    ::_exit(0);  // before the answer is on its way
  }
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid && WIFEXITED(status));
  rig.restart();
  const Answer answer = rig.resend(message);
  if (!CHECK_EQ(answer.error, scene.error))
    std::fprintf(stderr, "  %s at %d, %s\n", scene.name, n, where.name);
  const uint64_t failures = check::failures.load();
  scene.check(rig, answer);
  // What the answer names is there, and nothing else is left behind by the one who died.
  const auto opcode = message.header.opcode;
  const bool opens =
      answer.error == 0 && (opcode == FUSE_CREATE || opcode == FUSE_TMPFILE || opcode == FUSE_OPEN);
  CHECK_EQ(rig.open_files(), files_before + (opens ? 1 : 0));
  if (answer.error == 0 && answer.payload.size() >= sizeof(fuse_entry_out)) {
    const uint64_t node = answer.as<fuse_entry_out>().nodeid, before = rig.nodes();
    CHECK_EQ(rig.call(Message(FUSE_GETATTR, node).with(fuse_getattr_in{})).error, 0);
    if (opens) rig.release(node, answer.as<fuse_open_out>(sizeof(fuse_entry_out)).fh);
    rig.forget(node);
    if (opcode != FUSE_LINK) CHECK_EQ(rig.nodes(), before - 1);  // one lookup, not two
  }
  if (check::failures.load() != failures) std::fprintf(stderr, "  %s at %d, %s\n", scene.name, n, where.name);
  CHECK_EQ(rig.life->record->phase.load(), kIdle);
  return WEXITSTATUS(status) == 1;
}

std::vector<Scene> scenes() {
  const auto nothing = [](FuseRig&) {};
  const auto with_file = [](FuseRig& rig) { rig.local.host_write("f", "text"); };
  const auto exists = [](const char* name) {
    return [name](FuseRig& rig, const Answer&) { CHECK(rig.local.host_exists(name)); };
  };
  const auto gone = [](const char* name) {
    return [name](FuseRig& rig, const Answer&) { CHECK(!rig.local.host_exists(name)); };
  };
  const auto as_before = [](FuseRig& rig, const Answer&) { CHECK_EQ(rig.local.host_text("f"), "text"); };
  const auto mkdir = [](FuseRig&) { return Message(FUSE_MKDIR).with(fuse_mkdir_in{0755, 0}).text("d"); };
  const auto renamed = [](uint32_t flags) {
    return [flags](FuseRig&) {
      return Message(FUSE_RENAME2).with(fuse_rename2_in{1, flags, 0}).text("f").text("g");
    };
  };
  const auto set_xattr = [](uint32_t flags) {
    return [flags](FuseRig& rig) {
      fuse_setxattr_in in{};
      in.size = 3;
      in.flags = flags;
      return Message(FUSE_SETXATTR, rig.lookup("f")).with(in).text("trusted.x").data("new");
    };
  };
  const auto with_xattr = [=](const char* value) {
    return [=](FuseRig& rig) {
      with_file(rig);
      REQUIRE(::setxattr(rig.local.host("f").c_str(), "trusted.x", value, 3, 0) == 0);
    };
  };
  const auto append = [](FuseRig& rig) {
    const uint64_t node = rig.lookup("f");
    return rig.write_message(node, rig.open(node), 0, "+more", O_APPEND);
  };
  const auto open_file = [](uint32_t flags) {
    return [flags](FuseRig& rig) { return Message(FUSE_OPEN, rig.lookup("f")).with(fuse_open_in{flags, 0}); };
  };
  return {
      {"mkdir", nothing, mkdir, 0, exists("d")},
      {"mkdir of what is there", [](FuseRig& rig) { REQUIRE(rig.local.mkdir("d") == 0); }, mkdir, -EEXIST,
       exists("d")},
      {"mknod", nothing,
       [](FuseRig&) {
         return Message(FUSE_MKNOD).with(fuse_mknod_in{S_IFIFO | 0600, 0, 0, 0}).text("p");
       },
       0, exists("p")},
      {"symlink", nothing, [](FuseRig&) { return Message(FUSE_SYMLINK).text("s").text("x"); }, 0,
       exists("s")},
      {"link", with_file,
       [](FuseRig& rig) { return Message(FUSE_LINK).with(fuse_link_in{rig.lookup("f")}).text("l"); }, 0,
       [](FuseRig& rig, const Answer& answer) {
         CHECK_EQ(rig.local.host_stat("f").st_nlink, 2);
         CHECK_EQ(answer.as<fuse_entry_out>().attr.nlink, 2);
       }},
      {"create exclusively", nothing, [](FuseRig& rig) { return rig.create_message("n", O_RDWR | O_EXCL); },
       0, exists("n")},
      {"create exclusively what is there", with_file,
       [](FuseRig& rig) { return rig.create_message("f", O_RDWR | O_EXCL); }, -EEXIST, as_before},
      {"create", nothing, [](FuseRig& rig) { return rig.create_message("n", O_RDWR); }, 0, exists("n")},
      {"create what is there", with_file, [](FuseRig& rig) { return rig.create_message("f", O_RDWR); }, 0,
       as_before},
      {"tmpfile", nothing,
       [](FuseRig&) {
         return Message(FUSE_TMPFILE)
             .with(fuse_create_in{O_RDWR | O_TMPFILE, S_IFREG | 0600, 0, 0})
             .text("/");
       },
       0, [](FuseRig&, const Answer& answer) { CHECK_EQ(answer.as<fuse_entry_out>().attr.nlink, 0); }},
      {"unlink", with_file, [](FuseRig&) { return Message(FUSE_UNLINK).text("f"); }, 0, gone("f")},
      {"unlink of nothing", nothing, [](FuseRig&) { return Message(FUSE_UNLINK).text("f"); }, -ENOENT,
       gone("f")},
      {"unlink of one link",
       [=](FuseRig& rig) {
         with_file(rig);
         REQUIRE(::link(rig.local.host("f").c_str(), rig.local.host("g").c_str()) == 0);
       },
       [](FuseRig&) { return Message(FUSE_UNLINK).text("g"); }, 0, as_before},
      {"rmdir", [](FuseRig& rig) { REQUIRE(rig.local.mkdir("d") == 0); },
       [](FuseRig&) { return Message(FUSE_RMDIR).text("d"); }, 0, gone("d")},
      {"rmdir of a full one",
       [](FuseRig& rig) { REQUIRE(rig.local.mkdir("d") == 0 && rig.local.mkdir("d/e") == 0); },
       [](FuseRig&) { return Message(FUSE_RMDIR).text("d"); }, -ENOTEMPTY, exists("d/e")},
      {"rename", with_file, renamed(0), 0,
       [](FuseRig& rig, const Answer&) {
         CHECK_EQ(rig.local.host_text("g") + rig.local.host_text("f"), "textE2");
       }},
      {"rename over another",
       [=](FuseRig& rig) {
         with_file(rig);
         rig.local.host_write("g", "old");
       },
       renamed(0), 0,
       [](FuseRig& rig, const Answer&) {
         CHECK_EQ(rig.local.host_text("g") + rig.local.host_text("f"), "textE2");
       }},
      {"exchange",
       [=](FuseRig& rig) {
         with_file(rig);
         rig.local.host_write("g", "other");
       },
       renamed(RENAME_EXCHANGE), 0,
       [](FuseRig& rig, const Answer&) {
         CHECK_EQ(rig.local.host_text("g") + rig.local.host_text("f"), "textother");
       }},
      {"rename to what is there",
       [=](FuseRig& rig) {
         with_file(rig);
         rig.local.host_write("g", "other");
       },
       renamed(RENAME_NOREPLACE), -EEXIST, as_before},
      {"rename of nothing", nothing, renamed(0), -ENOENT, gone("g")},
      {"append", with_file, append, 0,
       [](FuseRig& rig, const Answer& answer) {
         CHECK_EQ(rig.local.host_text("f"), "text+more");
         CHECK_EQ(answer.as<fuse_write_out>().size, 5);
       }},
      {"open", with_file, open_file(O_RDWR), 0, as_before},
      {"open and truncate", with_file, open_file(O_RDWR | O_TRUNC), 0,
       [](FuseRig& rig, const Answer&) { CHECK_EQ(rig.local.host_text("f"), ""); }},
      {"setxattr", with_file, set_xattr(0), 0, as_before},
      {"setxattr of a new one", with_file, set_xattr(XATTR_CREATE), 0, as_before},
      {"setxattr of a new one that is there", with_xattr("old"), set_xattr(XATTR_CREATE), -EEXIST, as_before},
      {"setxattr of a new one that is there and equal", with_xattr("new"), set_xattr(XATTR_CREATE), -EEXIST,
       as_before},
      {"removexattr", with_xattr("old"),
       [](FuseRig& rig) { return Message(FUSE_REMOVEXATTR, rig.lookup("f")).text("trusted.x"); }, 0,
       [](FuseRig& rig, const Answer&) {
         CHECK(::getxattr(rig.local.host("f").c_str(), "trusted.x", nullptr, 0) < 0);
       }},
      {"removexattr of nothing", with_file,
       [](FuseRig& rig) { return Message(FUSE_REMOVEXATTR, rig.lookup("f")).text("trusted.x"); }, -ENODATA,
       as_before},
  };
}

}  // namespace

TEST(dies_at_every_call) {
  int deaths = 0;
  for (const Where& where : kEverywhere) {
    for (const Scene& scene : scenes()) {
      for (int n = 0; die_at(scene, where, n); n++) deaths++;
    }
  }
  CHECK(deaths > 100);
  std::printf("%d deaths\n", deaths);
}

TEST(left_records) {
  Fd memfd;
  REQUIRE(PoolMemory::create(memfd) == 0);
  {
    PoolMemory pool;
    REQUIRE(pool.map(memfd.get()) == 0);
    ReplayTable table(pool);
    ReplayRecord* idle = table.reserve();
    ReplayRecord* busy = table.reserve();
    ReplayRecord* done = table.reserve();
    REQUIRE(idle && busy && done);
    replay_start(*busy, 3, 100, 9);
    replay_start(*done, 4, 100, 9);
    done->result = -7;
    done->phase.store(kDone);
  }
  PoolMemory pool;
  REQUIRE(pool.map(memfd.get()) == 0);
  ReplayTable table(pool);
  CHECK(table.find(3, 101) == nullptr);
  CHECK(table.find(5, 100) == nullptr);
  ReplayRecord* busy = table.find(3, 100);
  ReplayRecord* done = table.find(4, 100);
  REQUIRE(busy && done);
  CHECK_EQ(busy->phase.load(), kStarted);
  CHECK_EQ(done->result, -7);
  CHECK(table.find(3, 100) == nullptr);  // it is somebody's now
  // All others can be had, each once; the two only after their release.
  std::set<ReplayRecord*> had;
  while (ReplayRecord* record = table.reserve()) CHECK(had.insert(record).second);
  CHECK_EQ(had.size(), PoolMemory::kReplays - 2);
  CHECK(!had.contains(busy) && !had.contains(done));
  table.release(busy);
  CHECK_EQ(busy->phase.load(), kIdle);
  CHECK(table.reserve() == busy);
}

// A service is killed again and again at any instant while it makes and removes files; what it had not
// answered is asked again of the next one. In the end the files are what the answers said.
TEST(killed_at_any_instant) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr int kKills = 15;
#else
  constexpr int kKills = 80;
#endif
  struct Progress {
    std::atomic<uint64_t> asked, answered;
    std::atomic<int> wrong;
  };
  void* memory = ::mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  auto& progress = *new (memory) Progress{};
  for (const Where& where : {kEverywhere[0], kEverywhere[3]}) {
    FuseRig rig(where);
    rig.local.host_write("log", "");
    const uint64_t log = rig.lookup("log"), fh = rig.open(log);
    progress.asked = progress.answered = 0;
    // Request n, in turn: mkdir, append, rename, rmdir. All must succeed, each time.
    const auto message = [&](uint64_t n) {
      const std::string name = "d" + std::to_string(n / 4);
      Message m = n % 4 == 0   ? Message(FUSE_MKDIR).with(fuse_mkdir_in{0755, 0}).text(name)
                  : n % 4 == 1 ? rig.write_message(log, fh, 0, std::to_string(n / 4) + ";", O_APPEND)
                  : n % 4 == 2 ? Message(FUSE_RENAME).with(fuse_rename_in{1}).text(name).text(name + "x")
                               : Message(FUSE_RMDIR).text(name + "x");
      m.header.unique = 10'000 + 2 * n;
      return m;
    };
    const auto ask = [&](uint64_t n, bool again) {
      progress.asked = n + 1;
      rig.answered = [&, n](const Answer& answer) {
        if (answer.error != 0) progress.wrong++;
        progress.answered = n + 1;
      };
      (void)(again ? rig.resend(message(n)) : rig.call(message(n)));
    };
    for (int kill = 0; kill < kKills; kill++) {
      const pid_t pid = ::fork();
      if (pid == 0) {
        for (uint64_t n = progress.answered; n < 1'000'000; n++) {
          // What was asked and not answered comes again.
          ask(n, progress.asked > n);
        }
        ::_exit(0);
      }
      ::usleep(static_cast<useconds_t>(500 + check::random()() % 4000));
      ::kill(pid, SIGKILL);
      int status = 0;
      REQUIRE(::waitpid(pid, &status, 0) == pid);
      rig.restart();
    }
    if (progress.asked > progress.answered) ask(progress.answered, true);
    while (progress.answered % 4 != 0) ask(progress.answered, false);
    CHECK_EQ(progress.wrong.load(), 0);
    std::string expected;
    const uint64_t rounds = progress.answered / 4;
    for (uint64_t round = 0; round < rounds; round++) expected += std::to_string(round) + ";";
    std::string found(expected.size() + 100, '\0');
    const Fd file(::open(rig.local.host("log").c_str(), O_RDONLY | O_CLOEXEC));
    const ssize_t size = ::read(file.get(), found.data(), found.size());
    found.resize(static_cast<size_t>(std::max<ssize_t>(size, 0)));
    CHECK(found == expected);
    CHECK_EQ(rig.open_files(), 1);
    std::printf("%s: %llu rounds over %d kills\n", where.name, static_cast<unsigned long long>(rounds),
                kKills);
  }
}

CHECK_MAIN()
