// Path walk for calls that come with a path instead of a node: component by component as fs/namei.c does it
// (Linux 6.18; path_resolution(7)), with the caller's search permission on each directory. Every name is
// asked of the libservice, but for directories that recent_names.hpp knows for certain.
//
// What leads out of the instance (".." above its root, an absolute link) is kDeclined: the kernel knows what
// is there. So is ".." above the directory handle a walk began at.
//
// Two steps, as link_path_walk and its callers: parents() goes to the directory of the last component,
// last() looks that one up. After last() has said kFollowed (the last component was a link and its text is
// now the path), both again. One Walk belongs to one call.
#pragma once

#include <linux/limits.h>

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "native/core/access.hpp"
#include "native/core/recent_names.hpp"

namespace poly {

class Walk {
 public:
  static constexpr int kFollowed = 1;
  static constexpr int kMaxLinks = 40;  // MAXSYMLINKS

  // `flags`: WalkFlags of wire.hpp; kWalkDirectory and kWalkNoLinks count here. `path` is used until the walk
  // ends.
  Walk(Libservice& libservice, RecentNames& directories, const Permissions& permissions, const Caller& caller,
       Node& base, std::string_view path, uint16_t flags);

  // 0, -errno or kDeclined.
  [[nodiscard]] int parents();
  // The same or kFollowed. `follow`: a link is followed; so it is when a slash comes after it.
  [[nodiscard]] int last(bool follow, Entry& out);
  // All of it: a lookup. -ENOTDIR when a directory was asked for (a slash at the end) and it is none.
  [[nodiscard]] int resolve(bool follow, Entry& out);
  // The same for the attributes alone: `out` has no node where that was cheaper.
  [[nodiscard]] int resolve_attributes(bool follow, Entry& out);

  // After parents(): the directory that holds the last component, and what that is.
  Node& directory() { return *directory_; }
  // Its attributes, as far as permissions go (Libservice::getattr_access).
  [[nodiscard]] int access(const Attr*& out);
  // False: there is none, or it is "." or "..": no name to make or take away.
  bool has_name() const { return last_ == Last::kName; }
  const char* name() const { return name_.data(); }
  bool name_too_long() const { return too_long_; }
  // What last() has found stays in use for a while.
  void keep(RecentNames& names, Node& found) { names.keep(*directory_, name_.data(), names_version_, found); }
  // A slash follows it, or followed a link that led to it.
  bool wants_directory() const { return wants_directory_ || slash_; }
  bool slash() const { return slash_; }

 private:
  enum class Last : uint8_t { kNone, kName, kDot, kDotDot };

  int search();
  Last take_component();
  int enter_component();
  void enter(Ref<Node> directory);
  int up();
  int follow(Node& link);
  int look_last_up(bool follow_link, Entry& out);
  void skip_slashes();

  Libservice& libservice_;
  RecentNames& directories_;
  const Permissions& permissions_;
  const Caller& caller_;
  const bool no_links_;

  Ref<Node> directory_;
  Attr attr_;  // of directory_; what of it is right, stx_mask says
  bool attributes_only_ = false;
  // The directories above it down from where the walk began.
  std::array<Ref<Node>, 16> above_;
  std::vector<Ref<Node>> deep_above_;
  size_t depth_ = 0;

  std::string_view rest_;  // of the path, from the next component on
  std::string text_;       // what rest_ is in once a link has been followed
  std::array<char, NAME_MAX + 1> name_;
  uint64_t names_version_ = 0;  // of directory_, from before name_ was looked up
  Last last_ = Last::kNone;
  bool too_long_ = false;
  bool slash_ = false;
  bool wants_directory_;
  int links_ = 0;
};

}  // namespace poly
