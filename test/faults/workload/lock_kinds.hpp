// The three kinds of locks (fcntl(2), flock(2)) behind one call.
#pragma once

#include <sys/types.h>

#include <string>

namespace faults {

enum class Kind { kPosix, kDescription, kFlock };
inline constexpr Kind kKinds[]{Kind::kPosix, Kind::kDescription, Kind::kFlock};
inline constexpr const char* kKindNames[]{"fcntl", "OFD", "flock"};

// `type`: F_RDLCK, F_WRLCK or F_UNLCK; flock(2) knows no range. -1 with errno.
int set_lock(int fd, Kind kind, int type, off_t start, off_t size, bool wait);
std::string show(const char* call, Kind kind, off_t start, off_t size);

}  // namespace faults
