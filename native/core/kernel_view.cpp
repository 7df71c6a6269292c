#include "native/core/kernel_view.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <utility>

#include "native/core/op_stats.hpp"
#include "native/core/pool_memory.hpp"

namespace poly {
namespace {

constexpr size_t kNodesSize(size_t each) {
  return each * PoolMemory::kNodes;
}

// A word of the name table: whose it is (a part of the hash; kMixed when several are, kNobody when it has
// been dropped), and until when.
constexpr uint64_t kTimeMask = (uint64_t{1} << 48) - 1;
constexpr uint64_t kMixed = 0xffff, kNobody = 0xfffe;

uint64_t hash_name(uint64_t directory, std::string_view name) {
  uint64_t h = std::hash<std::string_view>{}(name) ^ directory * 0x9e3779b97f4a7c15ull;
  h ^= h >> 32;
  return h * 0xd6e8feb86659fd93ull;
}

uint64_t tag_of(uint64_t hash) {
  return (hash >> 48) % kNobody;
}

uint64_t later(uint64_t now, uint64_t by) {
  return by > KernelView::kForever - now ? KernelView::kForever : now + by;
}

void* reserve(size_t size) {
  void* memory =
      mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

}  // namespace

KernelView::KernelView()
    : nodes_(static_cast<Node*>(reserve(kNodesSize(sizeof(Node))))),
      names_(static_cast<std::atomic<uint64_t>*>(reserve(kNameSlots * sizeof(std::atomic<uint64_t>)))) {
  if (!nodes_ || !names_) std::abort();  // half a gigabyte of addresses: nothing else would work either
}

KernelView::~KernelView() {
  munmap(nodes_, kNodesSize(sizeof(Node)));
  munmap(names_, kNameSlots * sizeof(std::atomic<uint64_t>));
}

KernelView::Node* KernelView::find(uint64_t node) {
  auto index = static_cast<uint32_t>(node);
  return node != 0 && index < PoolMemory::kNodes ? &nodes_[index] : nullptr;
}

KernelView::Node* KernelView::own(uint64_t node) {
  Node* n = find(node);
  if (n && n->id != node) {
    *n = Node{};
    n->id = node;
  }
  return n;
}

void KernelView::believe(Node& n, uint64_t now, uint64_t timeout) {
  n.attribute_marks++;
  n.attributes_until = std::max(n.attributes_until, later(later(now, timeout), kUnderWay));
}

void KernelView::attributes_told(uint64_t node, uint64_t timeout) {
  if (timeout == 0) return;
  const uint64_t now = coarse_ns();
  std::lock_guard guard(stripe(node));
  if (Node* n = own(node)) believe(*n, now, timeout);
}

bool KernelView::entry_told(uint64_t node, uint64_t directory, uint64_t timeout, uint64_t size) {
  const uint64_t now = coarse_ns();
  std::lock_guard guard(stripe(node));
  Node* n = own(node);
  if (!n) return false;
  n->size = std::min(n->size, size);
  n->largest = std::max(n->largest, size);
  if (timeout == 0) return true;
  if (n->under_way_until <= now) n->directories = {};
  auto& [first, second] = n->directories;
  if (directory != 0 && first != directory && second != directory) {
    if (first != 0 && second != 0) return false;
    (first == 0 ? first : second) = directory;
  }
  n->under_way_until = later(now, kUnderWay);
  believe(*n, now, timeout);
  return true;
}

void KernelView::pages_told(uint64_t node) {
  std::lock_guard guard(stripe(node));
  Node* n = own(node);
  if (!n) return;
  n->page_marks++;
  n->pages = true;
  n->ranges = 0;
}

std::optional<uint64_t> KernelView::size_told(uint64_t node, uint64_t size) {
  std::lock_guard guard(stripe(node));
  Node* n = own(node);
  if (!n) return std::nullopt;
  n->largest = size;
  const uint64_t known = std::exchange(n->size, size);
  return n->pages && size > known ? std::optional(known) : std::nullopt;
}

void KernelView::size_written(uint64_t node, uint64_t end) {
  std::lock_guard guard(stripe(node));
  if (Node* n = own(node)) n->size = std::max(n->size, end);
}

void KernelView::size_grown(uint64_t node, uint64_t end) {
  std::lock_guard guard(stripe(node));
  if (Node* n = own(node)) n->largest = std::max(n->largest, end);
}

bool KernelView::believes_larger(uint64_t node, uint64_t size) {
  std::lock_guard guard(stripe(node));
  const Node* n = find(node);
  return n && n->id == node && n->largest > size;
}

void KernelView::anything_told(uint64_t node) {
  attributes_told(node, kForever);
  pages_told(node);
  size_grown(node, UINT64_MAX);
}

void KernelView::any_name_told(uint64_t timeout) {
  const uint64_t until = later(later(coarse_ns(), timeout), kUnderWay);
  uint64_t old = any_name_until_.load();
  while (old < until && !any_name_until_.compare_exchange_weak(old, until)) {
  }
}

KernelView::Held KernelView::held(uint64_t node) {
  Held held;
  std::lock_guard guard(stripe(node));
  const Node* n = find(node);
  if (!n || n->id != node || (n->attributes_until == 0 && !n->pages)) return held;
  const uint64_t now = coarse_ns();
  held.attributes = n->attributes_until > now;
  held.pages = n->pages;
  held.all_pages = n->ranges >= kRanges;
  if (n->under_way_until > now) held.directories = n->directories;
  held.attribute_marks = n->attribute_marks;
  held.page_marks = n->page_marks;
  return held;
}

void KernelView::dropped(uint64_t node, const Held& held, bool pages_too) {
  std::lock_guard guard(stripe(node));
  Node* n = find(node);
  if (!n || n->id != node) return;
  if (n->attribute_marks == held.attribute_marks) {
    n->attributes_until = n->under_way_until = 0;
    n->directories = {};
  }
  if (!pages_too || n->page_marks != held.page_marks) return;
  if (held.all_pages)
    n->pages = false;
  else
    n->ranges++;
}

// Each mark makes the word a greater one, so that name_dropped sees that there was one.
void KernelView::name_told(uint64_t directory, std::string_view name, uint64_t timeout) {
  if (timeout == 0) return;
  const uint64_t hash = hash_name(directory, name), now = coarse_ns() / 1000;
  const uint64_t until = std::min(later(now, later(timeout, kUnderWay) / 1000 + 1), kTimeMask - 1);
  std::atomic<uint64_t>& slot = names_[hash % kNameSlots];
  uint64_t old = slot.load(), mine;
  do {
    const bool alone = (old & kTimeMask) <= now || old >> 48 == tag_of(hash) || old >> 48 == kNobody;
    mine = (alone ? tag_of(hash) : kMixed) << 48 | std::max((old & kTimeMask) + 1, until);
  } while (!slot.compare_exchange_weak(old, mine));
}

uint64_t KernelView::name_held(uint64_t directory, std::string_view name) {
  const uint64_t hash = hash_name(directory, name);
  const uint64_t word = names_[hash % kNameSlots].load(), any = any_name_until_.load();
  if (word == 0 && any == 0) return 0;
  const uint64_t now = coarse_ns();
  const bool told = (word & kTimeMask) > now / 1000 && (word >> 48 == tag_of(hash) || word >> 48 == kMixed);
  if (told) return word;
  return any > now ? kMixed << 48 : 0;
}

void KernelView::name_dropped(uint64_t directory, std::string_view name, uint64_t held) {
  const uint64_t hash = hash_name(directory, name);
  if (held >> 48 != tag_of(hash)) return;
  // Not 0: the next mark must make another word than this one was.
  names_[hash % kNameSlots].compare_exchange_strong(held, kNobody << 48 | (held & kTimeMask));
}

}  // namespace poly
