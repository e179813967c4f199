// Includes the compiler's AVX-512 intrinsics, or an emulation to test these targets on a processor
// without AVX-512.
#pragma once

#if TALU_EMULATE_AVX512
#include "targets/avx512_emulation.h"
#else
#include <immintrin.h>

// GCC's own headers begin some results with registers left undefined on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#define TALU_AVX512_FEATURES "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"
#define TALU_AVX512_BF16_FEATURES "avx512bf16,avx512vnni," TALU_AVX512_FEATURES

namespace talu {

TALU_INLINE bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
TALU_INLINE bool has_bf16_products() { return __builtin_cpu_supports("avx512bf16"); }
TALU_INLINE bool has_integer_products() { return __builtin_cpu_supports("avx512vnni"); }

}  // namespace talu
#endif
