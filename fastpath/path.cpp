#include "fastpath/path.hpp"

#include <cerrno>
#include <cstring>

namespace poly {

void NormalPath::set_root() {
  data_[0] = '/';
  size_ = 1;
  wants_directory_ = false;
  had_dotdot_ = false;
  terminate();
}

void NormalPath::append(std::string_view component) {
  if (size_ > 1) data_[size_++] = '/';
  std::memcpy(data_ + size_, component.data(), component.size());
  size_ += component.size();
}

void NormalPath::remove_last() {
  while (data_[size_ - 1] != '/') --size_;
  if (size_ > 1) --size_;
}

void NormalPath::terminate() {
  std::memset(data_ + size_, 0, kPadding);
}

int normalise(std::string_view path, NormalPath& out) {
  out.set_root();
  if (path.empty() || path[0] != '/') return -EINVAL;
  if (path.size() > kMaxPathLength) return -ENAMETOOLONG;
  if (std::memchr(path.data(), '\0', path.size()) != nullptr) return -EINVAL;

  const char* const end = path.data() + path.size();
  const char* p = path.data();
  while (p != end) {
    while (p != end && *p == '/') ++p;
    const char* const begin = p;
    while (p != end && *p != '/') ++p;
    const std::string_view component(begin, static_cast<std::size_t>(p - begin));
    out.wants_directory_ = true;  // until an ordinary component proves otherwise
    if (component.empty() || component == ".") continue;
    if (component == "..") {
      out.had_dotdot_ = true;
      out.remove_last();
      continue;
    }
    out.wants_directory_ = p != end;
    out.append(component);
  }
  out.terminate();
  return 0;
}

}  // namespace poly
