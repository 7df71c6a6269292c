// Random bytes in place of FUSE messages: mutations of good ones, and noise. Nothing crashes, every answer is
// well formed, the service works afterwards. In a jail, since a name that slipped through would be meant as
// it is written.
#include <linux/fs.h>

#include <chrono>

#include "test/unit/fuse_rig.hpp"
#include "test/unit/jail.hpp"

using namespace rig;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kSeconds = 4;
#else
constexpr int kSeconds = 2;
#endif

constexpr uint32_t kOpcodes[]{
    FUSE_LOOKUP,      FUSE_FORGET,   FUSE_GETATTR,    FUSE_SETATTR,         FUSE_READLINK,     FUSE_SYMLINK,
    FUSE_MKNOD,       FUSE_MKDIR,    FUSE_UNLINK,     FUSE_RMDIR,           FUSE_RENAME,       FUSE_LINK,
    FUSE_OPEN,        FUSE_READ,     FUSE_WRITE,      FUSE_STATFS,          FUSE_RELEASE,      FUSE_FSYNC,
    FUSE_SETXATTR,    FUSE_GETXATTR, FUSE_LISTXATTR,  FUSE_REMOVEXATTR,     FUSE_FLUSH,        FUSE_INIT,
    FUSE_OPENDIR,     FUSE_READDIR,  FUSE_RELEASEDIR, FUSE_FSYNCDIR,        FUSE_GETLK,        FUSE_SETLK,
    FUSE_SETLKW,      FUSE_CREATE,   FUSE_INTERRUPT,  FUSE_DESTROY,         FUSE_BATCH_FORGET, FUSE_FALLOCATE,
    FUSE_READDIRPLUS, FUSE_RENAME2,  FUSE_LSEEK,      FUSE_COPY_FILE_RANGE, FUSE_TMPFILE,      kFuseStatx};

// Numbers that are likelier to mean something than others.
struct Words {
  std::vector<uint64_t> all{0,    1,        2,          7,         8,          64,
                            4096, 1u << 20, UINT32_MAX, INT64_MAX, UINT64_MAX, uint64_t{1} << 63};
  uint64_t pick(std::mt19937_64& rng) const { return rng() % 5 == 0 ? rng() : all[rng() % all.size()]; }
};

Message random_message(std::mt19937_64& rng, const Words& words) {
  Message message(rng() % 20 == 0 ? static_cast<uint32_t>(rng() % 80) : kOpcodes[rng() % std::size(kOpcodes)],
                  words.pick(rng), rng() % 100 == 0 ? rng() : 0);
  message.header.uid = rng() % 2 == 0 ? 0 : 1000;
  for (auto n = rng() % 9; n-- > 0;) {  // a structure of words and half words
    if (rng() % 2 == 0)
      message.with(words.pick(rng));
    else
      message.with(static_cast<uint32_t>(words.pick(rng)));
  }
  static const char* const kNames[]{"a", "b", "c", "d", ".", "..", "/", "a/b", "", "trusted.x", "user.y"};
  for (auto n = rng() % 3; n-- > 0;) message.text(kNames[rng() % std::size(kNames)]);
  if (rng() % 4 == 0) message.data(std::string(rng() % 200, static_cast<char>(rng())));
  if (rng() % 4 == 0 && !message.body.empty()) message.body.resize(rng() % message.body.size());
  for (auto flips = rng() % 3; flips-- > 0 && !message.body.empty();)
    message.body[rng() % message.body.size()] = static_cast<std::byte>(rng());
  return message;
}

void fuzz() {
  std::mt19937_64& rng = check::random();
  for (const Where& where : {kEverywhere[2], kEverywhere[3]}) {
    FuseRig rig(where, 16 << 20);
    Words words;
    for (const char* name : {"a", "b"}) {
      rig.local.host_write(name, "text");
      const uint64_t node = rig.lookup(name);
      words.all.insert(words.all.end(), {node, rig.open(node), node | 1});
    }
    REQUIRE(rig.local.mkdir("c") == 0);
    words.all.push_back(rig.lookup("c"));
    words.all.push_back(rig.call(Message(FUSE_OPENDIR).with(fuse_open_in{})).as<fuse_open_out>().fh);
    uint64_t sent = 0, fine = 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(kSeconds);
    while (std::chrono::steady_clock::now() < end) {
      for (int i = 0; i < 50; i++) {
        const Message message = random_message(rng, words);
        const Answer answer = rig.call(message);
        sent++;
        fine += answer.sent && answer.error == 0;
        // What was made may be used by the next ones.
        if (answer.error == 0 && answer.payload.size() >= sizeof(fuse_entry_out) && words.all.size() < 200)
          words.all.push_back(answer.as<uint64_t>());
      }
      std::vector<std::byte> noise(rng() % 300);
      for (auto& byte : noise) byte = static_cast<std::byte>(rng());
      if (noise.size() >= 4 && rng() % 2 == 0) {
        const auto length = static_cast<uint32_t>(noise.size());
        std::memcpy(noise.data(), &length, sizeof length);
      }
      (void)rig.handle(noise);
      while (rig.received().sent) {
      }
      if (open_fds() > 500) rig.restart();  // nobody closes anything here
    }
    CHECK(sent > 1000);
    CHECK(fine > 100);
    // The service is well, also after a restart over whatever that left in pool memory.
    for (int life = 0; life < 2; life++) {
      CHECK_EQ(rig.call(Message(FUSE_STATFS)).error, 0);
      const Answer made = rig.call(rig.create_message("after" + std::to_string(life), O_RDWR | O_EXCL));
      if (made.error != -ENOSPC) CHECK_EQ(made.error, 0);
      rig.restart();
    }
    std::printf("%s: %llu messages, %llu of them fine\n", where.name, static_cast<unsigned long long>(sent),
                static_cast<unsigned long long>(fine));
  }
}

}  // namespace

TEST(random_messages) {
  in_jail(fuzz);
}

CHECK_MAIN()
