// The attach socket from the client's side: one message and at most one descriptor each way (wire.hpp).
// libc only, no allocation; every descriptor is close-on-exec. Errors are -errno.
#pragma once

#include <cstddef>

namespace poly {

// Connects to a SOCK_SEQPACKET socket; answers wait at most some seconds. ENOENT, ECONNREFUSED: nobody there.
[[nodiscard]] int connect_attach(const char* path);

// Sends `message` with `fd` (-1: none), receives exactly `answer_size` bytes, and a descriptor into
// `answer_fd`
// (-1 when none came; it is the caller's). 0; -EPROTO: something else came; -ECONNRESET: nobody there any
// more.
[[nodiscard]] int exchange(int socket, const void* message, size_t size, int fd, void* answer,
                           size_t answer_size, int& answer_fd);

}  // namespace poly
