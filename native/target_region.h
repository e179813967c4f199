// Compiles the code between BEGIN and END for one kind of processor. All includes must precede
// BEGIN, so that no library function is compiled for a processor that may not be present.
#pragma once

#define TALU_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define TALU_TARGET_BEGIN(features) \
  TALU_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define TALU_TARGET_END TALU_PRAGMA(clang attribute pop)
#else
#define TALU_TARGET_BEGIN(features) \
  TALU_PRAGMA(GCC push_options) TALU_PRAGMA(GCC target(features))
#define TALU_TARGET_END TALU_PRAGMA(GCC pop_options)
#endif

#define TALU_INLINE static inline __attribute__((always_inline))
