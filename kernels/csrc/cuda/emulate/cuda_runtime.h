/* Enough of CUDA's runtime for a plain C++ compiler to run this project's simple kernels on the CPU, one block after
 * the other, so that indices and sums can be tested (and watched by a sanitizer) where there is no GPU.
 *
 * Threads of a block are coroutines that run in turn up to the next barrier or shuffle. That finds wrong indices and
 * wrong formulas, but no races, no misuse of memory spaces, and nothing that depends on the hardware.
 */
#ifndef SWEEP_EMULATE_CUDA_RUNTIME_H
#define SWEEP_EMULATE_CUDA_RUNTIME_H
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <functional>
#include <memory>
#include <vector>

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
inline Dim threadIdx, blockIdx, blockDim;

namespace emulate {

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool done = true;
};
inline std::vector<Thread> threads;
inline ucontext_t scheduler;
inline std::function<void()> kernel;
inline double lanes[1024];

inline void yield() {
  const unsigned me = threadIdx.x;
  swapcontext(&threads[me].context, &scheduler);
}
inline void entry() {
  kernel();
  threads[threadIdx.x].done = true;
  swapcontext(&threads[threadIdx.x].context, &scheduler);
}

inline void launch(unsigned blocks, unsigned size, int, cudaStream_t, std::function<void()> body) {
  constexpr size_t stack = 256 << 10;
  kernel = std::move(body);
  blockDim.x = size;
  if (threads.size() < size) threads.resize(size);
  for (unsigned block = 0; block < blocks; ++block) {
    blockIdx.x = block;
    for (unsigned t = 0; t < size; ++t) {
      Thread &thread = threads[t];
      if (!thread.stack) thread.stack.reset(new char[stack]);
      getcontext(&thread.context);
      thread.context.uc_stack.ss_sp = thread.stack.get();
      thread.context.uc_stack.ss_size = stack;
      thread.context.uc_link = nullptr;
      thread.done = false;
      makecontext(&thread.context, entry, 0);
    }
    for (bool running = true; running;) {
      running = false;
      for (unsigned t = 0; t < size; ++t) {
        if (threads[t].done) continue;
        threadIdx.x = t;
        swapcontext(&scheduler, &threads[t].context);
        running = running || !threads[t].done;
      }
    }
  }
}

/* The value of thread `from`; the second turn keeps a quick thread from overwriting what a slow one has yet to read. */
template <class T>
T exchange(T value, unsigned from) {
  memcpy(&lanes[threadIdx.x], &value, sizeof value);
  yield();
  memcpy(&value, &lanes[from], sizeof value);
  yield();
  return value;
}

}  // namespace emulate

inline void __syncthreads() { emulate::yield(); }
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulate::exchange(value, threadIdx.x ^ unsigned(mask));
}
template <class T>
T __shfl_down_sync(unsigned, T value, int step) {
  const unsigned lane = threadIdx.x % 32 + unsigned(step);
  return emulate::exchange(value, lane < 32 ? threadIdx.x + unsigned(step) : threadIdx.x);
}
#endif
