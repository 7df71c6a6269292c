#include "native/core/walk.hpp"

#include <algorithm>

#include "fastpath/wire.hpp"

namespace poly {

Walk::Walk(Libservice& libservice, RecentNames& directories, const Permissions& permissions,
           const Caller& caller, Node& base, std::string_view path, uint16_t flags)
    : libservice_(libservice),
      directories_(directories),
      permissions_(permissions),
      caller_(caller),
      no_links_(flags & kWalkNoLinks),
      directory_(Ref<Node>::share(&base)),
      rest_(path),
      wants_directory_(flags & kWalkDirectory) {
  attr_.stx_mask = 0;
  skip_slashes();
}

void Walk::skip_slashes() {
  rest_.remove_prefix(std::min(rest_.find_first_not_of('/'), rest_.size()));
}

int Walk::access(const Attr*& out) {
  out = &attr_;
  return attr_.stx_mask ? 0 : libservice_.getattr_access(*directory_, attr_);
}

// may_lookup. For who may search any directory it costs nothing.
int Walk::search() {
  if (permissions_.who.capable) return 0;
  const Attr* attr;
  if (int err = access(attr)) return err;
  return permissions_.may(*directory_, *attr, kMayExec);
}

// Takes the next component from the path, with the slashes after it.
Walk::Last Walk::take_component() {
  const size_t size = std::min(rest_.find('/'), rest_.size());
  const std::string_view component = rest_.substr(0, size);
  slash_ = size < rest_.size();
  too_long_ = size > NAME_MAX;
  if (!too_long_) {
    std::memcpy(name_.data(), component.data(), size);
    name_[size] = '\0';
  }
  rest_.remove_prefix(size);
  skip_slashes();
  return component == "." ? Last::kDot : component == ".." ? Last::kDotDot : Last::kName;
}

int Walk::up() {
  if (no_links_ || depth_ == 0) return kDeclined;
  depth_--;
  if (depth_ < above_.size()) {
    directory_ = std::move(above_[depth_]);
  } else {
    directory_ = std::move(deep_above_.back());
    deep_above_.pop_back();
  }
  attr_.stx_mask = 0;
  return 0;
}

// walk_component for one that is not the last: a directory, or a link, which is followed.
int Walk::enter_component() {
  if (last_ == Last::kDot) return 0;
  if (last_ == Last::kDotDot) return up();
  if (too_long_) return -ENAMETOOLONG;
  if (Ref<Node> known = directories_.find(*directory_, name_.data())) {
    enter(std::move(known));
    return 0;
  }
  names_version_ = directory_->names_version.load(std::memory_order_acquire);
  Entry entry;
  if (int err = libservice_.lookup(caller_, *directory_, name_.data(), entry)) return err;
  if (S_ISLNK(entry.attr.stx_mode)) return follow(*entry.node);
  if (!S_ISDIR(entry.attr.stx_mode)) return -ENOTDIR;
  keep(directories_, *entry.node);
  enter(std::move(entry.node));
  attr_ = entry.attr;
  return 0;
}

void Walk::enter(Ref<Node> directory) {
  if (depth_ < above_.size())
    above_[depth_] = std::move(directory_);
  else
    deep_above_.push_back(std::move(directory_));
  depth_++;
  directory_ = std::move(directory);
  attr_.stx_mask = 0;
}

// pick_link. What is left of the path comes after the link's text, as in the kernel's stack of names.
int Walk::follow(Node& link) {
  if (no_links_) return kDeclined;
  if (links_++ >= kMaxLinks) return -ELOOP;
  char target[PATH_MAX];
  const ssize_t size = libservice_.readlink(link, target);
  if (size < 0) return static_cast<int>(size);
  if (size == 0 || size == sizeof target || target[0] == '/') return kDeclined;
  std::string text(target, static_cast<size_t>(size));
  if (!rest_.empty()) text.append("/").append(rest_);
  text_ = std::move(text);
  rest_ = text_;
  return 0;
}

int Walk::parents() {
  last_ = Last::kNone;
  slash_ = false;
  while (!rest_.empty()) {
    if (int err = search()) return err;
    last_ = take_component();
    if (rest_.empty()) return 0;
    if (int err = enter_component()) return err;
  }
  return 0;
}

// A link that is to be followed needs its node, whatever is wanted of what it leads to.
int Walk::look_last_up(bool follow_link, Entry& out) {
  names_version_ = directory_->names_version.load(std::memory_order_acquire);
  if (attributes_only_) {
    out.node = nullptr;
    int err = libservice_.stat(caller_, *directory_, name_.data(), out.attr);
    if (err || !S_ISLNK(out.attr.stx_mode) || !follow_link) return err;
  }
  return libservice_.lookup(caller_, *directory_, name_.data(), out);
}

int Walk::last(bool follow_link, Entry& out) {
  if (last_ == Last::kDotDot) {
    if (int err = up()) return err;
  }
  if (last_ != Last::kName) {
    if ((attr_.stx_mask & STATX_BASIC_STATS) != STATX_BASIC_STATS) {
      if (int err = libservice_.getattr(*directory_, nullptr, attr_)) return err;
    }
    out.node = directory_;
    out.attr = attr_;
    return 0;
  }
  if (too_long_) return -ENAMETOOLONG;
  wants_directory_ |= slash_;
  follow_link |= wants_directory_;
  if (int err = look_last_up(follow_link, out)) return err;
  if (!S_ISLNK(out.attr.stx_mode) || !follow_link) return 0;
  if (no_links_) return kDeclined;
  if (links_ >= kMaxLinks) return -ELOOP;
  const Attr* attr;
  if (int err = access(attr)) return err;
  if (int err = permissions_.may_follow(*attr, out.attr)) return err;
  const int err = follow(*out.node);
  return err ? err : kFollowed;
}

int Walk::resolve_attributes(bool follow_link, Entry& out) {
  attributes_only_ = true;
  return resolve(follow_link, out);
}

int Walk::resolve(bool follow_link, Entry& out) {
  for (;;) {
    if (int err = parents()) return err;
    const int result = last(follow_link, out);
    if (result == kFollowed) continue;
    if (result == 0 && wants_directory_ && !S_ISDIR(out.attr.stx_mode)) return -ENOTDIR;
    return result;
  }
}

}  // namespace poly
