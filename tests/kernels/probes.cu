// Small kernels that ask the shim what CUDA would answer, and some that are wrong on purpose.
#include "cuda/primitives.cuh"

// The sums of a row and of its squares, one after the other through the same shared memory.
extern "C" __global__ void row_sums(const float* x, float* sums, int width) {
    __shared__ float scratch[32];
    float sum = 0, squares = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        const float value = x[blockIdx.x * width + i];
        sum += value;
        squares += value * value;
    }
    sum = dtrain::block_sum(sum, scratch);
    squares = dtrain::block_sum(squares, scratch);
    if (threadIdx.x == blockDim.x - 1) {
        sums[2 * blockIdx.x] = sum;
        sums[2 * blockIdx.x + 1] = squares;
    }
}

extern "C" __global__ void reverse_block(const int* x, int* out) {
    DT_DYNAMIC_SHARED(int, tile);
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void missing_barrier(const int* x, int* out) {
    __shared__ int tile[64];
    tile[threadIdx.x] = x[threadIdx.x];
    out[threadIdx.x] = tile[63 - threadIdx.x];
}

extern "C" __global__ void shuffles(int* out) {
    const int lane = threadIdx.x % 32;
    int* mine = out + threadIdx.x * 7;
    mine[0] = __shfl_sync(0xffffffffu, lane, 5);
    mine[1] = __shfl_up_sync(0xffffffffu, lane, 3);
    mine[2] = __shfl_down_sync(0xffffffffu, lane, 3);
    mine[3] = __shfl_xor_sync(0xffffffffu, lane, 9);
    mine[4] = __shfl_down_sync(0xffffffffu, lane, 1, 8);
    mine[5] = int(__shfl_sync(0xffffffffu, double(lane) / 2, 3, 4) * 2);
    mine[6] = int(__ballot_sync(0xffffffffu, lane % 3 == 0));
}

extern "C" __global__ void half_warps(int* out) {
    const int lane = threadIdx.x % 32;
    const unsigned mask = lane < 16 ? 0x0000ffffu : 0xffff0000u;
    int sum = lane;
    if (lane < 16) {
        for (int d = 8; d > 0; d /= 2) sum += __shfl_xor_sync(mask, sum, d);
    } else {
        sum = __any_sync(mask, lane == 20) + 2 * __all_sync(mask, lane > 15) + 4 * __all_sync(mask, lane > 16);
    }
    __syncwarp();
    out[threadIdx.x] = sum;
}

extern "C" __global__ void places(int* out) {
    unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    unsigned at = block * blockDim.x * blockDim.y * blockDim.z + thread;
    out[at] = threadIdx.x + 10 * threadIdx.y + 100 * threadIdx.z + 1000 * blockIdx.x + 10000 * blockIdx.y + 100000 * blockIdx.z;
}

extern "C" __global__ void atomics(int* counts, float* sum) {
    atomicAdd(&counts[0], 1);
    atomicMax(&counts[1], int(threadIdx.x));
    atomicMin(&counts[2], int(threadIdx.x));
    atomicCAS(&counts[3], 7, int(threadIdx.x));
    atomicExch(&counts[4], 9);
    atomicAdd(sum, 0.5f);
}

extern "C" __global__ void who_is_last(int* out) { *out = int(blockIdx.x * blockDim.x + threadIdx.x); }

extern "C" __global__ void unwritten_shared(float* out) {
    __shared__ float tile[32];
    if (threadIdx.x != 4 || blockIdx.x == 0) tile[threadIdx.x] = 1;
    __syncthreads();
    out[blockIdx.x * blockDim.x + threadIdx.x] = tile[threadIdx.x];
}

extern "C" __global__ void to_half_and_back(const float* x, float* half, float* bfloat, long long n) {
    for (long long i = dtrain::first_index(); i < n; i += dtrain::grid_stride()) {
        half[i] = dtrain::Element<__half>::load(dtrain::Element<__half>::store(x[i]));
        bfloat[i] = dtrain::Element<__nv_bfloat16>::load(dtrain::Element<__nv_bfloat16>::store(x[i]));
    }
}

// ---- wrong on a GPU

extern "C" __global__ void leaves_before_barrier() {
    if (threadIdx.x == 3) return;
    __syncthreads();
}

extern "C" __global__ void two_barriers() {
    if (threadIdx.x < 32) __syncthreads();
    else
        __syncthreads();
}

extern "C" __global__ void lane_missing(int* out) {
    if (threadIdx.x != 2) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
}

extern "C" __global__ void not_in_its_mask(int* out) { out[threadIdx.x] = __shfl_sync(0x0000ffffu, 1, 0); }

extern "C" __global__ void reads_outside_mask(int* out) {
    if (threadIdx.x < 16) out[threadIdx.x] = __shfl_down_sync(0x0000ffffu, 1, 8);
}

extern "C" __global__ void different_operations(int* out) {
    out[threadIdx.x] = threadIdx.x < 16 ? __shfl_xor_sync(0xffffffffu, 1, 1) : int(__ballot_sync(0xffffffffu, 1));
}
