#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "fastpath/front_driver.hpp"
#include "fastpath/waiting.hpp"
#include "test/faults/attack/attack.hpp"

namespace attack {
namespace {

using namespace poly;

class Scribbler {
 public:
  Scribbler(FrontDriver& driver, uint32_t instance, Random& random)
      : driver_(driver), instance_(instance), random_(random) {
    for (auto& buffer : buffers_) buffer = driver.acquire();
  }

  void one() {
    RequestBuffer& buffer = *buffers_[random_.below(kBuffers)];
    switch (random_.below(8)) {
      case 0:
        return words(&buffer, sizeof buffer - kDataSize, 16);
      case 1:
        return words(&driver_.queues()->layout(), driver_.queues()->size(), 16);
      case 2:  // where the layout's own words are: placement, bells, heads and tails
        return words(&driver_.queues()->layout(), sizeof(QueueMemoryLayout) + 192, 8);
      case 3:
        buffer.state.store(static_cast<uint32_t>(random_.next()));
        return;
      case 4:
      case 5:
        return lie(buffer);
      case 6:
        return forge_hints();
      default:
        return ring();
    }
  }

 private:
  static constexpr size_t kBuffers = 4;

  void words(void* at, size_t size, int count) {
    auto* words = static_cast<uint64_t*>(at);
    for (int i = 0; i < count; i++) {
      const uint64_t value = random_.one_in(3) ? random_.below(4) : random_.next();
      __atomic_store_n(words + random_.below(size / 8), value, __ATOMIC_RELAXED);
    }
  }

  uint32_t wild(uint32_t usual) {
    return random_.one_in(4) ? static_cast<uint32_t>(random_.next())
                             : static_cast<uint32_t>(random_.below(usual));
  }

  // A call that is posted as it should be, and means something or not.
  void lie(RequestBuffer& buffer) {
    WireCall call{};
    call.op = static_cast<uint16_t>(random_.one_in(8) ? random_.next() : random_.below(kOpCount));
    call.walk = static_cast<uint16_t>(random_.below(32));
    call.instance = random_.one_in(8) ? wild(9) : instance_;
    call.directory = random_.one_in(3) ? wild(1000) : 0;
    call.directory2 = random_.one_in(3) ? wild(1000) : 0;
    call.file = wild(1000);
    call.file2 = wild(1000);
    const std::string path = "junk/" + std::to_string(random_.below(20)),
                      path2 = "junk/" + std::to_string(random_.below(20));
    call.path_size = random_.one_in(6) ? wild(9000) : static_cast<uint32_t>(path.size());
    call.path2_size = random_.one_in(6) ? wild(9000) : static_cast<uint32_t>(path2.size());
    call.flags = random_.one_in(3) ? wild(1u << 20) : static_cast<uint32_t>(O_RDWR | O_CREAT);
    call.mode = wild(0200000);
    call.umask = wild(01000);
    call.resent = wild(2);
    call.offset = random_.one_in(4) ? random_.next() : random_.below(1u << 20);
    call.offset2 = random_.next();
    call.size = random_.one_in(3) ? random_.next() : random_.below(2u << 20);
    call.set_mask = wild(256);
    call.set_size = random_.one_in(4) ? random_.next() : random_.below(1u << 20);
    std::memcpy(&buffer.call, &call, sizeof call);
    std::memcpy(buffer.paths, path.data(), path.size());
    std::memcpy(buffer.paths + path.size(), path2.data(), path2.size());
    const auto sequence = static_cast<uint32_t>(random_.below(1u << 30));
    buffer.state.store(call_state(sequence, CallPhase::kPosted));
    const auto index = static_cast<uint16_t>(&buffer - buffers_[0]);
    (void)driver_.queues()->queue(0).enqueue({driver_.client(), index, sequence});
    ring();
    if (random_.one_in(2)) buffer.call.path_size = wild(9000);  // while it is being read, perhaps
    if (random_.one_in(2)) usleep(static_cast<useconds_t>(random_.below(200)));
  }

  void forge_hints() {
    for (int i = 0; i < 64; i++)
      (void)driver_.queues()->queue(0).enqueue(
          {wild(4096), static_cast<uint16_t>(wild(256)), static_cast<uint32_t>(random_.next())});
  }

  void ring() {
    auto& bells = driver_.queues()->layout().bells;
    for (int i = 0; i < 4; i++) {
      auto& word = bells[i].word;
      word.store(random_.one_in(4) ? static_cast<uint32_t>(random_.next()) : Doorbell::kAwake);
      futex_wake(word, 1);
    }
  }

  FrontDriver& driver_;
  const uint32_t instance_;
  Random& random_;
  RequestBuffer* buffers_[kBuffers];
};

}  // namespace

void scribble(const Target& target, Random& random, Tally clients) {
  static FrontDriver driver;
  clients.fetch_add(1);
  if (driver.attach(target.socket.c_str(), 4) != 0) return;
  const int root = open(target.mount.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  AttachProven proven{};
  if (const int err = driver.prove(target.instance, root, proven)) {
    printf("a scribbler cannot prove the mount: %s\n", strerror(-err));
    fflush(stdout);
    _exit(1);
  }
  Scribbler scribbler(driver, target.instance, random);
  for (;;) scribbler.one();
}

}  // namespace attack
