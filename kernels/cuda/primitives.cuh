// What the CUDA kernels are built from, and the only file with lines that the CUDA compiler alone sees.
//
// Everything else in this folder is read by two compilers: NVRTC (or nvcc), and g++ with kernels/shim standing for CUDA.
// So PTX, tensor cores and whatever else the host cannot compile live here, between `#if defined(__CUDACC__)` and its
// `#endif`, each with a host twin in kernels/shim; a test lists and counts those lines.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define DT_FUNCTION __device__ __forceinline__

#if defined(__CUDACC__)
#define DT_DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

namespace dtrain {

DT_FUNCTION float fused(float a, float b, float c) { return fmaf(a, b, c); }
DT_FUNCTION double fused(double a, double b, double c) { return fma(a, b, c); }

// An element type's arithmetic: what it computes in, and the way there and back. Half types compute in float.
template <class T> struct Element {
    using Compute = T;
    static DT_FUNCTION T load(T value) { return value; }
    static DT_FUNCTION T store(T value) { return value; }
};
template <> struct Element<__half> {
    using Compute = float;
    static DT_FUNCTION float load(__half value) { return __half2float(value); }
    static DT_FUNCTION __half store(float value) { return __float2half_rn(value); }
};
template <> struct Element<__nv_bfloat16> {
    using Compute = float;
    static DT_FUNCTION float load(__nv_bfloat16 value) { return __bfloat162float(value); }
    static DT_FUNCTION __nv_bfloat16 store(float value) { return __float2bfloat16_rn(value); }
};

// A thread's first index into a one-dimensional grid, and its stride: a grid of any size covers an array of any length.
DT_FUNCTION long long first_index() { return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; }
DT_FUNCTION long long grid_stride() { return static_cast<long long>(gridDim.x) * blockDim.x; }

// The sum over a warp, in every lane; all 32 lanes call it.
template <class T> DT_FUNCTION T warp_sum(T value) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

// The sum over a block of whole warps, in every thread; all threads call it with the same 32 elements of shared memory.
template <class T> DT_FUNCTION T block_sum(T value, T* scratch) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    value = warp_sum(value);
    if (lane == 0) scratch[warp] = value;
    __syncthreads();
    value = warp_sum(lane < warps ? scratch[lane] : T(0));
    __syncthreads();                                    // the next call may write scratch
    return value;
}

}  // namespace dtrain
