// The target for any processor: plain loops that the compiler may vectorize.
#include <cmath>

#include "kernels.h"
#include "scalar.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace talu {
namespace {

struct f32x16 {
  float lane[16];
};

// Rows of activations of one call of `multiply`, of which a cache holds a part.
constexpr std::size_t kTokensInCache = 96;
constexpr std::size_t kPanels[] = {4, 1};
constexpr std::size_t kSumsAtOnce = 4;
constexpr auto& kFloatPanels = kPanels;
constexpr std::size_t kFloatSumsAtOnce = kSumsAtOnce, kFloatColumnsAtOnce = 256;
constexpr auto& kIntegerPanels = kPanels;
constexpr std::size_t kIntegerTiles = 1;

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
// The first, or the second, numbers of sixteen pairs.
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
// a · b + c with a single rounding, for which the other targets have an instruction.
#if defined(__FP_FAST_FMAF)
TALU_INLINE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
#else
// The product is exact in a double. The sum is rounded to odd: if it is inexact, its last bit is
// set, so that the second rounding is correct (Boldo and Melquiond, 2008,
// https://doi.org/10.1109/TC.2007.70819).
static float fused(float a, float b, float c) {
  const double product = static_cast<double>(a) * b, total = product + c;
  const double added = total - product;
  const double error = (product - (total - added)) + (c - added);
  auto bits = __builtin_bit_cast(std::uint64_t, total);
  const bool inexact = error < 0.0 || error > 0.0;      // false if the total is not finite
  const bool too_far = (error > 0.0) != (total > 0.0);  // it was rounded away from zero
  if (inexact && (bits & 1) == 0) bits += too_far ? -1 : 1;
  return static_cast<float>(__builtin_bit_cast(double, bits));
}
#endif

#if defined(__SSE2__)
TALU_INLINE __m128d upper_two(__m128 x) { return _mm_cvtps_pd(_mm_movehl_ps(x, x)); }
// Rounding to a double and then to a float is also correct, unless the double lies half way between
// two floats or below all normal ones.
TALU_INLINE void add_fused(const float* a, const float* b, float* c) {
  const __m128 x = _mm_loadu_ps(a), y = _mm_loadu_ps(b), z = _mm_loadu_ps(c);
  const __m128d low = _mm_add_pd(_mm_mul_pd(_mm_cvtps_pd(x), _mm_cvtps_pd(y)), _mm_cvtps_pd(z));
  const __m128d high = _mm_add_pd(_mm_mul_pd(upper_two(x), upper_two(y)), upper_two(z));
  const __m128 first = _mm_castpd_ps(low), second = _mm_castpd_ps(high);
  const __m128i lower = _mm_castps_si128(_mm_shuffle_ps(first, second, 0x88));
  const __m128i upper = _mm_castps_si128(_mm_shuffle_ps(first, second, 0xdd));
  const __m128i beyond_float = _mm_and_si128(lower, _mm_set1_epi32(0x1fffffff));
  const __m128i half_way = _mm_cmpeq_epi32(beyond_float, _mm_set1_epi32(0x10000000));
  const __m128i size = _mm_and_si128(upper, _mm_set1_epi32(0x7fffffff));
  const __m128i small = _mm_cmplt_epi32(size, _mm_set1_epi32((1023 - 126) << 20));
  const __m128i not_zero = _mm_cmpgt_epi32(size, _mm_setzero_si128());
  if (_mm_movemask_epi8(_mm_or_si128(half_way, _mm_and_si128(small, not_zero))) == 0)
    _mm_storeu_ps(c, _mm_movelh_ps(_mm_cvtpd_ps(low), _mm_cvtpd_ps(high)));
  else
    for (std::size_t i = 0; i < 4; ++i) c[i] = fused(a[i], b[i], c[i]);
}
#else
TALU_INLINE void add_fused(const float* a, const float* b, float* c) {
  for (std::size_t i = 0; i < 4; ++i) c[i] = fused(a[i], b[i], c[i]);
}
#endif
TALU_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
  for (std::size_t i = 0; i < 16; i += 4) add_fused(a.lane + i, b.lane + i, c.lane + i);
  return c;
}
// NaN if x is NaN.
TALU_INLINE f32x16 at_least(float bound, f32x16 x) {
  return lanes([&](std::size_t i) { return bound > x.lane[i] ? bound : x.lane[i]; });
}
TALU_INLINE f32x16 at_most(float bound, f32x16 x) {
  return lanes([&](std::size_t i) { return bound < x.lane[i] ? bound : x.lane[i]; });
}
TALU_INLINE f32x16 larger(f32x16 a, f32x16 b) {
  return lanes([&](std::size_t i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
// max(size, |x|) for sizes; infinity takes precedence over finite values, NaN over all values.
TALU_INLINE f32x16 larger_size(f32x16 size, f32x16 x) {
  return lanes([&](std::size_t i) {
    const float other = std::fabs(x.lane[i]);
    return other <= size.lane[i] || std::isnan(size.lane[i]) ? size.lane[i] : other;
  });
}
// y, but 0 in the lanes where x < bound.
TALU_INLINE f32x16 zero_below(f32x16 x, float bound, f32x16 y) {
  return lanes([&](std::size_t i) { return x.lane[i] < bound ? 0.0f : y.lane[i]; });
}
TALU_INLINE f32x16 nearest_integer(f32x16 x) {
  return lanes([&](std::size_t i) { return std::nearbyintf(x.lane[i]); });
}
// 2 to the n for integers n from -126 to 127. Lanes without a number may have any n: what exceeds 32
// bits becomes 1, as on the other targets.
TALU_INLINE f32x16 power_of_two(f32x16 n) {
  return lanes([&](std::size_t i) {
    // NaN must not be converted; it becomes 2^-126.
    const float bounded = n.lane[i] >= -126.0f ? n.lane[i] : -126.0f;
    const std::int32_t whole = bounded < 2147483648.0f ? static_cast<std::int32_t>(bounded) : 0;
    return as_float((static_cast<std::uint32_t>(whole) + 127) << 23);
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

// Sixteen sums, which wrap around like those of all processors.
struct i32x16 {
  std::uint32_t lane[16];
};

// To the nearest; NaN and values out of range become the smallest integer. Of four, the second and
// third are swapped.
TALU_INLINE void store_i16(std::int16_t* p, f32x16 x) {
  constexpr std::size_t kPlaces[] = {0, 2, 1, 3};
  for (std::size_t i = 0; i < 16; ++i) {
    const bool fits = x.lane[i] >= -32768.0f && x.lane[i] <= 32767.0f;
    p[i / 4 * 4 + kPlaces[i % 4]] =
        fits ? static_cast<std::int16_t>(std::nearbyintf(x.lane[i])) : std::int16_t{-32768};
  }
}
// To the nearest; NaN and values out of range become the smallest integer.
TALU_INLINE void store_i8(std::int8_t* p, f32x16 x) {
  for (std::size_t i = 0; i < 16; ++i) {
    const float nearest = std::nearbyintf(x.lane[i]);
    const bool fits = nearest >= -128.0f && nearest <= 127.0f;
    p[i] = fits ? static_cast<std::int8_t>(nearest) : std::int8_t{-128};
  }
}
// Without crossed products (formats/i16.h).
TALU_INLINE std::int32_t crossed_sum(const std::int16_t*, std::size_t) { return 0; }
TALU_INLINE i32x16 first_sum(const void*, const void*) { return {}; }
// sums[token] += tile · x for columns in groups of four.
template <std::size_t TOKENS>
TALU_INLINE void add_products(const std::int16_t* const (&tiles)[1], std::size_t columns,
                              const std::byte* x, std::size_t stride,
                              i32x16 (&sums)[TOKENS][1]) {
  auto product = [](int a, int b) { return static_cast<std::uint32_t>(a * b); };
  for (std::size_t column = 0; column < columns; column += 4)
    for (std::size_t t = 0; t < TOKENS; ++t) {
      const std::int16_t* const weights = tiles[0] + column * kTileRows;
      std::int16_t four[4];
      __builtin_memcpy(four, x + t * stride + column * sizeof four[0], sizeof four);
      for (std::size_t i = 0; i < 16; ++i)
        sums[t][0].lane[i] += product(weights[2 * i], four[0]) +
                              product(weights[2 * i + 1], four[1]) +
                              product(weights[32 + 2 * i], four[2]) +
                              product(weights[32 + 2 * i + 1], four[3]);
    }
}
TALU_INLINE f32x16 to_floats(i32x16 x) {
  return lanes([&](std::size_t i) {
    return static_cast<float>(static_cast<std::int32_t>(x.lane[i]));
  });
}

// Codes of four columns of sixteen rows, one in a byte. All formats share these functions, which are
// not inlined: the compiler would take minutes.
struct codes {
  std::uint8_t lane[64];
};
constexpr std::size_t kCodePanels[] = {1};
constexpr std::size_t kUnrolledGroups = 1;  // of a part of a block
// Sums of products in 32 bits.
constexpr int kLargestCode = 255;
constexpr std::size_t groups_before_overflow(int) { return 8; }
using partial = i32x16;
TALU_INLINE partial no_products() { return {}; }

template <class Function>
TALU_INLINE codes each_code(Function function) {
  codes out;
  for (std::size_t i = 0; i < 64; ++i) out.lane[i] = static_cast<std::uint8_t>(function(i));
  return out;
}
template <int WIDTH>
[[gnu::noinline]] codes load_codes(const std::byte* plane, std::size_t group) {
  return each_code([&](std::size_t i) {
    constexpr std::size_t in_vector = 8 / WIDTH;  // of the halves of a group
    const std::size_t half = 2 * group + i / 32;
    const auto byte = static_cast<unsigned>(plane[half / in_vector * 32 + i % 32]);
    return byte >> (half % in_vector * WIDTH) & ((1u << WIDTH) - 1);
  });
}
TALU_INLINE void store_codes(std::byte* to, codes x) { __builtin_memcpy(to, x.lane, sizeof x.lane); }
template <int SHIFT>
[[gnu::noinline]] codes combine(codes low, codes high) {
  return each_code([&](std::size_t i) { return low.lane[i] | high.lane[i] << SHIFT; });
}
[[gnu::noinline]] codes look_up(codes x, const std::uint8_t (&table)[16]) {
  return each_code([&](std::size_t i) { return table[x.lane[i]]; });
}
// sum + codes · x, for four numbers of x in 8 bits.
[[gnu::noinline]] partial add_codes(codes w, const std::byte* x, partial sum) {
  std::int8_t four[4];
  __builtin_memcpy(four, x, sizeof four);
  for (std::size_t i = 0; i < 16; ++i)
    for (std::size_t c = 0; c < 4; ++c)
      sum.lane[i] += static_cast<std::uint32_t>(w.lane[4 * i + c] * four[c]);
  return sum;
}
TALU_INLINE i32x16 widen(partial x) { return x; }
// Never used: no product overflows.
TALU_INLINE codes less_128(codes x) { return x; }
TALU_INLINE i32x16 add_signed(codes, const std::byte*, i32x16 sum) { return sum; }
TALU_INLINE i32x16 add(i32x16 a, i32x16 b) {
  for (std::size_t i = 0; i < 16; ++i) a.lane[i] += b.lane[i];
  return a;
}
TALU_INLINE i32x16 subtract(i32x16 a, std::int32_t b) {
  for (std::size_t i = 0; i < 16; ++i) a.lane[i] -= static_cast<std::uint32_t>(b);
  return a;
}
TALU_INLINE f32x16 load_i8(const std::byte* p) {
  return lanes([&](std::size_t i) { return static_cast<float>(static_cast<std::int8_t>(p[i])); });
}
TALU_INLINE f32x16 load_u8(const std::byte* p) {
  return lanes([&](std::size_t i) { return static_cast<float>(static_cast<std::uint8_t>(p[i])); });
}

// Lane i becomes x[i] + x[i ^ STRIDE]; x[i ^ STRIDE] - x[i] if i has that bit.
template <std::size_t STRIDE>
TALU_INLINE f32x16 butterfly(f32x16 x) {
  return lanes([&](std::size_t i) {
    return x.lane[i ^ STRIDE] + ((i & STRIDE) == 0 ? x.lane[i] : -x.lane[i]);
  });
}
TALU_INLINE i32x16 load(const std::int32_t* p) {
  i32x16 x;
  __builtin_memcpy(x.lane, p, sizeof x.lane);
  return x;
}
TALU_INLINE void store(std::int32_t* p, i32x16 x) { __builtin_memcpy(p, x.lane, sizeof x.lane); }
TALU_INLINE i32x16 splat_integer(std::int32_t x) {
  i32x16 all;
  for (std::uint32_t& lane : all.lane) lane = static_cast<std::uint32_t>(x);
  return all;
}
// Integer scales of sixteen rows, for partial sums.
using scales = i32x16;
TALU_INLINE scales load_scales(const std::byte* p) {
  scales x;
  for (std::size_t i = 0; i < 16; ++i) x.lane[i] = static_cast<std::uint32_t>(p[i]);
  return x;
}
TALU_INLINE i32x16 scaled(partial x, scales by) {
  for (std::size_t i = 0; i < 16; ++i) x.lane[i] *= by.lane[i];
  return x;
}
// Pairs of bytes of sixteen rows times FACTOR.
struct pairs {
  std::int32_t lane[32];
};
template <int FACTOR>
TALU_INLINE pairs load_pairs(const std::byte* p) {
  pairs x;
  for (std::size_t i = 0; i < 32; ++i) x.lane[i] = FACTOR * static_cast<std::int32_t>(p[i]);
  return x;
}
// sum + the products with the pair at x.
TALU_INLINE i32x16 add_pairs(i32x16 sum, const pairs& w, const std::byte* x) {
  std::int16_t pair[2];
  __builtin_memcpy(pair, x, sizeof pair);
  for (std::size_t i = 0; i < 16; ++i)
    sum.lane[i] +=
        static_cast<std::uint32_t>(w.lane[2 * i] * pair[0] + w.lane[2 * i + 1] * pair[1]);
  return sum;
}

bool supported() { return true; }
constexpr char kName[] = "generic";

#include "kernels.inc"

}  // namespace

const Kernels generic_kernels = kernels;

}  // namespace talu
