// statx(2)'s record and libcephfs's.
#pragma once

#include "libservices/ceph/library.hpp"
#include "libservices/libservice.hpp"

namespace poly::ceph {

void to_attr(const Statx& from, Attr& out);
// Device numbers of special files are kept in Ceph as the kernel keeps them: 12 bits major, 20 bits minor
// (include/linux/kdev_t.h), as the kernel's client and ceph-fuse write them.
dev_t to_device(dev_t kernel_form);
dev_t from_device(dev_t device);

}  // namespace poly::ceph
