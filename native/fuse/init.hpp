// FUSE_INIT: what is negotiated with the kernel, and how a successor takes up what its predecessor
// negotiated.
#pragma once

namespace poly {

class Call;

int handle_init(Call& call);

}  // namespace poly
