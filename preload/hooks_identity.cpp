// Who the process is: after a change the service is told with the next call that is judged by it, and what
// was proven with the old credentials is proven again. Open files stay open, as in the kernel.
#include <grp.h>

#include "preload/mounts.hpp"
#include "preload/process.hpp"
#include "preload/real.hpp"

using namespace poly;

namespace {

// Calls a function that changes credentials.
template <typename Change>
int change_credentials(Change change) {
  if (!process::on()) return change();
  mounts::open_controls();
  const int result = change();
  if (result == 0) {
    process::credentials.fetch_add(1);
    process::set_thread_is_other(false);  // libc has changed all threads
  }
  return result;
}

// setfsuid(2) is of one thread, and the service knows only the effective ids of the process.
int filesystem_id_changed(int before) {
  const bool other = real::setfsuid(static_cast<uid_t>(-1)) != static_cast<int>(geteuid()) ||
                     real::setfsgid(static_cast<gid_t>(-1)) != static_cast<int>(getegid());
  process::set_thread_is_other(other);
  return before;
}

}  // namespace

POLY_HOOK int setuid(uid_t uid) noexcept {
  return change_credentials([=] { return real::setuid(uid); });
}
POLY_HOOK int seteuid(uid_t uid) noexcept {
  return change_credentials([=] { return real::seteuid(uid); });
}
POLY_HOOK int setreuid(uid_t real_uid, uid_t effective) noexcept {
  return change_credentials([=] { return real::setreuid(real_uid, effective); });
}
POLY_HOOK int setresuid(uid_t real_uid, uid_t effective, uid_t saved) noexcept {
  return change_credentials([=] { return real::setresuid(real_uid, effective, saved); });
}
POLY_HOOK int setgid(gid_t gid) noexcept {
  return change_credentials([=] { return real::setgid(gid); });
}
POLY_HOOK int setegid(gid_t gid) noexcept {
  return change_credentials([=] { return real::setegid(gid); });
}
POLY_HOOK int setregid(gid_t real_gid, gid_t effective) noexcept {
  return change_credentials([=] { return real::setregid(real_gid, effective); });
}
POLY_HOOK int setresgid(gid_t real_gid, gid_t effective, gid_t saved) noexcept {
  return change_credentials([=] { return real::setresgid(real_gid, effective, saved); });
}
POLY_HOOK int setgroups(size_t count, const gid_t* groups) noexcept {
  return change_credentials([=] { return real::setgroups(count, groups); });
}
POLY_HOOK int initgroups(const char* user, gid_t group) {
  return change_credentials([=] { return real::initgroups(user, group); });
}
POLY_HOOK int capset(void* header, const void* data) noexcept {
  return change_credentials([=] { return real::capset(header, data); });
}
POLY_HOOK int setfsuid(uid_t uid) noexcept {
  return filesystem_id_changed(real::setfsuid(uid));
}
POLY_HOOK int setfsgid(gid_t gid) noexcept {
  return filesystem_id_changed(real::setfsgid(gid));
}
