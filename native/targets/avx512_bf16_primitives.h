// Primitives for products of bf16, shared by the AVX-512 targets that have them.

struct bf16x32 {
  __m512i v;
};

TALU_INLINE bf16x32 load_pairs(const std::uint16_t* p) { return {load_512(p)}; }
TALU_INLINE bf16x32 splat_pair(const std::uint16_t* p) {
  std::int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return {_mm512_set1_epi32(pair)};
}
// sum + a0 · b0 + a1 · b1 in each lane.
TALU_INLINE f32x16 add_products(bf16x32 a, bf16x32 b, f32x16 sum) {
  return {_mm512_dpbf16_ps(sum.v, (__m512bh)a.v, (__m512bh)b.v)};
}
