// Between JavaScript values and ours, and errno as JavaScript errors.
#pragma once

#include <napi.h>
#include <sys/sysmacros.h>

#include <cstring>
#include <string>

namespace poly {

// An Error as node:fs throws them: message "CODE: description, what", with code, errno and syscall.
inline Napi::Error errno_error(Napi::Env env, int negative_errno, const std::string& what) {
  int number = negative_errno < 0 ? -negative_errno : negative_errno;
  const char* name = strerrorname_np(number);
  std::string code = name ? name : "EUNKNOWN";
  Napi::Error error = Napi::Error::New(env, code + ": " + strerror(number) + ", " + what);
  error.Set("code", Napi::String::New(env, code));
  error.Set("errno", Napi::Number::New(env, number));
  error.Set("syscall", Napi::String::New(env, what));
  return error;
}

inline Napi::Value throw_errno(Napi::Env env, int negative_errno, const std::string& what) {
  errno_error(env, negative_errno, what).ThrowAsJavaScriptException();
  return env.Undefined();
}

// Members of an options object, with a default for absent ones. Types are TypeScript's business.
inline bool get_bool(const Napi::Object& object, const char* key) {
  return object.Has(key) && object.Get(key).ToBoolean().Value();
}
inline double get_number(const Napi::Object& object, const char* key, double fallback) {
  Napi::Value value = object.Has(key) ? object.Get(key) : Napi::Value();
  return !value.IsEmpty() && value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : fallback;
}
inline std::string get_string(const Napi::Object& object, const char* key) {
  Napi::Value value = object.Has(key) ? object.Get(key) : Napi::Value();
  return !value.IsEmpty() && value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
}
inline int to_int(const Napi::Value& value) {
  return value.ToNumber().Int32Value();
}
inline std::string to_text(const Napi::Value& value) {
  return value.ToString().Utf8Value();
}

// A device number as TypeScript has it, "major:minor"; 0 for anything else.
inline uint64_t parse_device(const std::string& text) {
  unsigned a = 0, b = 0;
  return sscanf(text.c_str(), "%u:%u", &a, &b) == 2 ? makedev(a, b) : 0;
}

}  // namespace poly
