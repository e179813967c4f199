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

#include "targets/avx512_bf16_primitives.h"

bool supported() { return has_avx512() && has_bf16_products() && has_integer_products(); }
constexpr char kName[] = "avx512bf16";

#include "kernels.inc"

}  // namespace

const Kernels avx512bf16_kernels = kernels;

}  // namespace talu
TALU_TARGET_END
#endif
