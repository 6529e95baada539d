// Host twin of CUDA's header of this name: bfloat16 as storage, converted to and from float.
#pragma once

#include "scheduler.h"

struct __nv_bfloat16 { unsigned short bits; };

inline float __bfloat162float(__nv_bfloat16 b) { return shim::bit_cast<float>(unsigned(b.bits) << 16); }

// To the nearest, ties to even; NaN stays NaN.
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    unsigned word = shim::bit_cast<unsigned>(x);
    if (x != x) return {0x7fff};
    return {static_cast<unsigned short>((word + 0x7fffu + (word >> 16 & 1u)) >> 16)};
}
