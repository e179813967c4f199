// AVX2 with FMA and half-precision conversion: Intel since Haswell, AMD since Zen.
#include "kernels.h"
#include "scalar.h"
#include "target_region.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

TALU_TARGET_BEGIN("avx2,fma,f16c")
namespace talu {
namespace {

struct f32x16 {
  __m256 low, high;
};

// Rows of activations of one call of `multiply`, of which a cache holds a part.
constexpr std::size_t kTokensInCache = 96;
// Twelve of the sixteen registers can hold sums, for six tokens of one tile; eight with several
// tiles at once, whose weights also need registers.
constexpr std::size_t kPanels[] = {6, 4, 3, 2, 1};
constexpr std::size_t kSumsAtOnce = 4;
// For 32-bit floats: three tokens of two tiles have as many sums, and need fewer loads. Together with
// all of two tiles, the activations stay in the second cache.
constexpr std::size_t kFloatPanels[] = {3, 2, 1};
constexpr std::size_t kFloatSumsAtOnce = 6, kFloatColumnsAtOnce = 1536;
// For 16-bit integers: two tokens of two tiles. Columns of weights and activations, and sums of both,
// need the other half of the registers.
constexpr std::size_t kIntegerPanels[] = {2, 1};
constexpr std::size_t kIntegerTiles = 2;

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
// To the nearest, ties to even; NaN stays NaN.
TALU_INLINE void store_bf16(std::uint16_t* p, f32x16 x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), round_eight(x.low));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), round_eight(x.high));
}
// The first, or the second, numbers of sixteen pairs.
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
// NaN if x is NaN.
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
TALU_INLINE __m256 larger_size(__m256 size, __m256 x) {
  const __m256i bits = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
  return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(size), bits));
}
// max(size, |x|) for sizes; infinity takes precedence over finite values, NaN over all values.
TALU_INLINE f32x16 larger_size(f32x16 size, f32x16 x) {
  return {larger_size(size.low, x.low), larger_size(size.high, x.high)};
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

// Sixteen sums.
struct i32x16 {
  __m256i low, high;
};

// To the nearest; NaN and values out of range become the smallest integer. Of four, the second and
// third are swapped.
TALU_INLINE void store_i16(std::int16_t* p, f32x16 x) {
  const __m256i low = _mm256_cvtps_epi32(x.low), high = _mm256_cvtps_epi32(x.high);
  __m256i mixed = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
  mixed = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(mixed, 0xd8), 0xd8);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), mixed);
}
TALU_INLINE __m256i splat_32_bits(const void* p) {
  std::int32_t bits;
  __builtin_memcpy(&bits, p, sizeof bits);
  return _mm256_set1_epi32(bits);
}
// This target uses crossed products (formats/i16.h): a multiplication runs on two of Zen's four
// pipes, an addition on all of them.
TALU_INLINE std::int32_t crossed_sum(const std::int16_t* x, std::size_t columns) {
  __m256i sum = _mm256_setzero_si256();
  for (std::size_t c = 0; c < columns; c += 16) {
    const __m256i numbers = _mm256_loadu_si256(as_256(x + c));
    sum = _mm256_sub_epi32(sum, _mm256_madd_epi16(numbers, _mm256_srli_epi64(numbers, 32)));
  }
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
  return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_unpackhi_epi64(four, four)));
}
TALU_INLINE i32x16 first_sum(const void* weights, const void* x) {
  const __m256i of_x = splat_32_bits(x);
  const auto* const of_weights = as_256(weights);
  return {_mm256_add_epi32(of_x, _mm256_loadu_si256(of_weights)),
          _mm256_add_epi32(of_x, _mm256_loadu_si256(of_weights + 1))};
}
// sums[token][tile] += (x_even + odd) (x_odd + even), four columns of some tiles for some tokens.
template <std::size_t TILES, std::size_t TOKENS>
TALU_INLINE void add_four_columns(const std::int16_t* const (&tiles)[TILES], const std::byte* x,
                                  std::size_t stride, i32x16 (&sums)[TOKENS][TILES]) {
#pragma GCC unroll 2
  for (std::size_t r = 0; r < TILES; ++r) {
    const auto* const w = as_256(tiles[r]);
    const __m256i even_low = _mm256_loadu_si256(w), even_high = _mm256_loadu_si256(w + 1);
    const __m256i odd_low = _mm256_loadu_si256(w + 2), odd_high = _mm256_loadu_si256(w + 3);
#pragma GCC unroll 4
    for (std::size_t t = 0; t < TOKENS; ++t) {
      const __m256i a = splat_32_bits(x + t * stride), b = splat_32_bits(x + t * stride + 4);
      const __m256i low =
          _mm256_madd_epi16(_mm256_add_epi16(a, odd_low), _mm256_add_epi16(b, even_low));
      const __m256i high =
          _mm256_madd_epi16(_mm256_add_epi16(a, odd_high), _mm256_add_epi16(b, even_high));
      sums[t][r] = {_mm256_add_epi32(sums[t][r].low, low), _mm256_add_epi32(sums[t][r].high, high)};
    }
  }
}
#if !defined(__clang__)
// Two loops that use all sixteen registers are written in assembly: GCC moves registers, or stores
// them. The second tile is read where it is used, because an instruction that also reads memory takes
// no more of the front end's time, which limits both loops while another thread shares the core.
#define TALU_ADD_PAIR(token, tile, even, odd, x_even, x_odd, to)                             \
  "vpaddw " odd ", %%ymm12, " x_even "\n\t"                                                  \
  "vpaddw " even ", %%ymm13, " x_odd "\n\t"                                                  \
  "vpmaddwd " x_even ", " x_odd ", " x_even "\n\t"                                           \
  "vpaddd " x_even ", %[" token tile to "], %[" token tile to "]\n\t"
#define TALU_ADD_TO_TOKEN(token, x)                                                           \
  "vpbroadcastd %c[x_at]" x ", %%ymm12\n\t"                                                  \
  "vpbroadcastd %c[x_at]+4" x ", %%ymm13\n\t"                                                \
  TALU_ADD_PAIR(token, "0", "%%ymm8", "%%ymm10", "%%ymm14", "%%ymm15", "l")                   \
  TALU_ADD_PAIR(token, "0", "%%ymm9", "%%ymm11", "%%ymm14", "%%ymm15", "h")                   \
  TALU_ADD_PAIR(token, "1", "%c[at](%[second])", "%c[at]+64(%[second])", "%%ymm14", "%%ymm15", "l") \
  TALU_ADD_PAIR(token, "1", "%c[at]+32(%[second])", "%c[at]+96(%[second])", "%%ymm12", "%%ymm13", "h")
// Four columns, NUMBER times four after the first ones.
template <std::size_t NUMBER>
TALU_INLINE void add_to_two(const std::int16_t* first, const std::int16_t* second,
                            const std::byte* x, std::size_t stride, i32x16 (&sums)[2][2]) {
  __asm__("vmovdqu %c[at](%[first]), %%ymm8\n\t"
          "vmovdqu %c[at]+32(%[first]), %%ymm9\n\t"
          "vmovdqu %c[at]+64(%[first]), %%ymm10\n\t"
          "vmovdqu %c[at]+96(%[first]), %%ymm11\n\t"
          TALU_ADD_TO_TOKEN("a", "(%[x])")
          TALU_ADD_TO_TOKEN("b", "(%[x], %[stride])")
          : [a0l] "+x"(sums[0][0].low), [a0h] "+x"(sums[0][0].high),
            [a1l] "+x"(sums[0][1].low), [a1h] "+x"(sums[0][1].high),
            [b0l] "+x"(sums[1][0].low), [b0h] "+x"(sums[1][0].high),
            [b1l] "+x"(sums[1][1].low), [b1h] "+x"(sums[1][1].high)
          : [first] "r"(first), [second] "r"(second), [x] "r"(x), [stride] "r"(stride),
            [at] "i"(NUMBER * 128), [x_at] "i"(NUMBER * 8)
          : "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "memory");
}
#undef TALU_ADD_TO_TOKEN
#undef TALU_ADD_PAIR

// One column of two tiles for three tokens.
#define TALU_ADD_TO_TOKEN(token, x)                                            \
  "vbroadcastss %c[x_at]" x ", %%ymm15\n\t"                                   \
  "vfmadd231ps %%ymm12, %%ymm15, %[" token "0l]\n\t"                          \
  "vfmadd231ps %%ymm13, %%ymm15, %[" token "0h]\n\t"                          \
  "vfmadd231ps %%ymm14, %%ymm15, %[" token "1l]\n\t"                          \
  "vfmadd231ps %c[at]+32(%[second]), %%ymm15, %[" token "1h]\n\t"
template <std::size_t NUMBER>
TALU_INLINE void add_to_three(const float* first, const float* second, const float* x,
                              std::size_t stride, f32x16 (&sums)[3][2]) {
  __asm__("vmovups %c[at](%[first]), %%ymm12\n\t"
          "vmovups %c[at]+32(%[first]), %%ymm13\n\t"
          "vmovups %c[at](%[second]), %%ymm14\n\t"
          TALU_ADD_TO_TOKEN("a", "(%[x])")
          TALU_ADD_TO_TOKEN("b", "(%[x], %[stride])")
          TALU_ADD_TO_TOKEN("c", "(%[x], %[stride], 2)")
          : [a0l] "+x"(sums[0][0].low), [a0h] "+x"(sums[0][0].high),
            [a1l] "+x"(sums[0][1].low), [a1h] "+x"(sums[0][1].high),
            [b0l] "+x"(sums[1][0].low), [b0h] "+x"(sums[1][0].high),
            [b1l] "+x"(sums[1][1].low), [b1h] "+x"(sums[1][1].high),
            [c0l] "+x"(sums[2][0].low), [c0h] "+x"(sums[2][0].high),
            [c1l] "+x"(sums[2][1].low), [c1h] "+x"(sums[2][1].high)
          : [first] "r"(first), [second] "r"(second), [x] "r"(x), [stride] "r"(stride),
            [at] "i"(NUMBER * 64), [x_at] "i"(NUMBER * 4)
          : "xmm12", "xmm13", "xmm14", "xmm15", "memory");
}
#undef TALU_ADD_TO_TOKEN
// sums[token][tile] += tile · x. `stride` counts floats.
TALU_INLINE void add_columns(const float* const (&tiles)[2], std::size_t columns, const float* x,
                             std::size_t stride, f32x16 (&sums)[3][2]) {
  const float *first = tiles[0], *second = tiles[1];
  const float* const end = x + columns / 4 * 4;
  stride *= sizeof(float);
  for (; x != end; x += 4, first += 64, second += 64) {
    add_to_three<0>(first, second, x, stride, sums);
    add_to_three<1>(first, second, x, stride, sums);
    add_to_three<2>(first, second, x, stride, sums);
    add_to_three<3>(first, second, x, stride, sums);
  }
  for (std::size_t c = 0; c < columns % 4; ++c, ++x, first += 16, second += 16)
    add_to_three<0>(first, second, x, stride, sums);
}
#endif
// sums[token][tile] += tile · x for columns in groups of four.
template <std::size_t TILES, std::size_t TOKENS>
TALU_INLINE void add_products(const std::int16_t* const (&tiles)[TILES], std::size_t columns,
                              const std::byte* x, std::size_t stride,
                              i32x16 (&sums)[TOKENS][TILES]) {
  const std::byte* const end = x + columns * sizeof(std::int16_t);
#if !defined(__clang__)
  if constexpr (TOKENS == 2 && TILES == 2) {
    const std::int16_t *first = tiles[0], *second = tiles[1];
    for (; x + 8 < end; x += 16, first += 128, second += 128) {
      add_to_two<0>(first, second, x, stride, sums);
      add_to_two<1>(first, second, x, stride, sums);
    }
    if (x != end) add_to_two<0>(first, second, x, stride, sums);
    return;
  }
#endif
  const std::int16_t* now[TILES];
#pragma GCC unroll 2
  for (std::size_t r = 0; r < TILES; ++r) now[r] = tiles[r];
  for (; x != end; x += 8) {
    add_four_columns(now, x, stride, sums);
#pragma GCC unroll 2
    for (std::size_t r = 0; r < TILES; ++r) now[r] += 4 * kTileRows;
  }
}
TALU_INLINE f32x16 to_floats(i32x16 x) {
  return {_mm256_cvtepi32_ps(x.low), _mm256_cvtepi32_ps(x.high)};
}

// Codes of four columns of sixteen rows, one in a byte.
struct codes {
  __m256i low, high;
};
constexpr std::size_t kCodePanels[] = {4, 3, 2, 1};
constexpr std::size_t kUnrolledGroups = 8;  // of a part of a block
// Sums of products in 16 bits: a pair of the largest code and the largest activation fits.
constexpr int kLargestCode = 127;
constexpr std::size_t groups_before_overflow(int largest_code) {
  std::size_t groups = 1;
  while (groups < 8 && 4 * groups * static_cast<std::size_t>(largest_code) * 127 <= 32767) groups *= 2;
  return groups;
}
struct partial {
  __m256i low, high;
};
TALU_INLINE partial no_products() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }

template <int WIDTH>
TALU_INLINE codes load_codes(const std::byte* plane, std::size_t group) {
  if constexpr (WIDTH == 8) {
    const auto* const two = as_256(plane + group * 64);
    return {_mm256_loadu_si256(two), _mm256_loadu_si256(two + 1)};
  } else {
    constexpr std::size_t in_vector = 4 / WIDTH;  // groups
    const __m256i all = _mm256_loadu_si256(as_256(plane + group / in_vector * 32));
    const int shift = static_cast<int>(group % in_vector) * 2 * WIDTH;
    const __m256i mask = _mm256_set1_epi8((1 << WIDTH) - 1);
    return {_mm256_and_si256(_mm256_srli_epi16(all, shift), mask),
            _mm256_and_si256(_mm256_srli_epi16(all, shift + WIDTH), mask)};
  }
}
TALU_INLINE void store_codes(std::byte* to, codes x) {
  auto* const two = reinterpret_cast<__m256i*>(to);
  _mm256_storeu_si256(two, x.low);
  _mm256_storeu_si256(two + 1, x.high);
}
template <int SHIFT>
TALU_INLINE codes combine(codes low, codes high) {
  return {_mm256_or_si256(low.low, _mm256_slli_epi16(high.low, SHIFT)),
          _mm256_or_si256(low.high, _mm256_slli_epi16(high.high, SHIFT))};
}
TALU_INLINE codes look_up(codes x, const std::uint8_t (&table)[16]) {
  const __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128(as_128(table)));
  return {_mm256_shuffle_epi8(both, x.low), _mm256_shuffle_epi8(both, x.high)};
}
// sum + codes · x, for four numbers of x in 8 bits.
TALU_INLINE partial add_codes(codes w, const std::byte* x, partial sum) {
  const __m256i four = splat_32_bits(x);
  sum = {_mm256_add_epi16(sum.low, _mm256_maddubs_epi16(w.low, four)),
         _mm256_add_epi16(sum.high, _mm256_maddubs_epi16(w.high, four))};
  // Without this, GCC computes many products before it adds them, and stores them on the stack.
  __asm__ volatile("" : "+x"(sum.low), "+x"(sum.high));
  return sum;
}
TALU_INLINE i32x16 widen(partial x) {
  const __m256i one = _mm256_set1_epi16(1);
  return {_mm256_madd_epi16(x.low, one), _mm256_madd_epi16(x.high, one)};
}
TALU_INLINE i32x16 add(i32x16 a, i32x16 b) {
  return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
}
// Codes less 128, and their sizes.
struct signed_codes {
  codes value, size;
};
TALU_INLINE signed_codes less_128(codes x) {
  const __m256i bit = _mm256_set1_epi8(static_cast<char>(0x80));
  const codes value = {_mm256_xor_si256(x.low, bit), _mm256_xor_si256(x.high, bit)};
  return {value, {_mm256_abs_epi8(value.low), _mm256_abs_epi8(value.high)}};
}
// sum + w · x, for four numbers of x, of sizes below 128, as |w| · (x with the sign of w).
TALU_INLINE i32x16 add_signed(const signed_codes& w, const std::byte* x, i32x16 sum) {
  const __m256i four = splat_32_bits(x), one = _mm256_set1_epi16(1);
  const __m256i low = _mm256_maddubs_epi16(w.size.low, _mm256_sign_epi8(four, w.value.low));
  const __m256i high = _mm256_maddubs_epi16(w.size.high, _mm256_sign_epi8(four, w.value.high));
  sum = add(sum, {_mm256_madd_epi16(low, one), _mm256_madd_epi16(high, one)});
  __asm__ volatile("" : "+x"(sum.low), "+x"(sum.high));  // as in add_codes
  return sum;
}
TALU_INLINE i32x16 subtract(i32x16 a, std::int32_t b) {
  const __m256i all = _mm256_set1_epi32(b);
  return {_mm256_sub_epi32(a.low, all), _mm256_sub_epi32(a.high, all)};
}
TALU_INLINE f32x16 load_i8(const std::byte* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(as_128(p)))),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(as_128(p + 8))))};
}
TALU_INLINE f32x16 load_u8(const std::byte* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(as_128(p)))),
          _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(as_128(p + 8))))};
}
// To the nearest; NaN and values out of range become the smallest integer.
TALU_INLINE void store_i8(std::int8_t* p, f32x16 x) {
  const __m256i low = _mm256_cvtps_epi32(x.low), high = _mm256_cvtps_epi32(x.high);
  const __m256i mixed = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi16(_mm256_castsi256_si128(mixed), _mm256_extracti128_si256(mixed, 1)));
}


// Lane i becomes x[i] + x[i ^ STRIDE]; x[i ^ STRIDE] - x[i] if i has that bit.
template <int STRIDE>
TALU_INLINE __m256 butterfly(__m256 x) {
  __m256 other;
  if constexpr (STRIDE == 4)
    other = _mm256_permute2f128_ps(x, x, 1);
  else
    other = _mm256_permute_ps(x, STRIDE == 2 ? 0x4e : 0xb1);
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i signs = _mm256_slli_epi32(_mm256_and_si256(lanes, _mm256_set1_epi32(STRIDE)),
                                          STRIDE == 4 ? 29 : STRIDE == 2 ? 30 : 31);
  return _mm256_add_ps(other, _mm256_xor_ps(x, _mm256_castsi256_ps(signs)));
}
template <int STRIDE>
TALU_INLINE f32x16 butterfly(f32x16 x) {
  if constexpr (STRIDE == 8)
    return {_mm256_add_ps(x.low, x.high), _mm256_sub_ps(x.low, x.high)};
  else
    return {butterfly<STRIDE>(x.low), butterfly<STRIDE>(x.high)};
}
TALU_INLINE i32x16 load(const std::int32_t* p) {
  return {_mm256_loadu_si256(as_256(p)), _mm256_loadu_si256(as_256(p + 8))};
}
TALU_INLINE void store(std::int32_t* p, i32x16 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.low);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), x.high);
}
TALU_INLINE i32x16 splat_integer(std::int32_t x) {
  return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}
// Integer scales of sixteen rows, for both halves of a partial sum.
using scales = partial;
TALU_INLINE __m256i twice(__m128i eight) {
  const __m256i once = _mm256_cvtepu8_epi32(eight);
  return _mm256_or_si256(once, _mm256_slli_epi32(once, 16));
}
TALU_INLINE scales load_scales(const std::byte* p) {
  return {twice(_mm_loadl_epi64(as_128(p))), twice(_mm_loadl_epi64(as_128(p + 8)))};
}
TALU_INLINE i32x16 scaled(partial x, scales by) {
  return {_mm256_madd_epi16(x.low, by.low), _mm256_madd_epi16(x.high, by.high)};
}
// Pairs of bytes of sixteen rows times FACTOR, in 16 bits.
using pairs = partial;
template <int FACTOR>
TALU_INLINE pairs load_pairs(const std::byte* p) {
  const __m256i factor = _mm256_set1_epi16(FACTOR);
  const auto* const from = as_128(p);
  return {_mm256_mullo_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(from)), factor),
          _mm256_mullo_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(from + 1)), factor)};
}
// sum + the products with the pair at x.
TALU_INLINE i32x16 add_pairs(i32x16 sum, pairs w, const std::byte* x) {
  const __m256i pair = splat_32_bits(x);
  return add(sum, {_mm256_madd_epi16(w.low, pair), _mm256_madd_epi16(w.high, pair)});
}

// Clang does not know this feature by name.
bool has_half_precision() {
  unsigned a, b, c = 0, d;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
bool supported() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_half_precision();
}
constexpr char kName[] = "avx2";

#include "kernels.inc"

}  // namespace
const Kernels avx2_kernels = kernels;
}  // namespace talu
TALU_TARGET_END
#endif
