// FUSE requests about control directories (core/control.hpp says what they are for).
#pragma once

namespace poly {

class Call;

// A LOOKUP in the instance's root: true if the name is a control directory's, and then it is answered.
bool lookup_control(Call& call, const char* name);

// A request whose node is a control directory: 0 or -errno for the reply. All that can be done in it is to
// open what stands for a client's open file.
int handle_control(Call& call);

}  // namespace poly
