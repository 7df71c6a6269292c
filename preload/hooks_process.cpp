// New processes and programs, and where a process is in the filesystem.
//
// fork runs the handlers of process.cpp, also inside daemon and forkpty. What does not run them is here.
#include <errno.h>
#include <poll.h>

#include "preload/answer.hpp"
#include "preload/directories.hpp"
#include "preload/files.hpp"
#include "preload/process.hpp"
#include "preload/promote.hpp"
#include "preload/real.hpp"
#include "preload/sys.hpp"

using namespace poly;

// ---- New processes ----

// Without handlers: a child that wants to be safe in a signal handler. It finds itself in notice_fork().
POLY_HOOK pid_t _Fork() noexcept {
  if (!process::on()) return real::_Fork();
  promote::all_and_hold();
  const pid_t child = real::_Fork();
  if (child == 0)
    process::forget_parent();
  else
    promote::release_hold();
  return child;
}

namespace {

// Waits as vfork(2) does: until the child has executed a program or ended, which closes its end.
void wait_for_exec(int fd) {
  char byte;
  while (sys::read(fd, &byte, 1) == -EINTR) {
  }
}

// vfork lends its memory to the child, and with it the library's tables; POSIX lets it be fork.
pid_t fork_and_wait() {
  int ends[2];
  const bool waits = sys::call(SYS_pipe2, sys::word(ends), O_CLOEXEC) == 0;
  if (waits) {
    for (int& end : ends) end = own_fds::move_high(end);
  }
  const pid_t child = real::fork();
  if (waits) {
    if (child == 0) {
      sys::close(ends[0]);
    } else {
      sys::close(ends[1]);
      if (child > 0) wait_for_exec(ends[0]);
      sys::close(ends[0]);
    }
  }
  return child;
}

}  // namespace

// A function that returns twice cannot be called from one that returns: without the library in the way the
// jump goes straight to libc's vfork, on the caller's frame.
extern "C" __attribute__((visibility("hidden"), used)) void* poly_vfork_target() {
  if (process::on()) return reinterpret_cast<void*>(&fork_and_wait);
  return real::find("vfork");
}

#if defined(__x86_64__)
asm(R"(
  .text
  .globl vfork
  .globl __vfork
  .type vfork, @function
  .type __vfork, @function
vfork:
__vfork:
  .cfi_startproc
  endbr64
  subq $8, %rsp
  .cfi_adjust_cfa_offset 8
  call poly_vfork_target
  addq $8, %rsp
  .cfi_adjust_cfa_offset -8
  jmp *%rax
  .cfi_endproc
  .size vfork, . - vfork
  .size __vfork, . - __vfork
)");
#elif defined(__aarch64__)
asm(R"(
  .text
  .globl vfork
  .globl __vfork
  .type vfork, %function
  .type __vfork, %function
vfork:
__vfork:
  .cfi_startproc
  stp x29, x30, [sp, -16]!
  .cfi_adjust_cfa_offset 16
  bl poly_vfork_target
  ldp x29, x30, [sp], 16
  .cfi_adjust_cfa_offset -16
  br x0
  .cfi_endproc
  .size vfork, . - vfork
  .size __vfork, . - __vfork
)");
#endif

// Threads made by hand share everything or nothing that the library could follow.
POLY_HOOK int clone(int (*function)(void*), void* stack, int flags, void* argument, ...) noexcept {
  va_list list;
  va_start(list, argument);
  auto* parent = va_arg(list, pid_t*);
  auto* tls = va_arg(list, void*);
  auto* child = va_arg(list, pid_t*);
  va_end(list);
  constexpr int kThread = CLONE_VM | CLONE_FS | CLONE_FILES;
  if (process::on() && (flags & kThread) != kThread) {
    promote::all();
    // It shares some of our picture, and not the rest.
    if ((flags & kThread) != 0) process::switch_off();
  }
  return real::clone(function, stack, flags, argument, parent, tls, child);
}

POLY_HOOK int posix_spawn(pid_t* child, const char* path, const posix_spawn_file_actions_t* actions,
                          const posix_spawnattr_t* attributes, char* const* arguments,
                          char* const* environment) noexcept {
  if (process::on()) promote::all();
  return real::posix_spawn(child, path, actions, attributes, arguments, environment);
}

POLY_HOOK int posix_spawnp(pid_t* child, const char* file, const posix_spawn_file_actions_t* actions,
                           const posix_spawnattr_t* attributes, char* const* arguments,
                           char* const* environment) noexcept {
  if (process::on()) promote::all();
  return real::posix_spawnp(child, file, actions, attributes, arguments, environment);
}

POLY_HOOK int system(const char* command) {
  if (process::on()) promote::inheritable();
  return real::system(command);
}

POLY_HOOK FILE* popen(const char* command, const char* type) {
  if (process::on()) promote::inheritable();
  return real::popen(command, type);
}

POLY_HOOK int wordexp(const char* words, wordexp_t* out, int flags) {
  if (process::on()) promote::inheritable();
  return real::wordexp(words, out, flags);
}

// ---- New programs: what is not close-on-exec goes with them ----

POLY_HOOK int execve(const char* path, char* const* arguments, char* const* environment) noexcept {
  if (process::on()) promote::inheritable();
  return real::execve(path, arguments, environment);
}

POLY_HOOK int execv(const char* path, char* const* arguments) noexcept {
  return execve(path, arguments, environ);
}

POLY_HOOK int execvpe(const char* file, char* const* arguments, char* const* environment) noexcept {
  if (process::on()) promote::inheritable();
  return real::execvpe(file, arguments, environment);
}

POLY_HOOK int execvp(const char* file, char* const* arguments) noexcept {
  return execvpe(file, arguments, environ);
}

POLY_HOOK int fexecve(int fd, char* const* arguments, char* const* environment) noexcept {
  if (process::on()) {
    promote::inheritable();
    POLY_SERVE_FD(int, fd, files::promoted(fd));
  }
  return real::fexecve(fd, arguments, environment);
}

POLY_HOOK int execveat(int directory, const char* path, char* const* arguments, char* const* environment,
                       int flags) noexcept {
  if (process::on()) {
    promote::inheritable();
    POLY_SERVE_FD(int, directory, files::promoted(directory));
  }
  return real::execveat(directory, path, arguments, environment, flags);
}

namespace {

// The variadic forms: how many arguments, the null one included.
size_t count_arguments(va_list list) {
  size_t count = 2;
  while (va_arg(list, char*) != nullptr) ++count;
  return count;
}

}  // namespace

// The array lives on this frame: execl is for signal handlers and children of vfork, which allocate nothing.
#define COLLECT_ARGUMENTS(first)                                                   \
  va_list list;                                                                    \
  va_start(list, first);                                                           \
  va_list again;                                                                   \
  va_copy(again, list);                                                            \
  const size_t count = first == nullptr ? 1 : count_arguments(again);              \
  va_end(again);                                                                   \
  auto** arguments = static_cast<char**>(__builtin_alloca(count * sizeof(char*))); \
  arguments[0] = const_cast<char*>(first);                                         \
  for (size_t i = 1; i < count; ++i) arguments[i] = va_arg(list, char*);

POLY_HOOK int execl(const char* path, const char* first, ...) noexcept {
  COLLECT_ARGUMENTS(first)
  va_end(list);
  return execv(path, arguments);
}

POLY_HOOK int execlp(const char* file, const char* first, ...) noexcept {
  COLLECT_ARGUMENTS(first)
  va_end(list);
  return execvp(file, arguments);
}

POLY_HOOK int execle(const char* path, const char* first, ...) noexcept {
  COLLECT_ARGUMENTS(first)
  auto* environment = va_arg(list, char**);
  va_end(list);
  return execve(path, arguments, environment);
}

// ---- Where the process is ----

POLY_HOOK int chdir(const char* path) noexcept {
  directories::forget_working_directory();
  return left_to_kernel([&] { return real::chdir(path); });
}

POLY_HOOK int fchdir(int fd) noexcept {
  directories::forget_working_directory();
  return real::fchdir(fd);
}

namespace {

// What was proven about paths is to be proven again, whether the change succeeded or not.
int place_changed(int result) {
  process::places.fetch_add(1);
  directories::forget_working_directory();
  return result;
}

}  // namespace

POLY_HOOK int chroot(const char* path) noexcept {
  return place_changed(real::chroot(path));
}

POLY_HOOK int mount(const char* source, const char* target, const char* type, unsigned long flags,
                    const void* data) noexcept {
  return place_changed(real::mount(source, target, type, flags, data));
}

POLY_HOOK int umount(const char* target) noexcept {
  return place_changed(real::umount(target));
}

POLY_HOOK int umount2(const char* target, int flags) noexcept {
  return place_changed(real::umount2(target, flags));
}

// A thread may come out of these with a working directory, descriptors or mounts of its own.
POLY_HOOK int unshare(int flags) noexcept {
  process::switch_off();
  return real::unshare(flags);
}

POLY_HOOK int setns(int fd, int type) noexcept {
  process::switch_off();
  return real::setns(fd, type);
}

POLY_HOOK int pivot_root(const char* root, const char* old) noexcept {
  process::switch_off();
  return real::pivot_root(root, old);
}

// ---- What calls are judged by ----

POLY_HOOK mode_t umask(mode_t mask) noexcept {
  const mode_t before = real::umask(mask);
  process::set_creation_mask(mask);
  return before;
}

POLY_HOOK int setrlimit(__rlimit_resource_t resource, const rlimit* limit) noexcept {
  const int result = real::setrlimit(resource, limit);
  if (resource == RLIMIT_FSIZE) process::forget_file_size_limit();
  return result;
}

POLY_HOOK int prlimit(pid_t pid, __rlimit_resource resource, const rlimit* limit, rlimit* old) noexcept {
  const int result = real::prlimit(pid, resource, limit, old);
  if (resource == RLIMIT_FSIZE) process::forget_file_size_limit();
  return result;
}

POLY_ALIAS(__clone, clone)
POLY_ALIAS(setrlimit64, setrlimit)
POLY_ALIAS(prlimit64, prlimit)
POLY_ALIAS(_IO_popen, popen)
