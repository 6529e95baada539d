// How the CPU sources mark their functions, and which instruction set this machine runs.
#pragma once

#define DT_FUNCTION inline __attribute__((always_inline))

#if defined(__x86_64__)
#define DT_HAS_AVX2_PATH 1
#define DT_AVX2 __attribute__((target("avx2,fma")))     // compiled always, called only where the processor has both
#else
#define DT_HAS_AVX2_PATH 0
#define DT_AVX2
#endif

namespace dtrain {

// The portable body may use fused multiply-add where the compiler's own target has it (64-bit Arm).
#if defined(__FP_FAST_FMA) && defined(__FP_FAST_FMAF)
constexpr bool kBaselineFma = true;
#else
constexpr bool kBaselineFma = false;
#endif

DT_FUNCTION float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DT_FUNCTION double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }

// "avx2" or "portable"; DTRAIN_CPU=portable forces the second, for tests.
const char* instruction_set();
inline bool use_avx2() { return instruction_set()[0] == 'a'; }

}  // namespace dtrain
