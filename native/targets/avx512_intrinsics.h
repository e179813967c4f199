// Includes the compiler's AVX-512 intrinsics, or an emulation to test these targets on a processor
// without AVX-512.
#pragma once

#if TALU_EMULATE_AVX512
#include "targets/avx512_emulation.h"
#else
#include <cpuid.h>
#include <immintrin.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

// GCC's own headers begin some results with registers left undefined on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#define TALU_AVX512_FEATURES "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"
#define TALU_AVX512_BF16_FEATURES "avx512bf16,avx512vnni," TALU_AVX512_FEATURES
#define TALU_AMX_FEATURES "amx-tile,amx-int8,amx-bf16," TALU_AVX512_BF16_FEATURES

namespace talu {

TALU_INLINE bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
TALU_INLINE bool has_bf16_products() { return __builtin_cpu_supports("avx512bf16"); }
TALU_INLINE bool has_integer_products() { return __builtin_cpu_supports("avx512vnni"); }
// Asks the system for the registers of AMX, which a process has to do before it uses them
// (docs.kernel.org/arch/x86/xstate.html).
TALU_INLINE bool has_matrix_registers() {
#if defined(__linux__)
  constexpr unsigned kBf16 = 1u << 22, kTiles = 1u << 24, kBytes = 1u << 25, kAll = kBf16 | kTiles | kBytes;
  constexpr long kRequest = 0x1023, kTileData = 18;
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kAll) == kAll &&
         syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace talu
#endif
