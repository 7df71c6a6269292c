// The classes of the addon; server/native.ts says what each offers. Constructors are called by the functions
// of module.cpp.
#pragma once

#include <memory>

#include "native/addon/convert.hpp"

namespace poly {

Napi::Function define_keeper(Napi::Env env);       // (path)
Napi::Function define_mount_table(Napi::Env env);  // (fd, writable)
Napi::Function define_mount_watch(Napi::Env env);  // (callback)
Napi::Function define_service(Napi::Env env);      // ({keeperFd, attachSocket?, maxThreads?, onEvent})

}  // namespace poly
