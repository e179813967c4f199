// AVX2 with FMA and half-precision conversion: Intel since Haswell, AMD since Zen.
#include "kernels.h"
#include "scalar.h"
#include "target_region.h"

#if defined(__x86_64__)
#include <immintrin.h>

TALU_TARGET_BEGIN("avx2,fma,f16c")
namespace talu {
namespace {

struct f32x16 {
  __m256 low, high;
};

// Twelve of the sixteen registers can hold sums, six tokens of one tile; with several tiles side by
// side, whose weights need registers too, eight.
constexpr std::size_t kPanels[] = {6, 4, 3, 2, 1};
constexpr std::size_t kSumsAtOnce = 4;

TALU_INLINE f32x16 splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
TALU_INLINE f32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
TALU_INLINE void store(float* p, f32x16 x) {
  _mm256_storeu_ps(p, x.low);
  _mm256_storeu_ps(p + 8, x.high);
}

TALU_INLINE __m256i lanes_below(std::size_t n) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lanes);
}
TALU_INLINE f32x16 load_first(const float* p, std::size_t n) {
  return {_mm256_maskload_ps(p, lanes_below(n)),
          n > 8 ? _mm256_maskload_ps(p + 8, lanes_below(n - 8)) : _mm256_setzero_ps()};
}
TALU_INLINE void store_first(float* p, f32x16 x, std::size_t n) {
  _mm256_maskstore_ps(p, lanes_below(n), x.low);
  if (n > 8) _mm256_maskstore_ps(p + 8, lanes_below(n - 8), x.high);
}

TALU_INLINE const __m128i* as_128(const void* p) { return static_cast<const __m128i*>(p); }
TALU_INLINE const __m256i* as_256(const void* p) { return static_cast<const __m256i*>(p); }

TALU_INLINE f32x16 load_f16(const std::uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(as_128(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(as_128(p + 8)))};
}
TALU_INLINE void store_f16(std::uint16_t* p, f32x16 x) {
  auto* const to = reinterpret_cast<__m128i*>(p);
  _mm_storeu_si128(to, _mm256_cvtps_ph(x.low, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(to + 1, _mm256_cvtps_ph(x.high, _MM_FROUND_TO_NEAREST_INT));
}

TALU_INLINE __m256 widen_eight(__m128i x) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
TALU_INLINE f32x16 load_bf16(const std::uint16_t* p) {
  return {widen_eight(_mm_loadu_si128(as_128(p))), widen_eight(_mm_loadu_si128(as_128(p + 8)))};
}
TALU_INLINE __m128i round_eight(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x), one = _mm256_set1_epi32(1);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), one);
  const __m256i half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
  __m256i upper = _mm256_srli_epi32(_mm256_add_epi32(bits, half), 16);
  const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  upper = _mm256_blendv_epi8(upper, quiet, nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
}
// To the nearest, ties to even; not a number stays one.
TALU_INLINE void store_bf16(std::uint16_t* p, f32x16 x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), round_eight(x.low));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), round_eight(x.high));
}
// Of sixteen pairs, the first numbers; the second ones.
TALU_INLINE f32x16 load_first_of_pairs(const std::uint16_t* p) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(as_256(p)), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(as_256(p + 16)), 16))};
}
TALU_INLINE f32x16 load_second_of_pairs(const std::uint16_t* p) {
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000));
  return {_mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(as_256(p)), upper)),
          _mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(as_256(p + 16)), upper))};
}
TALU_INLINE f32x16 add(f32x16 a, f32x16 b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
TALU_INLINE f32x16 subtract(f32x16 a, f32x16 b) {
  return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
TALU_INLINE f32x16 multiply(f32x16 a, f32x16 b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
TALU_INLINE f32x16 divide(f32x16 a, f32x16 b) {
  return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
TALU_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
// Where x is not a number, so is the result.
TALU_INLINE f32x16 at_least(float bound, f32x16 x) {
  const __m256 b = _mm256_set1_ps(bound);
  return {_mm256_max_ps(b, x.low), _mm256_max_ps(b, x.high)};
}
TALU_INLINE f32x16 at_most(float bound, f32x16 x) {
  const __m256 b = _mm256_set1_ps(bound);
  return {_mm256_min_ps(b, x.low), _mm256_min_ps(b, x.high)};
}
TALU_INLINE f32x16 larger(f32x16 a, f32x16 b) {
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
TALU_INLINE __m256 zero_below(__m256 x, __m256 bound, __m256 y) {
  return _mm256_andnot_ps(_mm256_cmp_ps(x, bound, _CMP_LT_OQ), y);
}
// y, but 0 in the lanes where x < bound.
TALU_INLINE f32x16 zero_below(f32x16 x, float bound, f32x16 y) {
  const __m256 b = _mm256_set1_ps(bound);
  return {zero_below(x.low, b, y.low), zero_below(x.high, b, y.high)};
}
TALU_INLINE f32x16 nearest_integer(f32x16 x) {
  return {_mm256_round_ps(x.low, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
          _mm256_round_ps(x.high, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
TALU_INLINE __m256 power_of_two(__m256 n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
// 2 to the n for integers n from -126 to 127.
TALU_INLINE f32x16 power_of_two(f32x16 n) { return {power_of_two(n.low), power_of_two(n.high)}; }

TALU_INLINE float sum(f32x16 x) {
  const __m256 eight = _mm256_add_ps(x.low, x.high);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
TALU_INLINE float largest(f32x16 x) {
  const __m256 eight = _mm256_max_ps(x.low, x.high);
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

// Sixteen sums, and sixteen pairs.
struct i32x16 {
  __m256i low, high;
};
struct i16x32 {
  __m256i low, high;
};

// To the nearest; what is beyond all integers, or not a number, becomes the smallest.
TALU_INLINE void store_i16(std::int16_t* p, f32x16 x) {
  const __m256i low = _mm256_cvtps_epi32(x.low), high = _mm256_cvtps_epi32(x.high);
  const __m256i mixed = _mm256_packs_epi32(low, high);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(mixed, 0xd8));
}
TALU_INLINE i16x32 load_integers(const std::int16_t* p) {
  return {_mm256_loadu_si256(as_256(p)), _mm256_loadu_si256(as_256(p + 16))};
}
TALU_INLINE i16x32 splat_integers(const void* p) {
  std::int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return {_mm256_set1_epi32(pair), _mm256_set1_epi32(pair)};
}
TALU_INLINE i32x16 no_products() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
// sum + a0 · b0 + a1 · b1 in each lane.
TALU_INLINE i32x16 add_products(i16x32 a, i16x32 b, i32x16 sum) {
  sum.low = _mm256_add_epi32(sum.low, _mm256_madd_epi16(a.low, b.low));
  sum.high = _mm256_add_epi32(sum.high, _mm256_madd_epi16(a.high, b.high));
  // GCC would gather the products of several tokens first, and have no registers left for sums.
  __asm__ volatile("" : "+x"(sum.low), "+x"(sum.high));
  return sum;
}
TALU_INLINE f32x16 to_floats(i32x16 x) {
  return {_mm256_cvtepi32_ps(x.low), _mm256_cvtepi32_ps(x.high)};
}

bool supported() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}
constexpr char kName[] = "avx2";

#include "kernels.inc"

}  // namespace
const Kernels avx2_kernels = kernels;
}  // namespace talu
TALU_TARGET_END
#endif
