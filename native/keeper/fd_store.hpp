// FdStore: descriptors by name, in name order, with a quota per prefix.
//
// Invariants: every name has at least one descriptor; fd_count() is their sum; quota.used is the sum over the
// names under its prefix. Used by the keeper's one thread only.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "fastpath/fd.hpp"

namespace poly::keeper {

class FdStore {
 public:
  using Names = std::map<std::string, std::vector<Fd>, std::less<>>;

  // Stores `fds` (not empty) under `name` and returns those it replaced, for the caller to close.
  [[nodiscard]] std::vector<Fd> put(std::string_view name, std::vector<Fd> fds);
  // Forgets `name`; returns its descriptors, none when it is unknown.
  [[nodiscard]] std::vector<Fd> take(std::string_view name);

  // The first name under `prefix` that is greater than `after` (empty: the first), or nullptr.
  [[nodiscard]] const Names::value_type* next(std::string_view prefix, std::string_view after) const;

  // The most descriptors that names under `prefix` may have together; setting it again replaces the limit.
  void set_quota(std::string_view prefix, std::size_t limit);
  // Whether `count` descriptors under `name`, in place of those there, stay within every quota.
  [[nodiscard]] bool within_quota(std::string_view name, std::size_t count) const;

  [[nodiscard]] std::size_t count_of(std::string_view name) const;
  [[nodiscard]] std::size_t fd_count() const { return fd_count_; }
  [[nodiscard]] std::size_t name_count() const { return names_.size(); }

 private:
  struct Quota {
    std::size_t limit = 0;
    std::size_t used = 0;
  };

  void account(std::string_view name, std::size_t removed, std::size_t added);

  Names names_;
  std::map<std::string, Quota, std::less<>> quotas_;
  std::size_t fd_count_ = 0;
};

}  // namespace poly::keeper
