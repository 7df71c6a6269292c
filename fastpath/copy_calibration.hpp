// What copying costs on this machine, for kAuto: measured once and kept in a small file in a cache directory.
// By the service or a command, never inside an application. Until there is a file, kDefaultCopyTable holds.
//
// The file is text: a line that names format and version, one for the machine, one per size class, and a
// checksum of all before it. One that is damaged, of another version or of another machine counts as none.
// Its name contains a hash of the machine's, so that machines may share a directory. It is written whole or
// not at all (rename(2)).
//
// Functions that take a directory neither create it nor look at its permissions: whoever can write there
// chooses which copy method we use, nothing more. Errors are -errno.
#pragma once

#include <string>

#include "fastpath/copy.hpp"

namespace poly {

// CPU (brand, family/model/stepping), number of CPUs we may run on, kernel release: one line.
[[nodiscard]] std::string copy_machine();
// The file's path in that directory.
[[nodiscard]] std::string copy_calibration_path(const std::string& directory, const std::string& machine);

// Costs of every method, by transfers between two threads on two CPUs from memory that is in no cache. Takes
// about 100 ms, at most 200 on a machine that lets us run, 32 MiB and two CPUs. 0, -EOPNOTSUPP with one CPU,
// -EAGAIN when the machine was too busy to measure everything in that time, -ENOMEM.
[[nodiscard]] int measure_copy_costs(CopyCosts& out);

// 0; -ENOENT no file, -EBADMSG damaged, of another version or machine; others of open(2), read(2).
[[nodiscard]] int load_copy_costs(const std::string& directory, const std::string& machine, CopyCosts& out);
// 0 or -errno of open(2), write(2), rename(2).
[[nodiscard]] int store_copy_costs(const std::string& directory, const std::string& machine,
                                   const CopyCosts&);

// The machine's table: from the file, or else measured and stored for the next time, or else the default one.
// `error`: why there is no file or it could not be written; 0 when all is well.
struct CopyCalibration {
  CopyTable table;
  enum { kLoaded, kMeasured, kDefault } from;
  int error;
};
[[nodiscard]] CopyCalibration calibrate_copy(const std::string& directory);

// Where this user keeps machines' files: /var/cache/polytropon for root, else $XDG_CACHE_HOME/polytropon or
// $HOME/.cache/polytropon (XDG Base Directory Specification). "": nowhere.
[[nodiscard]] std::string copy_cache_directory();
// The table from there, or the default one. Measures nothing.
[[nodiscard]] CopyTable cached_copy_table();
// Sees to it that there is a file there, by a thread that measures if there is none. What goes wrong has no
// consequence: the default table holds.
void calibrate_copy_in_background();

}  // namespace poly
