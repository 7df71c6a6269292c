// The keeper as the libservices see it: where open-but-unlinked files wait for the next service.
#pragma once

#include "libservices/parking.hpp"
#include "native/core/keeper_client.hpp"

namespace poly {

class KeeperParking final : public ParkingLot {
 public:
  explicit KeeperParking(KeeperClient& keeper) : keeper_(keeper) {}
  // Without a keeper it waits here: the next keeper gets all that is parked (Libservice::park_again).
  int park(const std::string& name, int fd) override {
    const int err = keeper_.park(name, fd);
    return keeper_gone(err) ? 0 : err;
  }
  // A name that stays behind costs the keeper one fd; the next service drops what nobody claims.
  void drop(const std::string& name) override { (void)keeper_.drop(name); }

 private:
  KeeperClient& keeper_;
};

}  // namespace poly
