// AVX-512 with products of bf16 and of integers: Intel since Cooper Lake, AMD since Zen 4.
#include "kernels.h"
#include "scalar.h"
#include "target_region.h"

#if defined(__x86_64__)
#define TALU_BF16_PRODUCTS 1
#define TALU_INTEGER_PRODUCTS 1
#include "targets/avx512_intrinsics.h"

TALU_TARGET_BEGIN(TALU_AVX512_BF16_FEATURES)
namespace talu {
namespace {

#include "targets/avx512_primitives.h"

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

bool supported() { return has_avx512() && has_bf16_products() && has_integer_products(); }
constexpr char kName[] = "avx512bf16";

#include "kernels.inc"

}  // namespace

const Kernels avx512bf16_kernels = kernels;

}  // namespace talu
TALU_TARGET_END
#endif
