// AVX-512 with its byte, word, doubleword and short-vector parts: Intel since Skylake-SP, AMD
// since Zen 4.
#include "kernels.h"
#include "scalar.h"
#include "target_region.h"

#if defined(__x86_64__)
#include "targets/avx512_intrinsics.h"

TALU_TARGET_BEGIN(TALU_AVX512_FEATURES)
namespace talu {
namespace {

#include "targets/avx512_primitives.h"

bool supported() { return has_avx512(); }
constexpr char kName[] = "avx512";

#include "kernels.inc"

}  // namespace

const Kernels avx512_kernels = kernels;

}  // namespace talu
TALU_TARGET_END
#endif
