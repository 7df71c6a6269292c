// Where a libservice leaves host fds that must outlive the service: open-but-unlinked files, whose contents
// nothing else names any more. Implemented over the keeper (native/core/parking_lot.hpp); a test may pass
// null and lose them.
#pragma once

#include <string>
#include <vector>

#include "fastpath/fd.hpp"

namespace poly {

class ParkingLot {
 public:
  virtual ~ParkingLot() = default;
  // Safe when it returns 0: the fd is then in the keeper's socket, even if this process dies at once. While
  // there is no keeper only this process has it.
  [[nodiscard]] virtual int park(const std::string& name, int fd) = 0;
  virtual void drop(const std::string& name) = 0;
};

struct ParkedFd {
  std::string name;
  Fd fd;
};

}  // namespace poly
