#include "native/keeper/fd_store.hpp"

#include <utility>

namespace poly::keeper {

std::vector<Fd> FdStore::put(std::string_view name, std::vector<Fd> fds) {
  auto it = names_.find(name);
  if (it == names_.end()) it = names_.emplace(std::string(name), std::vector<Fd>()).first;
  account(name, it->second.size(), fds.size());
  return std::exchange(it->second, std::move(fds));
}

std::vector<Fd> FdStore::take(std::string_view name) {
  const auto it = names_.find(name);
  if (it == names_.end()) return {};
  account(name, it->second.size(), 0);
  std::vector<Fd> fds = std::move(it->second);
  names_.erase(it);
  return fds;
}

const FdStore::Names::value_type* FdStore::next(std::string_view prefix, std::string_view after) const {
  const auto it = after < prefix ? names_.lower_bound(prefix) : names_.upper_bound(after);
  // A name that is the prefix itself counts, unless `after` is that name.
  if (it == names_.end() || !std::string_view(it->first).starts_with(prefix)) return nullptr;
  return &*it;
}

void FdStore::set_quota(std::string_view prefix, std::size_t limit) {
  Quota quota{limit, 0};
  std::string after;
  while (const auto* entry = next(prefix, after)) {
    quota.used += entry->second.size();
    after = entry->first;
  }
  quotas_.insert_or_assign(std::string(prefix), quota);
}

bool FdStore::within_quota(std::string_view name, std::size_t count) const {
  const std::size_t replaced = count_of(name);
  for (const auto& [prefix, quota] : quotas_) {
    if (name.starts_with(prefix) && quota.used - replaced + count > quota.limit) return false;
  }
  return true;
}

std::size_t FdStore::count_of(std::string_view name) const {
  const auto it = names_.find(name);
  return it == names_.end() ? 0 : it->second.size();
}

void FdStore::account(std::string_view name, std::size_t removed, std::size_t added) {
  fd_count_ += added - removed;
  for (auto& [prefix, quota] : quotas_) {
    if (name.starts_with(prefix)) quota.used += added - removed;
  }
}

}  // namespace poly::keeper
