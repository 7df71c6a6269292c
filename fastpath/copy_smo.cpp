// SMO, shared-memory copy optimized (paper, "Data Transfer"): ten cache lines are prefetched non-temporally
// once; then in each step two more are prefetched and two are stored non-temporally. The data pass by the
// caches.
//
// The forms carry target attributes instead of living in files with flags of their own, so that no inline
// function of a shared header is ever compiled for a CPU that we do not run on.
#include <immintrin.h>

#include <cstring>

#include "fastpath/copy.hpp"

namespace poly {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kStep = 2 * kLine;
constexpr size_t kAheadSteps = 5;  // ten lines

using Pipeline = void (*)(std::byte* to, const std::byte* from, size_t steps);

inline void prefetch_step(const std::byte* from) {
  __builtin_prefetch(from, 0, 0);  // PREFETCHNTA
  __builtin_prefetch(from + kLine, 0, 0);
}

inline void prefetch_first(const std::byte* from, size_t steps) {
  for (size_t i = 0; i < std::min(steps, kAheadSteps); ++i) prefetch_step(from + i * kStep);
}

inline void step_sse2(std::byte* to, const std::byte* from) {
  for (size_t i = 0; i < kStep; i += sizeof(__m128i))
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
}

[[gnu::target("avx2")]] inline void step_avx2(std::byte* to, const std::byte* from) {
  for (size_t i = 0; i < kStep; i += sizeof(__m256i))
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i),
                        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i)));
}

[[gnu::target("avx512f")]] inline void step_avx512(std::byte* to, const std::byte* from) {
  for (size_t i = 0; i < kStep; i += sizeof(__m512i))
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), _mm512_loadu_si512(from + i));
}

// Each form is the same loop; a function for one target is not inlined into a function for another.
void pipeline_sse2(std::byte* to, const std::byte* from, size_t steps) {
  prefetch_first(from, steps);
  for (; steps > kAheadSteps; --steps, to += kStep, from += kStep) {
    prefetch_step(from + kAheadSteps * kStep);
    step_sse2(to, from);
  }
  for (; steps > 0; --steps, to += kStep, from += kStep) step_sse2(to, from);
}

[[gnu::target("avx2")]] void pipeline_avx2(std::byte* to, const std::byte* from, size_t steps) {
  prefetch_first(from, steps);
  for (; steps > kAheadSteps; --steps, to += kStep, from += kStep) {
    prefetch_step(from + kAheadSteps * kStep);
    step_avx2(to, from);
  }
  for (; steps > 0; --steps, to += kStep, from += kStep) step_avx2(to, from);
}

[[gnu::target("avx512f")]] void pipeline_avx512(std::byte* to, const std::byte* from, size_t steps) {
  prefetch_first(from, steps);
  for (; steps > kAheadSteps; --steps, to += kStep, from += kStep) {
    prefetch_step(from + kAheadSteps * kStep);
    step_avx512(to, from);
  }
  for (; steps > 0; --steps, to += kStep, from += kStep) step_avx512(to, from);
}

Pipeline pipeline_of(SmoForm form) {
  switch (form) {
    case SmoForm::kAvx512:
      return pipeline_avx512;
    case SmoForm::kAvx2:
      return pipeline_avx2;
    case SmoForm::kSse2:
      break;
  }
  return pipeline_sse2;
}

SmoForm detect() {
  __builtin_cpu_init();  // we may be called before libgcc's constructor
  if (__builtin_cpu_supports("avx512f")) return SmoForm::kAvx512;
  return __builtin_cpu_supports("avx2") ? SmoForm::kAvx2 : SmoForm::kSse2;
}

}  // namespace

SmoForm smo_form() {
  // Not a local static with a guard: that would need libstdc++. Racing threads find the same.
  static constinit std::atomic<uint8_t> known{UINT8_MAX};
  uint8_t form = known.load(std::memory_order_relaxed);
  if (form == UINT8_MAX) {
    form = static_cast<uint8_t>(detect());
    known.store(form, std::memory_order_relaxed);
  }
  return static_cast<SmoForm>(form);
}

void smo_copy(SmoForm form, void* to, const void* from, size_t size) {
  auto* target = static_cast<std::byte*>(to);
  auto* source = static_cast<const std::byte*>(from);
  // Non-temporal stores want whole lines: anything less leaves half-filled write-combining buffers.
  const size_t head = -reinterpret_cast<uintptr_t>(target) % kLine;
  if (size < head + kStep) {
    if (size != 0) std::memcpy(target, source, size);
    return;
  }
  const size_t steps = (size - head) / kStep;
  const size_t body = steps * kStep;
  std::memcpy(target, source, head);
  pipeline_of(form)(target + head, source + head, steps);
  std::memcpy(target + head + body, source + head + body, size - head - body);
  _mm_sfence();  // non-temporal stores are weakly ordered, release or not (Intel SDM 1, 10.4.6.2)
}

}  // namespace poly
