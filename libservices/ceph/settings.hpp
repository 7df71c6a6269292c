// What a tenant's Ceph client is made with.
#pragma once

#include <cstdint>
#include <string>

namespace poly {

struct CephSettings {
  std::string root = "/";  // directory of the Ceph filesystem that becomes the libservice's root
  // Rather the highest directory above it that the user may mount, so that others below that can share it.
  bool widen = false;
  std::string user = "admin";
  std::string conf = "/etc/ceph/ceph.conf";
  std::string keyring;  // "": as the configuration file says
  std::string fs;       // "": the cluster's default filesystem
  // Names the session to the metadata server: who comes with the same one takes the place of a dead
  // predecessor.
  std::string uuid;
  bool write_back = false;
  uint64_t cache = 0;     // bytes of file data; 0: libcephfs's default
  uint64_t dirty = 0;     // bytes not yet written, write_back only; 0: libcephfs's default
  bool succeeds = false;  // a predecessor may have left a session
};

}  // namespace poly
