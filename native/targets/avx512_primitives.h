// Primitives for AVX-512 registers of sixteen floats, shared by the AVX-512 targets.

struct f32x16 {
  __m512 v;
};

// Rows of activations of one call of `multiply`, of which a cache holds a part. Weights that are unpacked
// for matrix registers are worth more of them.
#if TALU_MATRIX_PRODUCTS
constexpr std::size_t kTokensInCache = 192;
#else
constexpr std::size_t kTokensInCache = 96;
#endif
// Tokens multiplied by a tile at once, and sums in registers with several tiles.
constexpr std::size_t kPanels[] = {12, 8, 4, 2, 1};
constexpr std::size_t kSumsAtOnce = 24;
constexpr auto& kFloatPanels = kPanels;
constexpr std::size_t kFloatSumsAtOnce = kSumsAtOnce, kFloatColumnsAtOnce = 256;
constexpr auto& kIntegerPanels = kPanels;
constexpr std::size_t kIntegerTiles = 1;

TALU_INLINE f32x16 splat(float x) { return {_mm512_set1_ps(x)}; }
TALU_INLINE f32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
TALU_INLINE void store(float* p, f32x16 x) { _mm512_storeu_ps(p, x.v); }

TALU_INLINE __mmask16 lanes_below(std::size_t n) {
  return static_cast<__mmask16>((1u << n) - 1);
}
TALU_INLINE f32x16 load_first(const float* p, std::size_t n) {
  return {_mm512_maskz_loadu_ps(lanes_below(n), p)};
}
TALU_INLINE void store_first(float* p, f32x16 x, std::size_t n) {
  _mm512_mask_storeu_ps(p, lanes_below(n), x.v);
}

TALU_INLINE __m256i load_256(const std::uint16_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
TALU_INLINE void store_256(std::uint16_t* p, __m256i x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
}
TALU_INLINE f32x16 load_f16(const std::uint16_t* p) { return {_mm512_cvtph_ps(load_256(p))}; }
TALU_INLINE void store_f16(std::uint16_t* p, f32x16 x) {
  store_256(p, _mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
TALU_INLINE f32x16 load_bf16(const std::uint16_t* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_256(p)), 16))};
}
// To the nearest, ties to even; NaN stays NaN.
TALU_INLINE void store_bf16(std::uint16_t* p, f32x16 x) {
  const __m512i bits = _mm512_castps_si512(x.v), upper = _mm512_srli_epi32(bits, 16);
  const __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
  const __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, half), 16);
  const __m512i quiet = _mm512_or_si512(upper, _mm512_set1_epi32(0x40));
  const __mmask16 nan = _mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q);
  store_256(p, _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, nan, quiet)));
}

TALU_INLINE __m512i load_512(const std::uint16_t* p) {
  return _mm512_loadu_si512(reinterpret_cast<const __m512i*>(p));
}
// The first, or the second, numbers of sixteen pairs.
TALU_INLINE f32x16 load_first_of_pairs(const std::uint16_t* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(load_512(p), 16))};
}
TALU_INLINE f32x16 load_second_of_pairs(const std::uint16_t* p) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000));
  return {_mm512_castsi512_ps(_mm512_and_si512(load_512(p), upper))};
}

TALU_INLINE f32x16 add(f32x16 a, f32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
TALU_INLINE f32x16 subtract(f32x16 a, f32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
TALU_INLINE f32x16 multiply(f32x16 a, f32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
TALU_INLINE f32x16 divide(f32x16 a, f32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
TALU_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// NaN if x is NaN.
TALU_INLINE f32x16 at_least(float bound, f32x16 x) {
  return {_mm512_max_ps(_mm512_set1_ps(bound), x.v)};
}
TALU_INLINE f32x16 at_most(float bound, f32x16 x) {
  return {_mm512_min_ps(_mm512_set1_ps(bound), x.v)};
}
TALU_INLINE f32x16 larger(f32x16 a, f32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
// max(size, |x|) for sizes; infinity takes precedence over finite values, NaN over all values.
TALU_INLINE f32x16 larger_size(f32x16 size, f32x16 x) {
  const __m512i bits = _mm512_and_si512(_mm512_castps_si512(x.v), _mm512_set1_epi32(0x7fffffff));
  return {_mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(size.v), bits))};
}
// y, but 0 in the lanes where x < bound.
TALU_INLINE f32x16 zero_below(f32x16 x, float bound, f32x16 y) {
  const __mmask16 keep = _mm512_cmp_ps_mask(x.v, _mm512_set1_ps(bound), _CMP_NLT_UQ);
  return {_mm512_maskz_mov_ps(keep, y.v)};
}
TALU_INLINE f32x16 nearest_integer(f32x16 x) { return {_mm512_roundscale_ps(x.v, 0)}; }
// 2 to the n for integers n from -126 to 127.
TALU_INLINE f32x16 power_of_two(f32x16 n) {
  const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23))};
}

TALU_INLINE __m256 lower_half(__m512 x) { return _mm512_castps512_ps256(x); }
TALU_INLINE __m256 upper_half(__m512 x) {
  return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1));
}
TALU_INLINE float sum(f32x16 x) {
  const __m256 eight = _mm256_add_ps(lower_half(x.v), upper_half(x.v));
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
TALU_INLINE float largest(f32x16 x) {
  const __m256 eight = _mm256_max_ps(lower_half(x.v), upper_half(x.v));
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

// Sixteen sums.
struct i32x16 {
  __m512i v;
};

// To the nearest; NaN and values out of range become the smallest integer. Of four, the second and
// third are swapped.
TALU_INLINE void store_i16(std::int16_t* p, f32x16 x) {
  __m256i rounded = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x.v));
  rounded = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(rounded, 0xd8), 0xd8);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), rounded);
}
TALU_INLINE __m512i splat_32_bits(const void* p) {
  std::int32_t bits;
  __builtin_memcpy(&bits, p, sizeof bits);
  return _mm512_set1_epi32(bits);
}
// Without crossed products (formats/i16.h), because additions and multiplications share ports.
TALU_INLINE std::int32_t crossed_sum(const std::int16_t*, std::size_t) { return 0; }
TALU_INLINE i32x16 first_sum(const void*, const void*) { return {_mm512_setzero_si512()}; }
// sum + a0 · b0 + a1 · b1 in each lane.
TALU_INLINE __m512i add_pairs(__m512i a, __m512i b, __m512i sum) {
#if TALU_INTEGER_PRODUCTS
  return _mm512_dpwssd_epi32(sum, a, b);
#else
  return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
#endif
}
// sums[token] += tile · x for columns in groups of four.
template <std::size_t TOKENS>
TALU_INLINE void add_products(const std::int16_t* const (&tiles)[1], std::size_t columns,
                              const std::byte* x, std::size_t stride,
                              i32x16 (&sums)[TOKENS][1]) {
#pragma GCC unroll 2
  for (std::size_t column = 0; column < columns; column += 4) {
    const std::int16_t* const weights = tiles[0] + column * kTileRows;
    const std::byte* const now = x + column * sizeof(std::int16_t);
    const __m512i even = _mm512_loadu_si512(weights), odd = _mm512_loadu_si512(weights + 32);
#pragma GCC unroll 12
    for (std::size_t t = 0; t < TOKENS; ++t) {
      __m512i& sum = sums[t][0].v;
      sum = add_pairs(even, splat_32_bits(now + t * stride), sum);
      sum = add_pairs(odd, splat_32_bits(now + t * stride + 4), sum);
    }
  }
}
TALU_INLINE f32x16 to_floats(i32x16 x) { return {_mm512_cvtepi32_ps(x.v)}; }

// Codes of four columns of sixteen rows, one in a byte.
struct codes {
  __m512i v;
};
constexpr std::size_t kCodePanels[] = {8, 4, 2, 1};
constexpr std::size_t kUnrolledGroups = 8;  // of a part of a block
struct partial {
  __m512i v;
};
TALU_INLINE partial no_products() { return {_mm512_setzero_si512()}; }

TALU_INLINE __m256i load_half(const std::byte* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
template <int WIDTH>
TALU_INLINE codes load_codes(const std::byte* plane, std::size_t group) {
  if constexpr (WIDTH == 8) {
    return {_mm512_loadu_si512(plane + group * 64)};
  } else {
    constexpr std::size_t in_vector = 4 / WIDTH;  // groups
    const __m512i all = _mm512_broadcast_i64x4(load_half(plane + group / in_vector * 32));
    const auto shift = static_cast<short>(group % in_vector * 2 * WIDTH);
    const __m512i shifts = _mm512_inserti64x4(_mm512_set1_epi16(shift),
                                              _mm256_set1_epi16(shift + WIDTH), 1);
    const __m512i both = _mm512_srlv_epi16(all, shifts);
    return {_mm512_and_si512(both, _mm512_set1_epi8((1 << WIDTH) - 1))};
  }
}
TALU_INLINE void store_codes(std::byte* to, codes x) { _mm512_storeu_si512(to, x.v); }
template <int SHIFT>
TALU_INLINE codes combine(codes low, codes high) {
  return {_mm512_or_si512(low.v, _mm512_slli_epi16(high.v, SHIFT))};
}
TALU_INLINE codes look_up(codes x, const std::uint8_t (&table)[16]) {
  const __m128i sixteen = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(sixteen), x.v)};
}
#if TALU_INTEGER_PRODUCTS
// Sums of products in 32 bits.
constexpr int kLargestCode = 255;
constexpr std::size_t groups_before_overflow(int) { return 8; }
// sum + codes · x, for four numbers of x in 8 bits.
TALU_INLINE partial add_codes(codes w, const std::byte* x, partial sum) {
  return {_mm512_dpbusd_epi32(sum.v, w.v, splat_32_bits(x))};
}
TALU_INLINE i32x16 widen(partial x) { return {x.v}; }
#else
// Sums of products in 16 bits: a pair of the largest code and the largest activation fits.
constexpr int kLargestCode = 127;
constexpr std::size_t groups_before_overflow(int largest_code) {
  std::size_t groups = 1;
  while (groups < 8 && 4 * groups * static_cast<std::size_t>(largest_code) * 127 <= 32767) groups *= 2;
  return groups;
}
// sum + codes · x, for four numbers of x in 8 bits.
TALU_INLINE partial add_codes(codes w, const std::byte* x, partial sum) {
  return {_mm512_add_epi16(sum.v, _mm512_maddubs_epi16(w.v, splat_32_bits(x)))};
}
TALU_INLINE i32x16 widen(partial x) { return {_mm512_madd_epi16(x.v, _mm512_set1_epi16(1))}; }
#endif
TALU_INLINE i32x16 add(i32x16 a, i32x16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
#if TALU_INTEGER_PRODUCTS
// Never used: no product overflows.
TALU_INLINE codes less_128(codes x) { return x; }
TALU_INLINE i32x16 add_signed(codes, const std::byte*, i32x16 sum) { return sum; }
#else
// Codes less 128: their sizes, and which of them are negative.
struct signed_codes {
  __m512i size;
  __mmask64 negative;
};
TALU_INLINE signed_codes less_128(codes x) {
  const __m512i value = _mm512_xor_si512(x.v, _mm512_set1_epi8(static_cast<char>(0x80)));
  return {_mm512_abs_epi8(value), _mm512_movepi8_mask(value)};
}
// sum + w · x, for four numbers of x, of sizes below 128, as |w| · (x with the sign of w).
TALU_INLINE i32x16 add_signed(const signed_codes& w, const std::byte* x, i32x16 sum) {
  const __m512i four = splat_32_bits(x);
  const __m512i turned = _mm512_mask_sub_epi8(four, w.negative, _mm512_setzero_si512(), four);
  const __m512i products = _mm512_maddubs_epi16(w.size, turned);
  return {_mm512_add_epi32(sum.v, _mm512_madd_epi16(products, _mm512_set1_epi16(1)))};
}
#endif
TALU_INLINE i32x16 subtract(i32x16 a, std::int32_t b) {
  return {_mm512_sub_epi32(a.v, _mm512_set1_epi32(b))};
}
TALU_INLINE __m128i load_quarter(const std::byte* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
TALU_INLINE f32x16 load_i8(const std::byte* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_quarter(p)))};
}
TALU_INLINE f32x16 load_u8(const std::byte* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load_quarter(p)))};
}
// To the nearest; NaN and values out of range become the smallest integer.
TALU_INLINE void store_i8(std::int8_t* p, f32x16 x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x.v)));
}

// Lane i becomes x[i] + x[i ^ STRIDE]; x[i ^ STRIDE] - x[i] if i has that bit.
template <int STRIDE>
TALU_INLINE f32x16 butterfly(f32x16 x) {
  __m512 other;
  if constexpr (STRIDE >= 4)
    other = _mm512_shuffle_f32x4(x.v, x.v, STRIDE == 8 ? 0x4e : 0xb1);
  else
    other = _mm512_permute_ps(x.v, STRIDE == 2 ? 0x4e : 0xb1);
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  constexpr int kShift = STRIDE == 8 ? 28 : STRIDE == 4 ? 29 : STRIDE == 2 ? 30 : 31;
  const __m512i signs =
      _mm512_slli_epi32(_mm512_and_si512(lanes, _mm512_set1_epi32(STRIDE)), kShift);
  const __m512i turned = _mm512_xor_si512(_mm512_castps_si512(x.v), signs);
  return {_mm512_add_ps(other, _mm512_castsi512_ps(turned))};
}
TALU_INLINE i32x16 load(const std::int32_t* p) { return {_mm512_loadu_si512(p)}; }
TALU_INLINE void store(std::int32_t* p, i32x16 x) { _mm512_storeu_si512(p, x.v); }
TALU_INLINE i32x16 splat_integer(std::int32_t x) { return {_mm512_set1_epi32(x)}; }
// Integer scales of sixteen rows, for partial sums.
using scales = partial;
#if TALU_INTEGER_PRODUCTS
TALU_INLINE scales load_scales(const std::byte* p) {
  return {_mm512_cvtepu8_epi32(load_quarter(p))};
}
TALU_INLINE i32x16 scaled(partial x, scales by) { return {_mm512_mullo_epi32(x.v, by.v)}; }
#else
TALU_INLINE scales load_scales(const std::byte* p) {
  const __m512i once = _mm512_cvtepu8_epi32(load_quarter(p));
  return {_mm512_or_si512(once, _mm512_slli_epi32(once, 16))};
}
TALU_INLINE i32x16 scaled(partial x, scales by) { return {_mm512_madd_epi16(x.v, by.v)}; }
#endif
// Pairs of bytes of sixteen rows times FACTOR, in 16 bits.
using pairs = partial;
template <int FACTOR>
TALU_INLINE pairs load_pairs(const std::byte* p) {
  return {_mm512_mullo_epi16(_mm512_cvtepu8_epi16(load_half(p)), _mm512_set1_epi16(FACTOR))};
}
// sum + the products with the pair at x.
TALU_INLINE i32x16 add_pairs(i32x16 sum, pairs w, const std::byte* x) {
  return {add_pairs(w.v, splat_32_bits(x), sum.v)};
}
