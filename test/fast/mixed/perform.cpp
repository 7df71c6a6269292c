#include "test/fast/mixed/perform.hpp"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

namespace mixed {

int64_t outcome(int64_t result) {
  return result < 0 ? -errno : result;
}

std::string bytes(uint32_t seed, int64_t size) {
  std::string data(static_cast<size_t>(size), '\0');
  uint32_t state = seed | 1;
  for (char& byte : data) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<char>(state >> 24);
  }
  return data;
}

uint64_t hash_of(const void* data, size_t size, uint64_t so_far) {
  const auto* at = static_cast<const unsigned char*>(data);
  for (size_t i = 0; i < size; ++i) so_far = (so_far ^ at[i]) * 0x100000001b3;
  return so_far;
}

const char* name_of(Operation operation) {
  static constexpr const char* kNames[]{
#define X(name, weight) #name,
      MIXED_OPERATIONS(X)
#undef X
  };
  return kNames[static_cast<uint32_t>(operation)];
}

Performer::Performer(std::string root) : root_(std::move(root)) {
  for (int& slot : slots_) slot = -1;
}

Performer::~Performer() {
  for (const int slot : slots_) {
    if (slot >= 0) close(slot);
  }
}

Performer::Name Performer::name(int base, const char* path) const {
  if (base == kAbsolute) return {AT_FDCWD, root_ + "/" + path};
  return {base == kHere ? AT_FDCWD : fd(base), path};
}

Result Performer::perform(const Request& r) {
  Result out;
  memset(&out, 0, sizeof out);
  if (r.operation <= Operation::close || r.operation >= Operation::duplicate)
    on_descriptor(r, out);
  else
    on_data(r, out);
  return out;
}

int64_t Performer::put(int slot, int fd) {
  const int64_t result = outcome(fd);
  if (slots_[slot] >= 0) close(slots_[slot]);
  slots_[slot] = fd;
  return result < 0 ? result : 0;
}

int64_t Performer::open_slot(const Request& r) {
  const Name name = first(r);
  return put(r.slot, openat(name.base, name.path.c_str(), r.flags | O_CLOEXEC, r.mode));
}

int64_t Performer::duplicate(const Request& r) {
  if (r.slot == r.slot2) return 0;
  return put(r.slot2, fcntl(fd(r.slot), F_DUPFD_CLOEXEC, 3));
}

int64_t Performer::set_append(const Request& r) {
  const int flags = fcntl(fd(r.slot), F_GETFL);
  if (flags < 0) return -errno;
  return outcome(fcntl(fd(r.slot), F_SETFL, (r.flags & 1) != 0 ? flags | O_APPEND : flags & ~O_APPEND));
}

// Of the open file, not of the process: the driver's performers are one process.
int64_t Performer::lock_range(const Request& r) {
  struct flock lock {};
  constexpr int kTypes[]{F_RDLCK, F_WRLCK, F_UNLCK};
  lock.l_type = static_cast<short>(kTypes[r.flags % 3]);
  lock.l_start = r.offset;
  lock.l_len = r.size;
  return outcome(fcntl(fd(r.slot), F_OFD_SETLK, &lock));
}

namespace {

int64_t wait_for(pid_t child) {
  int status = -1;
  if (waitpid(child, &status, 0) != child) return -errno;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + status;
}

}  // namespace

// Parent and child share the offset.
int64_t Performer::child_write(const Request& r) {
  const std::string data = bytes(r.seed, r.size % 1000);
  const pid_t child = fork();
  if (child == 0) {
    const ssize_t written = write(fd(r.slot), data.data(), data.size());
    _exit(written == static_cast<ssize_t>(data.size()) ? 0 : written < 0 ? errno : 255);
  }
  return child < 0 ? -errno : wait_for(child);
}

// A static program, if there is one, as its standard output.
int64_t Performer::program_write(const Request& r) {
  if (fcntl(fd(r.slot), F_GETFD) < 0) return -errno;
  const bool busybox = access("/bin/busybox", X_OK) == 0;
  std::string program = busybox ? "/bin/busybox" : "/bin/echo", word = "echo", text = std::to_string(r.seed);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, fd(r.slot), 1);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  char* arguments[]{word.data(), text.data(), nullptr};
  pid_t child;
  const int error = posix_spawn(&child, program.c_str(), &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  return error != 0 ? -error : wait_for(child);
}

void Performer::on_descriptor(const Request& r, Result& out) {
  constexpr int kLocks[]{LOCK_SH, LOCK_EX, LOCK_UN};
  switch (r.operation) {
    case Operation::open:
      out.value = open_slot(r);
      break;
    case Operation::close:
      out.value = outcome(close(fd(r.slot)));
      slots_[r.slot] = -1;
      break;
    case Operation::duplicate:
      out.value = duplicate(r);
      break;
    case Operation::set_append:
      out.value = set_append(r);
      break;
    case Operation::get_flags:
      out.value = outcome(fcntl(fd(r.slot), F_GETFL));
      break;
    case Operation::lock_file:
      out.value = outcome(flock(fd(r.slot), kLocks[r.flags % 3] | LOCK_NB));
      break;
    case Operation::lock_range:
      out.value = lock_range(r);
      break;
    case Operation::child_write:
      out.value = child_write(r);
      settle_offset(r.slot);
      break;
    default:
      out.value = program_write(r);
      settle_offset(r.slot);
  }
}

}  // namespace mixed
