/* Enough of CUDA's runtime for a plain C++ compiler to run this project's simple kernels on the CPU, one block after
 * the other, so that indices and sums can be tested (and watched by a sanitizer) where there is no GPU.
 */
#ifndef SWEEP_EMULATE_CUDA_RUNTIME_H
#define SWEEP_EMULATE_CUDA_RUNTIME_H
#include <stdint.h>

#include "block.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __shared__ static /* blocks come one after the other */

using cudaStream_t = void *;
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorUnknown = 999
};
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int *device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr which, int) {
  return *value = which == cudaDevAttrComputeCapabilityMajor ? 9 : 0, cudaSuccess;
}

struct alignas(16) float4 {
  float x, y, z, w;
};
struct Dim {
  unsigned x;
};
inline Dim blockIdx, blockDim;
inline struct {
  unsigned &x = emulate::index;
} threadIdx;

namespace emulate {
inline void launch(unsigned blocks, unsigned size, int, cudaStream_t, std::function<void()> kernel) {
  blockDim.x = size;
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) block(size, kernel);
}
}  // namespace emulate

inline void __syncthreads() { emulate::yield(); }
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulate::exchange_xor(value, mask);
}
template <class T>
T __shfl_down_sync(unsigned, T value, int step) {
  return emulate::exchange_down(value, step);
}
#endif
