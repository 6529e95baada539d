// CUDA C++ on the CPU, one block at a time: what a .cu file finds where nvcc is not its compiler.
//
// Included before the kernel's source. Threads of a block are fibers (scheduler.h), so barriers and warp operations
// really wait, and the order in which threads run between them can be chosen. Stricter than a GPU where a GPU is
// silent: divergent barriers, lanes missing from a warp operation and shared memory read before it was written show.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <math.h>

#include "scheduler.h"

// `__global__` is left standing: the builder looks for it, and removes it.
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("shim_shared")))       // one block runs at a time; poisoned before each

#define DT_DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(shim::dynamic_shared)

using std::max;
using std::min;

// ---- barriers and warp operations; each knows its line, for messages

#define __syncthreads() shim::barrier(__LINE__)
#define __syncwarp(...) shim::sync_warp(__LINE__, ##__VA_ARGS__)
#define __shfl_sync(...) shim::shuffle_index(__LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) shim::shuffle_up(__LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) shim::shuffle_down(__LINE__, __VA_ARGS__)
#define __shfl_xor_sync(...) shim::shuffle_xor(__LINE__, __VA_ARGS__)
#define __ballot_sync(...) shim::ballot(__LINE__, __VA_ARGS__)
#define __any_sync(mask, predicate) (shim::ballot(__LINE__, mask, predicate) != 0)
#define __all_sync(mask, predicate) (shim::ballot(__LINE__, mask, predicate) == (mask))

namespace shim {

constexpr unsigned kMaxShared = 227 << 10;                      // a block's limit on sm_90
alignas(128) static char dynamic_shared[kMaxShared];

constexpr unsigned kFullWarp = 0xffffffffu;

inline void sync_warp(int line, unsigned mask = kFullWarp) { exchange("__syncwarp", line, mask, 0); }

// The value that `source` gave, or our own where the source is outside our part of `width` lanes.
template <class T> T shuffle(const char* name, int line, unsigned mask, T value, int source, int width) {
    static_assert(sizeof(T) <= 8, "a shuffle moves values of at most 8 bytes");
    std::uint64_t word = 0;
    std::memcpy(&word, &value, sizeof(T));
    const WarpOperation done = exchange(name, line, mask, word);
    int first = lane() / width * width;
    if (source < first || source >= first + width) return value;
    if (!(mask >> source & 1u)) fail(name, line, "reads a lane that is not in its mask");
    std::memcpy(&value, &done.words[source], sizeof(T));
    return value;
}

template <class T> T shuffle_index(int line, unsigned mask, T value, int source, int width = 32) {
    return shuffle("__shfl_sync", line, mask, value, lane() / width * width + (source & (width - 1)), width);
}
template <class T> T shuffle_up(int line, unsigned mask, T value, unsigned delta, int width = 32) {
    return shuffle("__shfl_up_sync", line, mask, value, lane() - int(delta), width);
}
template <class T> T shuffle_down(int line, unsigned mask, T value, unsigned delta, int width = 32) {
    return shuffle("__shfl_down_sync", line, mask, value, lane() + int(delta), width);
}
template <class T> T shuffle_xor(int line, unsigned mask, T value, int bits, int width = 32) {
    return shuffle("__shfl_xor_sync", line, mask, value, lane() ^ bits, width);
}

inline unsigned ballot(int line, unsigned mask, int predicate) {
    const WarpOperation done = exchange("a vote", line, mask, predicate != 0);
    unsigned result = 0;
    for (int i = 0; i < 32; ++i) result |= unsigned((mask >> i & 1u) && done.words[i]) << i;
    return result;
}

}  // namespace shim

// ---- atomics: fibers switch only where they wait, so plain arithmetic is atomic

template <class T> T atomicAdd(T* p, T value) { T old = *p; *p = old + value; return old; }
template <class T> T atomicMax(T* p, T value) { T old = *p; *p = old > value ? old : value; return old; }
template <class T> T atomicMin(T* p, T value) { T old = *p; *p = old < value ? old : value; return old; }
template <class T> T atomicExch(T* p, T value) { T old = *p; *p = value; return old; }
template <class T> T atomicCAS(T* p, T expected, T value) { T old = *p; if (old == expected) *p = value; return old; }
