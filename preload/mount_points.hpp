// The list of mount points that polyd writes beside its sockets, `<attach>/mount-points`: so that a program
// whose paths never lead to one of them need not ask for the mount table, which takes two turns of the
// keeper.
//
// A hint, read once: what is mounted later is the kernel's for this program, which is right, only not as
// fast.
#pragma once

namespace poly::mount_points {

// Whether the list could be read. Without it every path may lead to a mount.
[[nodiscard]] bool known();
// Whether an absolute path, as it is spelt, is one of them or below it.
[[nodiscard]] bool may_lead_to(const char* path);

}  // namespace poly::mount_points
