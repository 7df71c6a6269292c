// Intrusive reference counts for nodes and files: one atomic in the object, no control block, no allocation
// per call.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

namespace poly {

class RefCounted {
 public:
  RefCounted() = default;
  RefCounted(const RefCounted&) = delete;
  RefCounted& operator=(const RefCounted&) = delete;
  virtual ~RefCounted() = default;

  void acquire() { refs_.fetch_add(1, std::memory_order_relaxed); }
  // acq_rel: the last releaser must see every write of the others before it destroys the object.
  void release() {
    if (unref()) dispose();
  }
  // Gives a reference back without disposing of the object: true if it was the last, and then the caller
  // must.
  [[nodiscard]] bool unref() { return refs_.fetch_sub(1, std::memory_order_acq_rel) == 1; }
  // Takes a reference only if the object is not already being disposed of. Caller must keep the memory alive
  // (index lock).
  [[nodiscard]] bool try_acquire() {
    uint32_t refs = refs_.load(std::memory_order_relaxed);
    while (refs != 0) {
      if (refs_.compare_exchange_weak(refs, refs + 1, std::memory_order_acquire)) return true;
    }
    return false;
  }

 protected:
  // Called once, when the last reference is gone. An owner with an index overrides it to leave the index
  // first.
  virtual void dispose() { delete this; }

 private:
  std::atomic<uint32_t> refs_{1};
};

// Owning pointer to a RefCounted. `adopt` takes over a reference the caller already holds.
template <typename T>
class Ref {
 public:
  Ref() = default;
  Ref(std::nullptr_t) {}
  static Ref adopt(T* object) {
    Ref ref;
    ref.object_ = object;
    return ref;
  }
  static Ref share(T* object) {
    if (object) object->acquire();
    return adopt(object);
  }
  Ref(const Ref& other) : object_(other.object_) {
    if (object_) object_->acquire();
  }
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  template <typename U>
  Ref(Ref<U>&& other) noexcept : object_(other.leak()) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() {
    if (object_) object_->release();
  }
  T* get() const { return object_; }
  T* operator->() const { return object_; }
  T& operator*() const { return *object_; }
  explicit operator bool() const { return object_ != nullptr; }
  [[nodiscard]] T* leak() { return std::exchange(object_, nullptr); }

 private:
  T* object_ = nullptr;
};

}  // namespace poly
