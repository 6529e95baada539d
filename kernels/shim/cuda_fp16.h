// Host twin of CUDA's header of this name: IEEE half precision as storage, converted to and from float.
#pragma once

#include "scheduler.h"

struct __half { unsigned short bits; };

inline float __half2float(__half h) {
    unsigned sign = unsigned(h.bits & 0x8000u) << 16, exponent = h.bits >> 10 & 31u, fraction = h.bits & 0x3ffu;
    if (exponent == 0) return shim::bit_cast<float>(sign | shim::bit_cast<unsigned>(float(fraction) * 0x1p-24f));
    unsigned wide = exponent == 31 ? 255u : exponent + 112u;
    return shim::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

// To the nearest, ties to even. A power of two added and taken away rounds where half precision would.
inline __half __float2half_rn(float x) {
    unsigned word = shim::bit_cast<unsigned>(x), sign = word >> 16 & 0x8000u;
    float magnitude = shim::bit_cast<float>(word & 0x7fffffffu);
    if (magnitude != magnitude) return {static_cast<unsigned short>(sign | 0x7fffu)};
    if (magnitude >= 65520.0f) return {static_cast<unsigned short>(sign | 0x7c00u)};
    if (magnitude < 0x1p-14f) return {static_cast<unsigned short>(sign | unsigned(magnitude * 0x1p24f + 0x1p23f - 0x1p23f))};
    unsigned m = shim::bit_cast<unsigned>(magnitude);
    return {static_cast<unsigned short>(sign | (((m + 0xfffu + (m >> 13 & 1u)) >> 13) - (112u << 10)))};
}
