#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "fastpath/attach_socket.hpp"
#include "fastpath/front_driver.hpp"
#include "fastpath/unix_socket.hpp"
#include "test/faults/attack/attack.hpp"

namespace attack {
namespace {

using namespace poly;

// Request memory that is what it should be, or nearly so.
Fd memory(size_t size, bool sealed) {
  Fd fd(memfd_create("attack", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (ftruncate(fd.get(), static_cast<off_t>(size)) != 0) _exit(1);
  if (sealed && fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) _exit(1);
  return fd;
}

Fd any_descriptor(const Target& target, Random& random) {
  switch (random.below(8)) {
    case 0:
      return memory(random.below(1u << 21), random.one_in(2));
    case 1:
      return memory(sizeof(RequestBuffer), true);
    case 2:
      return Fd(open("/", O_PATH | O_CLOEXEC));
    case 3:
      return Fd(open(target.mount.c_str(), O_PATH | O_CLOEXEC));
    case 4:
      return Fd(open((target.mount + "/junk").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    case 5:
      return Fd(fcntl(target.silent_root, F_DUPFD_CLOEXEC, 0));
    case 6:
      return Fd(open((target.mount + "/junk/own").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
    default:
      return Fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  }
}

std::vector<std::byte> any_message(const Target& target, Random& random) {
  AttachHello hello{kWireMagic, kWireAbi, AttachKind::kHello, static_cast<uint32_t>(random.below(4)), 0};
  AttachProve prove{kWireMagic, kWireAbi, AttachKind::kProve, target.instance};
  if (random.one_in(4)) hello.key = random.next();
  if (random.one_in(6)) hello.buffers = static_cast<uint32_t>(random.next());
  if (random.one_in(6)) prove.instance = static_cast<uint32_t>(random.next());
  const bool proves = random.one_in(3);
  std::vector<std::byte> message(proves ? sizeof prove : sizeof hello);
  std::memcpy(message.data(), proves ? static_cast<void*>(&prove) : &hello, message.size());
  if (random.one_in(4)) message.resize(random.below(200));
  if (random.one_in(4) && !message.empty())
    message[random.below(message.size())] = static_cast<std::byte>(random.next());
  return message;
}

void say_something(int socket, const Target& target, Random& random) {
  std::vector<Fd> fds;
  std::vector<int> numbers;
  for (uint64_t i = random.one_in(10) ? random.below(100) : random.below(3); i > 0; i--)
    fds.push_back(any_descriptor(target, random));
  for (const Fd& fd : fds) {
    if (fd) numbers.push_back(fd.get());
  }
  const auto message = any_message(target, random);
  (void)send_with_fds(socket, message, numbers, MSG_DONTWAIT);
}

// Attached with memory for one buffer, or -1.
int attached(const Target& target, int memfd) {
  const int socket = connect_attach(target.socket.c_str());
  if (socket < 0) return -1;
  const AttachHello hello{kWireMagic, kWireAbi, AttachKind::kHello, 1, 0};
  AttachWelcome welcome{};
  int queues = -1;
  const int err = exchange(socket, &hello, sizeof hello, memfd, &welcome, sizeof welcome, queues);
  if (queues >= 0) close(queues);
  if (err == 0 && welcome.result == 0) return socket;
  close(socket);
  return -1;
}

}  // namespace

void speak_nonsense(const Target& target, Random& random, Tally clients) {
  std::vector<Fd> sockets;
  for (;;) {
    clients.fetch_add(1);
    Fd socket(connect_attach(target.socket.c_str()));
    if (!socket) continue;
    for (uint64_t i = random.below(4); i > 0; i--) say_something(socket.get(), target, random);
    // Some stay, and say no more.
    if (random.one_in(4) && sockets.size() < 200) sockets.push_back(std::move(socket));
    if (random.one_in(50)) sockets.clear();
  }
}

void crowd(const Target& target, Random& random, Tally clients) {
  const Fd memfd = memory(sizeof(RequestBuffer), true);
  for (;;) {
    std::vector<Fd> sockets;
    for (uint64_t i = 100 + random.below(400); i > 0; i--) {
      clients.fetch_add(1);
      if (const int socket = attached(target, memfd.get()); socket >= 0) sockets.emplace_back(socket);
    }
    usleep(static_cast<useconds_t>(random.below(100'000)));
  }
}

void come_and_go(const Target& target, Random& random, Tally clients) {
  const Fd memfd = memory(sizeof(RequestBuffer), true);
  auto* buffer = static_cast<RequestBuffer*>(
      mmap(nullptr, sizeof(RequestBuffer), PROT_READ | PROT_WRITE, MAP_SHARED, memfd.get(), 0));
  if (buffer == MAP_FAILED) _exit(1);
  for (;;) {
    clients.fetch_add(1);
    const Fd socket(attached(target, memfd.get()));
    buffer->state.store(call_state(static_cast<uint32_t>(random.next()), CallPhase::kPosted));
    if (random.one_in(3)) usleep(static_cast<useconds_t>(random.below(300)));
  }
}

}  // namespace attack
