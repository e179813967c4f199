// AVX-512 with products of bf16 and of integers, and the matrix registers of AMX: Intel's servers since
// Sapphire Rapids.
#include <type_traits>

#include "kernels.h"
#include "scalar.h"
#include "target_region.h"

#if defined(__x86_64__)
#define TALU_BF16_PRODUCTS 1
#define TALU_INTEGER_PRODUCTS 1
#define TALU_MATRIX_PRODUCTS 1
#include "targets/avx512_intrinsics.h"

TALU_TARGET_BEGIN(TALU_AMX_FEATURES)
namespace talu {
namespace {

#include "targets/avx512_primitives.h"
#include "targets/avx512_bf16_primitives.h"
#include "targets/amx_primitives.h"

bool supported() {
  return has_avx512() && has_bf16_products() && has_integer_products() && has_matrix_registers();
}
constexpr char kName[] = "amx";

#include "kernels.inc"

}  // namespace

const Kernels amx_kernels = kernels;

}  // namespace talu
TALU_TARGET_END
#endif
