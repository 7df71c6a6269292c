// A program on the fast path with nothing of the preload library, for tests of the control side:
//   attach-client ATTACH_DIRECTORY MOUNT FILE
// It gets the mount table from the keeper, finds the service of MOUNT there, attaches, proves to it that it
// reaches the mount, and looks FILE (a path below MOUNT) up. "size N" or "STEP ERRNO" on a line; then it
// stays attached until its stdin ends. Exit status 1 when a step failed.
#include <fcntl.h>
#include <sys/socket.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "fastpath/front_driver.hpp"
#include "fastpath/mount_table.hpp"
#include "fastpath/unix_socket.hpp"

using namespace poly;

namespace {

FrontDriver driver;

int fail(const char* step, int err) {
  const char* name = strerrorname_np(-err);
  std::printf("%s %s\n", step, name != nullptr ? name : std::to_string(err).c_str());
  return 1;
}

int fetch_table(const std::string& directory, MountTable& out) {
  Fd sock;
  if (int err = connect_unix(directory + "/table.sock", SOCK_SEQPACKET, sock)) return err;
  std::byte byte;
  std::vector<Fd> fds;
  if (ssize_t n = recv_with_fds(sock.get(), {&byte, 1}, fds, 0); n < 0) return static_cast<int>(n);
  return fds.size() == 1 ? MountTable::attach_reader(fds[0].get(), out) : -ENODATA;
}

int look_up(uint32_t instance, const char* path, WireAnswer& out) {
  RequestBuffer* buffer = driver.acquire();
  if (buffer == nullptr) return -EBUSY;
  buffer->call = {};
  buffer->call.op = static_cast<uint16_t>(Op::lookup);
  buffer->call.instance = instance;
  buffer->call.path_size = static_cast<uint32_t>(std::strlen(path));
  std::memcpy(buffer->paths, path, buffer->call.path_size);
  const int32_t result = driver.run(*buffer);
  out = buffer->answer;
  driver.release(buffer);
  return result;
}

int run(const std::string& directory, const char* mount, const char* file) {
  MountTable table;
  NormalPath path;
  MountMatch match;
  if (int err = fetch_table(directory, table)) return fail("table", err);
  if (int err = normalise(mount, path)) return fail("path", err);
  if (int err = table.lookup(path, match)) return fail("lookup", err);
  const std::string socket = directory + "/service-" + std::to_string(match.entry.service) + ".sock";
  if (int err = driver.attach(socket.c_str())) return fail("attach", err);
  const Fd root(::open(mount, O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root) return fail("open", -errno);
  AttachProven proven{};
  if (int err = driver.prove(match.entry.instance, root.get(), proven)) return fail("prove", err);
  WireAnswer answer{};
  if (int err = look_up(match.entry.instance, file, answer)) return fail("call", err);
  std::printf("size %llu\n", static_cast<unsigned long long>(answer.attr.stx_size));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const int status = run(argv[1], argv[2], argv[3]);
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
  return status;
}
