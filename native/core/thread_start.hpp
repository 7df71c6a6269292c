// How each native thread of a service begins.
#pragma once

#include <signal.h>
#include <sys/prctl.h>

namespace poly {

// `name`: at most 15 bytes are shown. Signals are for Node's thread.
inline void begin_thread(const char* name) {
  prctl(PR_SET_NAME, name);
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
}

}  // namespace poly
