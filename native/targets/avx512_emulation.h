// Emulates the AVX-512 intrinsics that the targets use: SIMDe (libsimde-dev) has most, the rest is
// defined here. Only for `make emulate`, which tests these targets on processors without AVX-512.
#pragma once
#include <cstdint>
#include <cstring>

#include "targets/amx_emulation.h"

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

// The whole build targets the host processor; GCC 12 fails on the combination.
#undef TALU_TARGET_BEGIN
#undef TALU_TARGET_END
#define TALU_TARGET_BEGIN(features)
#define TALU_TARGET_END

#undef _mm512_cvtps_ph
#undef _mm512_madd_epi16
#define __mmask16 simde__mmask16
#define __mmask64 simde__mmask64
#define _mm512_maskz_loadu_ps talu::masked_load
#define _mm512_mask_storeu_ps talu::masked_store
#define _mm512_cvtph_ps talu::widen_halves
#define _mm512_cvtps_ph(x, rounding) talu::round_to_halves(x)
#define _mm512_cvtepu16_epi32 talu::widen_shorts
#define _mm512_cvtepi32_epi16 talu::narrow_to_shorts
#define _mm512_cvtps_epi32 talu::to_integers
#define _mm512_cvtepi32_ps talu::to_floats
#define _mm512_madd_epi16 talu::multiply_pairs
#define _mm512_cvtepu8_epi32 talu::widen_bytes<std::uint8_t>
#define _mm512_cvtepi8_epi32 talu::widen_bytes<std::int8_t>
#define _mm512_cvtepu8_epi16 talu::widen_bytes_to_shorts
#undef _mm512_fmadd_ps
#define _mm512_fmadd_ps talu::fused_multiply_add
#undef _mm512_permute_ps
#define _mm512_permute_ps(x, order) \
  talu::sixteen_floats([&, from = talu::lanes_of(x)](int i) { \
    return from.lane[i / 4 * 4 + ((order) >> i % 4 * 2 & 3)]; \
  })
#undef _mm512_shuffle_f32x4
#define _mm512_shuffle_f32x4(x, y, order) \
  talu::sixteen_floats([&, first = talu::lanes_of(x), second = talu::lanes_of(y)](int i) { \
    return (i < 8 ? first : second).lane[((order) >> i / 4 * 2 & 3) * 4 + i % 4]; \
  })

namespace talu {

template <class Function>
TALU_INLINE __m512 sixteen_floats(Function function) {
  float lanes[16];
  for (int i = 0; i < 16; ++i) lanes[i] = function(i);
  return _mm512_loadu_ps(lanes);
}
struct SixteenLanes {
  float lane[16];
};
TALU_INLINE SixteenLanes lanes_of(__m512 x) {
  SixteenLanes lanes;
  _mm512_storeu_ps(lanes.lane, x);
  return lanes;
}
// SIMDe rounds twice on a build without FMA. In a function of its own, because it needs the
// instructions, which every processor with AVX2 has.
__attribute__((target("fma"), noinline)) inline void fuse(const float* a, const float* b, float* c) {
  for (int i = 0; i < 16; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
}
TALU_INLINE __m512 fused_multiply_add(__m512 a, __m512 b, __m512 c) {
  const SixteenLanes first = lanes_of(a), second = lanes_of(b);
  SixteenLanes sum = lanes_of(c);
  fuse(first.lane, second.lane, sum.lane);
  return _mm512_loadu_ps(sum.lane);
}
template <class Byte>
TALU_INLINE __m512i widen_bytes(__m128i x) {
  Byte bytes[16];
  std::int32_t lanes[16];
  std::memcpy(bytes, &x, sizeof bytes);
  for (int i = 0; i < 16; ++i) lanes[i] = bytes[i];
  return _mm512_loadu_si512(lanes);
}
TALU_INLINE __m512i widen_bytes_to_shorts(__m256i x) {
  std::uint8_t bytes[32];
  std::uint16_t shorts[32];
  std::memcpy(bytes, &x, sizeof bytes);
  for (int i = 0; i < 32; ++i) shorts[i] = bytes[i];
  return _mm512_loadu_si512(shorts);
}
TALU_INLINE __m512 masked_load(__mmask16 mask, const float* p) {
  return sixteen_floats([&](int i) { return mask >> i & 1 ? p[i] : 0.0f; });
}
TALU_INLINE void masked_store(float* p, __mmask16 mask, __m512 x) {
  float lanes[16];
  _mm512_storeu_ps(lanes, x);
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) p[i] = lanes[i];
}
TALU_INLINE __m512 widen_halves(__m256i x) {
  std::uint16_t halves[16];
  std::memcpy(halves, &x, sizeof halves);
  return sixteen_floats([&](int i) { return widen_f16(halves[i]); });
}
TALU_INLINE __m256i round_to_halves(__m512 x) {
  float lanes[16];
  std::uint16_t halves[16];
  _mm512_storeu_ps(lanes, x);
  for (int i = 0; i < 16; ++i) halves[i] = round_f16(lanes[i]);
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves));
}
TALU_INLINE __m512i widen_shorts(__m256i x) {
  std::uint16_t shorts[16];
  std::uint32_t lanes[16];
  std::memcpy(shorts, &x, sizeof shorts);
  for (int i = 0; i < 16; ++i) lanes[i] = shorts[i];
  return _mm512_loadu_si512(lanes);
}
TALU_INLINE __m256i narrow_to_shorts(__m512i x) {
  std::uint32_t lanes[16];
  std::uint16_t shorts[16];
  std::memcpy(lanes, &x, sizeof lanes);
  for (int i = 0; i < 16; ++i) shorts[i] = static_cast<std::uint16_t>(lanes[i]);
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(shorts));
}
TALU_INLINE __m512i to_integers(__m512 x) {
  float lanes[16];
  std::int32_t integers[16];
  _mm512_storeu_ps(lanes, x);
  for (int i = 0; i < 16; ++i) integers[i] = _mm_cvtss_si32(_mm_set_ss(lanes[i]));
  return _mm512_loadu_si512(integers);
}

TALU_INLINE __m512 to_floats(__m512i x) {
  std::int32_t lanes[16];
  _mm512_storeu_si512(lanes, x);
  return sixteen_floats([&](int i) { return static_cast<float>(lanes[i]); });
}
TALU_INLINE __m512i multiply_pairs(__m512i x, __m512i y) {
  std::int16_t a[32], b[32];
  std::int32_t sums[16];
  _mm512_storeu_si512(a, x);
  _mm512_storeu_si512(b, y);
  for (int i = 0; i < 16; ++i)
    sums[i] = static_cast<std::int32_t>(static_cast<std::uint32_t>(a[2 * i] * b[2 * i]) +
                                        static_cast<std::uint32_t>(a[2 * i + 1] * b[2 * i + 1]));
  return _mm512_loadu_si512(sums);
}

TALU_INLINE bool has_avx512() { return true; }
TALU_INLINE bool has_bf16_products() { return true; }
TALU_INLINE bool has_integer_products() { return true; }
TALU_INLINE bool has_matrix_registers() { return true; }

}  // namespace talu
