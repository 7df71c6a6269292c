// Functions that hand a descriptor to somebody who does not know the library: the kernel's own I/O, another
// process, libc's insides. The files are promoted first; then the real function finds the kernel's
// descriptors.
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#include "preload/answer.hpp"
#include "preload/files.hpp"
#include "preload/mounts.hpp"
#include "preload/paths.hpp"
#include "preload/process.hpp"
#include "preload/promote.hpp"
#include "preload/real.hpp"

using namespace poly;

// Returns from the hook with an error when a library descriptor cannot be promoted.
#define POLY_ESCAPE(type, fd) POLY_SERVE_FD(type, fd, files::promoted(fd))

namespace {

// For those who have other ways to say an error, or more than one descriptor: what fails is found by the real
// function, on a placeholder that fails.
void let_go(int fd) {
  if (fds::is_library(fd)) (void)promote::descriptor(fd);
}

// Descriptors that go with a message (unix(7), SCM_RIGHTS).
void let_go_rights(const msghdr* message) {
  if (is_wild(message) || message->msg_control == nullptr || fds::highest.load() < 0) return;
  auto* m = const_cast<msghdr*>(message);
  for (cmsghdr* one = CMSG_FIRSTHDR(m); one != nullptr; one = CMSG_NXTHDR(m, one)) {
    if (one->cmsg_level != SOL_SOCKET || one->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (one->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(one) + i * sizeof(fd), sizeof(fd));
      let_go(fd);
    }
  }
}

void let_go_named(const char* path) {
  if (fds::highest.load() >= 0 && !is_wild(path) && path[0] == '/') promote_named(path);
}

}  // namespace

POLY_HOOK void* mmap(void* address, size_t size, int protection, int flags, int fd, off_t offset) noexcept {
  if (fds::is_library(fd) && (flags & MAP_ANONYMOUS) == 0) {
    const long result = files::promoted(fd);
    if (result != kDeclined) return answer(result), MAP_FAILED;
  }
  // Pages beyond the end that the kernel knows are SIGBUS.
  if ((flags & MAP_ANONYMOUS) == 0 && process::on()) mounts::refresh_size(fd);
  return real::mmap(address, size, protection, flags, fd, offset);
}

POLY_HOOK ssize_t sendfile(int out, int in, off_t* offset, size_t size) noexcept {
  POLY_ESCAPE(ssize_t, out);
  POLY_ESCAPE(ssize_t, in);
  if (process::on()) mounts::refresh_size(in);
  return real::sendfile(out, in, offset, size);
}

POLY_HOOK ssize_t splice(int in, off_t* in_offset, int out, off_t* out_offset, size_t size, unsigned flags) {
  POLY_ESCAPE(ssize_t, in);
  POLY_ESCAPE(ssize_t, out);
  if (process::on()) mounts::refresh_size(in);
  return real::splice(in, in_offset, out, out_offset, size, flags);
}

POLY_HOOK ssize_t tee(int in, int out, size_t size, unsigned flags) {
  POLY_ESCAPE(ssize_t, in);
  POLY_ESCAPE(ssize_t, out);
  return real::tee(in, out, size, flags);
}

POLY_HOOK ssize_t vmsplice(int fd, const iovec* vectors, size_t count, unsigned flags) {
  POLY_ESCAPE(ssize_t, fd);
  return real::vmsplice(fd, vectors, count, flags);
}

POLY_HOOK ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  let_go_rights(message);
  return real::sendmsg(fd, message, flags);
}

POLY_HOOK int sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  if (fds::highest.load() >= 0 && !is_wild(messages)) {
    for (unsigned i = 0; i < count; ++i) let_go_rights(&messages[i].msg_hdr);
  }
  return real::sendmmsg(fd, messages, count, flags);
}

POLY_HOOK int epoll_ctl(int epoll, int operation, int fd, epoll_event* event) noexcept {
  POLY_ESCAPE(int, fd);
  return real::epoll_ctl(epoll, operation, fd, event);
}

POLY_HOOK int fanotify_mark(int group, unsigned flags, uint64_t mask, int directory,
                            const char* path) noexcept {
  POLY_ESCAPE(int, directory);
  return real::fanotify_mark(group, flags, mask, directory, path);
}

POLY_HOOK int syncfs(int fd) noexcept {
  POLY_ESCAPE(int, fd);
  return real::syncfs(fd);
}

POLY_HOOK long fpathconf(int fd, int name) noexcept {
  POLY_ESCAPE(long, fd);
  return real::fpathconf(fd, name);
}

POLY_HOOK int name_to_handle_at(int directory, const char* path, file_handle* handle, int* mount_id,
                                int flags) noexcept {
  POLY_ESCAPE(int, directory);
  return real::name_to_handle_at(directory, path, handle, mount_id, flags);
}

POLY_HOOK int open_by_handle_at(int mount, file_handle* handle, int flags) {
  POLY_ESCAPE(int, mount);
  return real::open_by_handle_at(mount, handle, flags);
}

// ---- libc's own I/O ----

POLY_HOOK FILE* fdopen(int fd, const char* mode) noexcept {
  if (fds::is_library(fd)) {
    const long result = files::promoted(fd);
    if (result != kDeclined) return answer(result), nullptr;
  }
  return real::fdopen(fd, mode);
}

POLY_HOOK FILE* fopen(const char* path, const char* mode) {
  let_go_named(path);
  return real::fopen(path, mode);
}

POLY_HOOK FILE* freopen(const char* path, const char* mode, FILE* stream) {
  let_go_named(path);
  return real::freopen(path, mode, stream);
}

POLY_HOOK int vdprintf(int fd, const char* format, va_list list) {
  POLY_ESCAPE(int, fd);
  return real::vdprintf(fd, format, list);
}

POLY_HOOK int dprintf(int fd, const char* format, ...) {
  va_list list;
  va_start(list, format);
  const int result = vdprintf(fd, format, list);
  va_end(list);
  return result;
}

POLY_HOOK int __vdprintf_chk(int fd, int flag, const char* format, va_list list) {
  POLY_ESCAPE(int, fd);
  return real::__vdprintf_chk(fd, flag, format, list);
}

extern "C" int __dprintf_chk(int fd, int flag, const char* format, ...);
POLY_HOOK int __dprintf_chk(int fd, int flag, const char* format, ...) {
  va_list list;
  va_start(list, format);
  const int result = __vdprintf_chk(fd, flag, format, list);
  va_end(list);
  return result;
}

POLY_HOOK void backtrace_symbols_fd(void* const* frames, int count, int fd) noexcept {
  let_go(fd);
  real::backtrace_symbols_fd(frames, count, fd);
}

POLY_HOOK int login_tty(int fd) noexcept {
  POLY_ESCAPE(int, fd);
  return real::login_tty(fd);
}

POLY_HOOK int aio_read(aiocb* block) noexcept {
  let_go(block->aio_fildes);
  return real::aio_read(block);
}

POLY_HOOK int aio_write(aiocb* block) noexcept {
  let_go(block->aio_fildes);
  return real::aio_write(block);
}

POLY_HOOK int aio_fsync(int operation, aiocb* block) noexcept {
  let_go(block->aio_fildes);
  return real::aio_fsync(operation, block);
}

POLY_HOOK int lio_listio(int mode, aiocb* const list[], int count, sigevent* event) noexcept {
  for (int i = 0; i < count; ++i) {
    if (list[i] != nullptr) let_go(list[i]->aio_fildes);
  }
  return real::lio_listio(mode, list, count, event);
}

// ---- Rings and contexts: descriptors come in memory that nobody shows us ----

POLY_HOOK int io_setup(int events, void** context) {
  process::switch_off();
  return real::io_setup(events, context);
}

POLY_HOOK int io_queue_init(int events, void** context) {
  process::switch_off();
  return real::io_queue_init(events, context);
}

POLY_HOOK int io_uring_setup(unsigned entries, void* parameters) {
  process::switch_off();
  return real::io_uring_setup(entries, parameters);
}

POLY_HOOK int io_uring_queue_init(unsigned entries, void* ring, unsigned flags) {
  process::switch_off();
  return real::io_uring_queue_init(entries, ring, flags);
}

POLY_HOOK int io_uring_queue_init_params(unsigned entries, void* ring, void* parameters) {
  process::switch_off();
  return real::io_uring_queue_init_params(entries, ring, parameters);
}

POLY_HOOK int io_uring_queue_init_mem(unsigned entries, void* ring, void* parameters, void* memory,
                                      size_t size) {
  process::switch_off();
  return real::io_uring_queue_init_mem(entries, ring, parameters, memory, size);
}

// ---- syscall(2) ----

namespace {

// What a raw call does to the library's picture of its process.
void before_raw_call(long number, const long (&arguments)[6]) {
  switch (number) {
    case SYS_io_setup:
    case SYS_io_uring_setup:
    case SYS_unshare:
    case SYS_setns:
    case SYS_pivot_root:
      process::switch_off();
      return;
    case SYS_close_range:
    case SYS_clone:
    case SYS_clone3:
#ifdef SYS_fork
    case SYS_fork:
    case SYS_vfork:
#endif
      promote::all();
      return;
    case SYS_execve:
    case SYS_execveat:
      promote::inheritable();
      break;
    case SYS_landlock_restrict_self:  // the service would not know
      process::switch_off();
      return;
    case SYS_setuid:
    case SYS_setgid:
    case SYS_setreuid:
    case SYS_setregid:
    case SYS_setresuid:
    case SYS_setresgid:
    case SYS_setfsuid:
    case SYS_setfsgid:
    case SYS_setgroups:
    case SYS_capset:
      process::set_thread_is_other(true);  // raw, they are of this thread alone
      return;
    case SYS_umask:
      process::set_creation_mask(static_cast<mode_t>(arguments[0]));
      return;
    case SYS_chroot:
    case SYS_mount:
    case SYS_umount2:
      process::places.fetch_add(1);
      return;
    default:
      break;
  }
  // Any argument may be a descriptor. One that only looks like it costs a promotion, nothing else.
  for (const long argument : arguments) {
    if (argument >= 0 && argument < fds::kMax) let_go(static_cast<int>(argument));
  }
}

}  // namespace

POLY_HOOK long syscall(long number, ...) noexcept {
  long arguments[6];
  va_list list;
  va_start(list, number);
  for (long& argument : arguments) argument = va_arg(list, long);
  va_end(list);
  if (number != SYS_futex && process::on()) before_raw_call(number, arguments);
  return real::syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4],
                       arguments[5]);
}

POLY_ALIAS(mmap64, mmap)
POLY_ALIAS(__mmap, mmap)
POLY_ALIAS(sendfile64, sendfile)
POLY_ALIAS(__sendmmsg, sendmmsg)
POLY_ALIAS(_IO_fdopen, fdopen)
POLY_ALIAS(fopen64, fopen)
POLY_ALIAS(_IO_fopen, fopen)
POLY_ALIAS(freopen64, freopen)
POLY_ALIAS(__backtrace_symbols_fd, backtrace_symbols_fd)
POLY_ALIAS(aio_read64, aio_read)
POLY_ALIAS(aio_write64, aio_write)
POLY_ALIAS(aio_fsync64, aio_fsync)
POLY_ALIAS(lio_listio64, lio_listio)
