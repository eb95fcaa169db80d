/* How a block walks a panel, and how it reads and writes four entries.
 *
 * A tile is 64 rows x 512 columns: 128 threads with four columns each, which go down the rows in stages of 16. Column sums
 * stay with their thread; row sums meet in shared memory once a stage. Tile (m, n) is block m tiles_n + n.
 */
#ifndef SWEEP_CUDA_GRID_CUH
#define SWEEP_CUDA_GRID_CUH
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "../panel.h"
#include "element.h"

namespace sweep {

constexpr int threads = 128, each = 4, tile_cols = threads * each, tile_rows = 64, stage_rows = 16;
/* Eight threads sum one row of a stage; this pitch puts the four rows of a warp on different banks. */
constexpr int row_threads = threads / stage_rows, pitch = threads + row_threads;

template <class T>
struct View {
  T *panel;
  int64_t rows, cols, stride, positive;
  int64_t tiles_n;
};

inline int64_t tiles(int64_t n, int64_t tile) { return (n + tile - 1) / tile; }

template <class T>
View<T> view(const sweep_panel *panel) {
  return {static_cast<T *>(panel->panel), panel->rows, panel->cols, panel->stride, panel->positive,
          tiles(panel->cols, tile_cols)};
}

inline cudaStream_t stream_of(const sweep_panel *panel) { return static_cast<cudaStream_t>(panel->stream); }

/* Blocks for a count, 0 where the grid cannot hold it. */
inline unsigned grid_size(int64_t blocks) { return blocks > 0 && blocks <= 0x7fffffff ? unsigned(blocks) : 0; }
inline int launched() { return int(cudaGetLastError()); }

inline bool aligned(const void *pointer, int64_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

/* The thread's q-th column. With `wide` they are neighbours, otherwise neighbours belong to neighbouring threads. */
template <bool wide>
__device__ __forceinline__ int64_t column(int64_t first, int q) {
  return wide ? first + each * int(threadIdx.x) + q : first + int(threadIdx.x) + threads * q;
}

/* Four entries of a row; those beyond `cols` are 0. */
template <bool wide, class T>
__device__ __forceinline__ void load(const T *row, int64_t first, int64_t cols, T (&value)[each]) {
  if constexpr (wide && sizeof(T) == 4) {
    if (column<wide>(first, each - 1) < cols) {
      float4 four = *reinterpret_cast<const float4 *>(row + column<wide>(first, 0));
      value[0] = four.x, value[1] = four.y, value[2] = four.z, value[3] = four.w;
      return;
    }
  }
#pragma unroll
  for (int q = 0; q < each; ++q) {
    int64_t j = column<wide>(first, q);
    value[q] = j < cols ? row[j] : T(0);
  }
}

__device__ __forceinline__ void convert(float g, float *out) { *out = g; }
__device__ __forceinline__ void convert(double g, double *out) { *out = g; }
__device__ __forceinline__ void convert(float g, __nv_bfloat16 *out) { *out = __float2bfloat16_rn(g); }
__device__ __forceinline__ void convert(float g, __half *out) { *out = __float2half_rn(scaled_gradient(g)); }

template <bool wide, class T, class Out>
__device__ __forceinline__ void store(Out *row, int64_t first, int64_t cols, const T (&value)[each]) {
  if constexpr (wide && sizeof(Out) <= 4) {
    if (column<wide>(first, each - 1) < cols) {
      struct alignas(sizeof(Out) * each) Four {
        Out at[each];
      } four;
#pragma unroll
      for (int q = 0; q < each; ++q) convert(value[q], &four.at[q]);
      *reinterpret_cast<Four *>(row + column<wide>(first, 0)) = four;
      return;
    }
  }
#pragma unroll
  for (int q = 0; q < each; ++q) {
    int64_t j = column<wide>(first, q);
    if (j < cols) convert(value[q], &row[j]);
  }
}

/* Whether four entries may move at once, of the panel and of what is written. */
template <class T>
bool wide_panel(const sweep_panel *panel) {
  return sizeof(T) == 4 && panel->stride % each == 0 && aligned(panel->panel, sizeof(T) * each);
}
template <class T>
bool wide_output(const sweep_panel *panel) {
  if (panel->output_kind == SWEEP_IN_PLACE) return wide_panel<T>(panel);
  return wide_panel<T>(panel) && panel->output_stride % each == 0 && aligned(panel->output, 2 * each);
}

}  // namespace sweep
#endif
