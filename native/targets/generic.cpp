// Any processor: plain loops that the compiler may or may not turn into vector code.
#include <cmath>

#include "kernels.h"
#include "scalar.h"

namespace talu {
namespace {

struct f32x16 {
  float lane[16];
};

constexpr std::size_t kPanels[] = {4, 1};
constexpr std::size_t kSumsAtOnce = 4;

template <class Function>
TALU_INLINE f32x16 lanes(Function function) {
  f32x16 out;
  for (std::size_t i = 0; i < 16; ++i) out.lane[i] = function(i);
  return out;
}

TALU_INLINE f32x16 splat(float x) {
  return lanes([&](std::size_t) { return x; });
}
TALU_INLINE f32x16 load(const float* p) {
  return lanes([&](std::size_t i) { return p[i]; });
}
TALU_INLINE void store(float* p, f32x16 x) { __builtin_memcpy(p, x.lane, sizeof x.lane); }
TALU_INLINE f32x16 load_first(const float* p, std::size_t n) {
  return lanes([&](std::size_t i) { return i < n ? p[i] : 0.0f; });
}
TALU_INLINE void store_first(float* p, f32x16 x, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) p[i] = x.lane[i];
}
TALU_INLINE f32x16 load_f16(const std::uint16_t* p) {
  return lanes([&](std::size_t i) { return widen_f16(p[i]); });
}
TALU_INLINE void store_f16(std::uint16_t* p, f32x16 x) {
  for (std::size_t i = 0; i < 16; ++i) p[i] = round_f16(x.lane[i]);
}
TALU_INLINE f32x16 load_bf16(const std::uint16_t* p) {
  return lanes([&](std::size_t i) { return widen_bf16(p[i]); });
}
TALU_INLINE void store_bf16(std::uint16_t* p, f32x16 x) {
  for (std::size_t i = 0; i < 16; ++i) p[i] = round_bf16(x.lane[i]);
}
// Of sixteen pairs, the first numbers; the second ones.
TALU_INLINE f32x16 load_first_of_pairs(const std::uint16_t* p) {
  return lanes([&](std::size_t i) { return widen_bf16(p[2 * i]); });
}
TALU_INLINE f32x16 load_second_of_pairs(const std::uint16_t* p) {
  return lanes([&](std::size_t i) { return widen_bf16(p[2 * i + 1]); });
}
TALU_INLINE f32x16 add(f32x16 a, f32x16 b) {
  return lanes([&](std::size_t i) { return a.lane[i] + b.lane[i]; });
}
TALU_INLINE f32x16 subtract(f32x16 a, f32x16 b) {
  return lanes([&](std::size_t i) { return a.lane[i] - b.lane[i]; });
}
TALU_INLINE f32x16 multiply(f32x16 a, f32x16 b) {
  return lanes([&](std::size_t i) { return a.lane[i] * b.lane[i]; });
}
TALU_INLINE f32x16 divide(f32x16 a, f32x16 b) {
  return lanes([&](std::size_t i) { return a.lane[i] / b.lane[i]; });
}
TALU_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { return add(multiply(a, b), c); }
// Where x is not a number, so is the result.
TALU_INLINE f32x16 at_least(float bound, f32x16 x) {
  return lanes([&](std::size_t i) { return bound > x.lane[i] ? bound : x.lane[i]; });
}
TALU_INLINE f32x16 at_most(float bound, f32x16 x) {
  return lanes([&](std::size_t i) { return bound < x.lane[i] ? bound : x.lane[i]; });
}
TALU_INLINE f32x16 larger(f32x16 a, f32x16 b) {
  return lanes([&](std::size_t i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
// y, but 0 in the lanes where x < bound.
TALU_INLINE f32x16 zero_below(f32x16 x, float bound, f32x16 y) {
  return lanes([&](std::size_t i) { return x.lane[i] < bound ? 0.0f : y.lane[i]; });
}
TALU_INLINE f32x16 nearest_integer(f32x16 x) {
  return lanes([&](std::size_t i) { return std::nearbyintf(x.lane[i]); });
}
// 2 to the n for integers n from -126 to 127.
TALU_INLINE f32x16 power_of_two(f32x16 n) {
  return lanes([&](std::size_t i) {
    // What is not a number must not be converted; here it becomes 2^-126.
    const float bounded = n.lane[i] >= -126.0f ? n.lane[i] : -126.0f;
    return as_float(static_cast<std::uint32_t>(static_cast<std::int32_t>(bounded) + 127) << 23);
  });
}
TALU_INLINE float sum(f32x16 x) {
  for (std::size_t half = 8; half > 0; half /= 2)
    for (std::size_t i = 0; i < half; ++i) x.lane[i] += x.lane[i + half];
  return x.lane[0];
}
TALU_INLINE float largest(f32x16 x) {
  for (std::size_t half = 8; half > 0; half /= 2)
    for (std::size_t i = 0; i < half; ++i)
      x.lane[i] = x.lane[i] > x.lane[i + half] ? x.lane[i] : x.lane[i + half];
  return x.lane[0];
}

// Sixteen sums, which wrap around like those of all processors, and sixteen pairs.
struct i32x16 {
  std::uint32_t lane[16];
};
struct i16x32 {
  std::int16_t lane[32];
};

// To the nearest; what is beyond all integers, or not a number, becomes the smallest.
TALU_INLINE void store_i16(std::int16_t* p, f32x16 x) {
  for (std::size_t i = 0; i < 16; ++i) {
    const bool fits = x.lane[i] >= -32768.0f && x.lane[i] <= 32767.0f;
    p[i] = fits ? static_cast<std::int16_t>(std::nearbyintf(x.lane[i])) : std::int16_t{-32768};
  }
}
TALU_INLINE i16x32 load_integers(const std::int16_t* p) {
  i16x32 out;
  __builtin_memcpy(out.lane, p, sizeof out.lane);
  return out;
}
TALU_INLINE i16x32 splat_integers(const void* p) {
  i16x32 out;
  for (std::size_t i = 0; i < 16; ++i) __builtin_memcpy(out.lane + 2 * i, p, sizeof(std::int32_t));
  return out;
}
TALU_INLINE i32x16 no_products() { return {}; }
// sum + a0 · b0 + a1 · b1 in each lane.
TALU_INLINE i32x16 add_products(i16x32 a, i16x32 b, i32x16 sum) {
  for (std::size_t i = 0; i < 16; ++i) {
    const std::int32_t first = a.lane[2 * i] * b.lane[2 * i];
    const std::int32_t second = a.lane[2 * i + 1] * b.lane[2 * i + 1];
    sum.lane[i] += static_cast<std::uint32_t>(first) + static_cast<std::uint32_t>(second);
  }
  return sum;
}
TALU_INLINE f32x16 to_floats(i32x16 x) {
  return lanes([&](std::size_t i) {
    return static_cast<float>(static_cast<std::int32_t>(x.lane[i]));
  });
}

bool supported() { return true; }
constexpr char kName[] = "generic";

#include "kernels.inc"

}  // namespace

const Kernels generic_kernels = kernels;

}  // namespace talu
