/* The second half of every sum: partial sums from the tiles, added in the order of the tiles in float64. */
#ifndef SWEEP_CUDA_JOIN_CUH
#define SWEEP_CUDA_JOIN_CUH
#include "grid.cuh"

namespace sweep {
namespace {

constexpr int wide_block = 1024;

/* The total of `value` over a block, known to thread 0; the same order every time. */
__device__ __forceinline__ double block_sum(double value, double *shared) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < int(blockDim.x) / 32; ++warp) value += shared[warp];
  }
  __syncthreads();
  return value;
}

/* sum[i] (+)= parts[0][i] + parts[1][i] + ..., in this order; `width` is from part to part. */
template <class T>
__global__ void __launch_bounds__(threads)
    join_sums_kernel(int64_t n, int64_t width, int64_t count, const T *parts, double *sum, bool onto) {
  const int64_t i = int64_t(blockIdx.x) * threads + threadIdx.x;
  if (i >= n) return;
  double total = 0;
#pragma unroll 4
  for (int64_t part = 0; part < count; ++part) total += double(parts[part * width + i]);
  sum[i] = onto ? sum[i] + total : total;
}

/* Pairs (loss, slope) into the scalars. */
__global__ void __launch_bounds__(wide_block)
    sigmoid_join_kernel(sweep_scalars *scalars, int64_t count, const double *parts, bool slopes) {
  __shared__ double shared[wide_block / 32];
  double loss = 0, slope = 0;
  for (int64_t part = threadIdx.x; part < count; part += wide_block) {
    loss += parts[2 * part], slope += parts[2 * part + 1];
  }
  loss = block_sum(loss, shared);
  slope = block_sum(slope, shared);
  if (threadIdx.x != 0) return;
  scalars->loss += loss;
  if (slopes) scalars->slope_sum += slope;
}

}  // namespace
}  // namespace sweep
#endif
