// Where a program gets the mount table: from the keeper's public socket, `<directory>/table.sock`, which
// hands a read-only descriptor of it to whoever connects. libc only: the preload library links this.
#pragma once

#include "fastpath/mount_table.hpp"

namespace poly {

// Maps the table for reading. 0 or -errno: -ENOENT, -ECONNREFUSED: nobody is there; -ENODATA: the keeper has
// none; -ETIMEDOUT: the keeper did not answer within a second; -ENAMETOOLONG; or what attach_reader() says.
// Holds no descriptor afterwards.
[[nodiscard]] int attach_table(const char* directory, MountTable& out);

}  // namespace poly
