/* How a block walks a panel, and how it reads and writes four entries.
 *
 * A tile is 64 rows x 512 columns: 128 threads with four columns each, which go down the rows in stages of 16. Column
 * sums stay with their thread; row sums meet in shared memory once a stage. Tile (m, n) is block m tiles_n + n.
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

/* The thread's q-th column within the tile. With `wide` they are neighbours, otherwise neighbours belong to
 * neighbouring threads. */
template <bool wide>
__device__ __forceinline__ int place(int q) {
  return wide ? each * int(threadIdx.x) + q : int(threadIdx.x) + threads * q;
}

/* A block's tile: entries that it holds, and where a row's positive is. Within a tile 32 bits do. */
struct Tile {
  int64_t m, n, row, col; /* its place among tiles, and that of its first entry */
  int rows, cols;
  template <class T>
  __device__ __forceinline__ explicit Tile(const View<T> &view)
      : m(blockIdx.x / view.tiles_n), n(blockIdx.x % view.tiles_n), row(m * tile_rows), col(n * tile_cols) {
    rows = view.rows - row < tile_rows ? int(view.rows - row) : tile_rows;
    cols = view.cols - col < tile_cols ? int(view.cols - col) : tile_cols;
  }
  /* Columns of row r: none below the last row. */
  __device__ __forceinline__ int width(int r) const { return r < rows ? cols : 0; }
  /* Column within the tile of row r's positive, -1 if it is elsewhere. */
  __device__ __forceinline__ int positive(int r, int64_t first) const {
    const int64_t j = row + r + first - col;
    return j >= 0 && j < width(r) ? int(j) : -1;
  }
};

/* Four entries of each of `batch` rows from r on; what is not there is 0. All loads are under way before any use. */
template <bool wide, int batch, class T>
__device__ __forceinline__ void load(const Tile &tile, const T *panel, int64_t stride, int r, T (&value)[batch][each]) {
  const T *start = panel + (tile.row + r) * stride + tile.col;
  if constexpr (wide && sizeof(T) == 4) {
    if (place<wide>(each - 1) < tile.cols) {
#pragma unroll
      for (int b = 0; b < batch; ++b) {
        float4 four = {0, 0, 0, 0};
        if (r + b < tile.rows) four = *reinterpret_cast<const float4 *>(start + b * stride + place<wide>(0));
        value[b][0] = four.x, value[b][1] = four.y, value[b][2] = four.z, value[b][3] = four.w;
      }
      return;
    }
  }
#pragma unroll
  for (int b = 0; b < batch; ++b) {
#pragma unroll
    for (int q = 0; q < each; ++q) {
      value[b][q] = place<wide>(q) < tile.width(r + b) ? start[b * stride + place<wide>(q)] : T(0);
    }
  }
}

__device__ __forceinline__ void convert(float g, float *out) { *out = g; }
__device__ __forceinline__ void convert(double g, double *out) { *out = g; }
__device__ __forceinline__ void convert(float g, __nv_bfloat16 *out) { *out = __float2bfloat16_rn(g); }
__device__ __forceinline__ void convert(float g, __half *out) { *out = __float2half_rn(scaled_gradient(g)); }

template <bool wide, class T, class Out>
__device__ __forceinline__ void store(Out *row, int cols, const T (&value)[each]) {
  if constexpr (wide && sizeof(Out) <= 4) {
    if (place<wide>(each - 1) < cols) {
      struct alignas(sizeof(Out) * each) Four {
        Out at[each];
      } four;
#pragma unroll
      for (int q = 0; q < each; ++q) convert(value[q], &four.at[q]);
      *reinterpret_cast<Four *>(row + place<wide>(0)) = four;
      return;
    }
  }
#pragma unroll
  for (int q = 0; q < each; ++q) {
    if (place<wide>(q) < cols) convert(value[q], &row[place<wide>(q)]);
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
