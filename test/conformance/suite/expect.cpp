#include "test/conformance/suite/expect.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "test/conformance/suite/report.hpp"

namespace suite {
namespace {

std::string speaker;

const char* base_name(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash ? slash + 1 : path;
}

std::string where(const Site& site) {
  return std::string(base_name(site.file)) + ":" + std::to_string(site.line) + ": " + speaker + site.text;
}

void say(const std::string& text) {
  transcript().append(LineKind::transcript, speaker + text);
}

std::string outcome(int error) {
  return error == 0 ? "success" : error_name(error);
}

std::string join(const Errors& errors) {
  std::string text;
  for (const int error : errors) text += (text.empty() ? "" : " or ") + outcome(error);
  return text;
}

}  // namespace

int from_error(int error) {
  errno = error;
  return error == 0 ? 0 : -1;
}

std::string error_name(int error) {
  if (error == 0) return "0";
  const char* name = strerrorname_np(error);
  return name ? name : std::to_string(error);
}

void begin(const Site& site) {
  report().begin_call(where(site));
}

void expect_error(const Site& site, int error, const Errors& allowed) {
  const bool right = std::find(allowed.begin(), allowed.end(), error) != allowed.end();
  // With a choice allowed, which one was chosen is no difference from the reference.
  const bool choice = right && allowed.size() > 1;
  say(std::string(site.text) + " -> " + (choice ? join(allowed) : outcome(error)));
  if (!right) fail(site, "gave " + outcome(error) + ", expected " + join(allowed));
}

void expect_value(const Site& site, const std::string& actual, const std::string& expected) {
  say(std::string(site.text) + " = " + actual);
  if (actual != expected) fail(site, "is \"" + actual + "\", expected \"" + expected + "\"");
}

void expect_true(const Site& site, bool value) {
  say(std::string(site.text) + (value ? " holds" : " does not hold"));
  if (!value) fail(site, "does not hold");
}

void record(const Site& site, int error, const std::string& value) {
  say(std::string(site.text) + " -> " + (error == 0 ? value : error_name(error)));
}

void note(const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  say(text);
}

void fail(const Site& site, const std::string& why) {
  report().append(LineKind::failure, where(site) + " " + why);
}

void skip(const std::string& reason) {
  report().append(LineKind::skip, reason);
  report().finish();
  _exit(0);
}

void skip_optional(const std::string& reason) {
  report().append(LineKind::optional_skip, reason);
  report().finish();
  _exit(0);
}

void set_speaker(const std::string& name) {
  speaker = name;
}

}  // namespace suite
