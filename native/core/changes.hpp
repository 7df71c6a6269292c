// What one fast-path call has changed, collected while its handler runs and told to the kernels afterwards,
// when the handler holds no lock any more (coherence.cpp).
#pragma once

#include <span>
#include <vector>

#include "libservices/libservice.hpp"

namespace poly {

struct Change {
  Ref<Node> node;
  const char* name = nullptr;  // of an entry of the directory `node`; the request's own memory
  Ref<Node> gone;              // the entry is gone, and with it the last name of this
  int64_t offset = -1;         // -1: attributes only
  int64_t length = 0;          // 0: to the end
};

class Changes {
 public:
  // While it lives, what this thread's handlers change goes here.
  Changes() : outer_(current_) { current_ = this; }
  ~Changes() { current_ = outer_; }
  Changes(const Changes&) = delete;
  Changes& operator=(const Changes&) = delete;
  // Null while the thread handles a request of a kernel.
  static Changes* current() { return current_; }

  void add(Change change) {
    if (used_ < few_.size())
      few_[used_++] = std::move(change);
    else
      more_.push_back(std::move(change));
  }
  template <typename Visit>
  void for_each(Visit visit) const {
    for (size_t i = 0; i < used_; i++) visit(few_[i]);
    for (auto& change : more_) visit(change);
  }
  bool empty() const { return used_ == 0; }

 private:
  static inline thread_local Changes* current_ = nullptr;
  Changes* const outer_;
  std::array<Change, 3> few_;  // a write or a chmod makes one, a create two
  size_t used_ = 0;
  std::vector<Change> more_;
};

}  // namespace poly
