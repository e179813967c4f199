// Conversions of single numbers in 16-bit formats. Always inlined, so that each target has a copy.
#pragma once
#include <cstdint>

#include "target_region.h"

namespace talu {

TALU_INLINE float as_float(std::uint32_t bits) { return __builtin_bit_cast(float, bits); }
TALU_INLINE std::uint32_t as_bits(float x) { return __builtin_bit_cast(std::uint32_t, x); }

TALU_INLINE float widen_bf16(std::uint16_t x) {
  return as_float(static_cast<std::uint32_t>(x) << 16);
}
// To the nearest, ties to even; NaN stays NaN.
TALU_INLINE std::uint16_t round_bf16(float x) {
  const std::uint32_t bits = as_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

TALU_INLINE float widen_f16(std::uint16_t x) {
  const std::uint32_t sign = (x & 0x8000u) << 16, magnitude = x & 0x7fffu;
  if (magnitude >= 0x7c00u) return as_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  // 2^112 corrects the exponent's bias and scales subnormal numbers correctly.
  return as_float(sign | as_bits(as_float(magnitude << 13) * 0x1p112f));
}
// To the nearest, ties to even; NaN stays NaN.
TALU_INLINE std::uint16_t round_f16(float x) {
  const std::uint32_t bits = as_bits(x), sign = bits >> 16 & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 moves it into the lowest bits and rounds it.
    const std::uint32_t lowest = as_bits(as_float(magnitude) + 0.5f) - as_bits(0.5f);
    return static_cast<std::uint16_t>(sign | lowest);
  }
  const std::uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return static_cast<std::uint16_t>(sign | (rounded - 0x38000000u) >> 13);
}

}  // namespace talu
