/* Panel kernels on CUDA: `sweep_cuda_kernels`. Formulas are in panel.h, of one entry in element.h, tiles in grid.cuh.
 *
 * Sums are the same bits every time: no atomics. A tile leaves its row and column sums in the workspace, and a second
 * kernel adds those of one row (column) in the order of the tiles, in float64. For rows x cols that is
 *   column parts [tiles_m x cols], row parts [tiles_n x rows]      tiles of 64 x 512
 * with up to 16 bytes each (a pair of float64). A float64 panel is written in place alone, entry by entry.
 */
#include "grid.cuh"
#include "join.cuh"

namespace sweep {
namespace {

int64_t workspace_bytes(int64_t rows, int64_t cols) {
  int64_t sums = tiles(rows, tile_rows) * cols + tiles(cols, tile_cols) * rows;
  int64_t losses = tiles(rows, tile_rows) * tiles(cols, tile_cols);
  return int64_t(sizeof(Pair<double>)) * (sums > losses ? sums : losses);
}

__global__ void exponent_offset_kernel(sweep_scalars *scalars, const float *image_norm, const float *text_norm) {
  scalars->offset = exponent_offset(scalars->scale, *image_norm, *text_norm);
  scalars->loss = 0;
  scalars->slope_sum = 0;
  scalars->flag = 0;
}
int run_exponent_offset(sweep_scalars *scalars, const float *image_norm, const float *text_norm, void *stream) {
  exponent_offset_kernel<<<1, 1, 0, static_cast<cudaStream_t>(stream)>>>(scalars, image_norm, text_norm);
  return launched();
}

/* What a tile sums: plain exponentials, or pairs that carry their own maximum. */
template <class T>
struct PlainSum {
  static constexpr bool keeps = true; /* leaves E in the panel if asked */
  static constexpr int batch = sizeof(T) == 4 ? 4 : 2;
  using Value = T;
  using Entry = T;
  static __device__ T zero() { return T(0); }
  static __device__ T exponential(Fold<T> k, T s) { return sweep::exponential(k, s); }
  static __device__ void count(T &sum, Fold<T>, T, T e, bool counts) { sum += counts ? e : T(0); }
  static __device__ T join(T a, T b) { return a + b; }
};
template <class T>
struct PairSum {
  static constexpr bool keeps = false;
  static constexpr int batch = sizeof(T) == 4 ? 2 : 1;
  using Value = Pair<T>;
  using Entry = T;
  static __device__ Pair<T> zero() { return no_pair<T>(); }
  static __device__ T exponential(Fold<T>, T) { return T(0); }
  static __device__ void count(Pair<T> &sum, Fold<T> k, T s, T, bool counts) {
    if (counts) add(sum, k.slope, s);
  }
  static __device__ Pair<T> join(Pair<T> a, Pair<T> b) { return merge(a, b); }
};

__device__ __forceinline__ float from_lane(float value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
__device__ __forceinline__ double from_lane(double value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
template <class T>
__device__ __forceinline__ Pair<T> from_lane(Pair<T> value, int mask) {
  return {from_lane(value.max, mask), from_lane(value.sum, mask)};
}

template <class Sum, bool wide, bool keep>
__global__ void __launch_bounds__(threads)
    sums_kernel(View<typename Sum::Entry> view, const sweep_scalars *scalars, typename Sum::Value *col_parts,
                typename Sum::Value *row_parts, double *diagonal) {
  using T = typename Sum::Entry;
  using Value = typename Sum::Value;
  __shared__ Value shared[stage_rows * pitch];
  const Fold<T> k = fold<T>(scalars->scale, scalars->offset);
  const Tile tile(view);
  Value col[each];
#pragma unroll
  for (int q = 0; q < each; ++q) col[q] = Sum::zero();

  for (int stage = 0; stage < tile.rows; stage += stage_rows) {
    /* Sixteen rows are summed before they join the rest, so that rounding grows with 16 + 4 terms, not 64. */
    Value here[each];
#pragma unroll
    for (int q = 0; q < each; ++q) here[q] = Sum::zero();
#pragma unroll 1
    for (int first = stage; first < stage + stage_rows; first += Sum::batch) {
      T s[Sum::batch][each], e[each];
      load<wide>(tile, view.panel, view.stride, first, s);
#pragma unroll
      for (int b = 0; b < Sum::batch; ++b) {
        const int r = first + b, positive = tile.positive(r, view.positive);
        Value sum = Sum::zero();
#pragma unroll
        for (int q = 0; q < each; ++q) {
          const bool counts = place<wide>(q) < tile.width(r) && place<wide>(q) != positive;
          e[q] = Sum::exponential(k, s[b][q]);
          Sum::count(sum, k, s[b][q], e[q], counts);
          Sum::count(here[q], k, s[b][q], e[q], counts);
        }
        if (positive >= 0) {
#pragma unroll
          for (int q = 0; q < each; ++q) {
            if (place<wide>(q) == positive) diagonal[tile.row + r] = logit(k, s[b][q]);
          }
        }
        if constexpr (keep) store<wide>(view.panel + (tile.row + r) * view.stride + tile.col, tile.width(r), e);
        shared[(r - stage) * pitch + threadIdx.x] = sum;
      }
    }
    __syncthreads();
    const int r = threadIdx.x / row_threads, lane = threadIdx.x % row_threads;
    Value total = shared[r * pitch + lane];
#pragma unroll
    for (int part = 1; part < threads / row_threads; ++part) {
      total = Sum::join(total, shared[r * pitch + lane + part * row_threads]);
    }
#pragma unroll
    for (int mask = row_threads / 2; mask > 0; mask /= 2) total = Sum::join(total, from_lane(total, mask));
    if (lane == 0 && stage + r < tile.rows) row_parts[tile.n * view.rows + tile.row + stage + r] = total;
    __syncthreads();
#pragma unroll
    for (int q = 0; q < each; ++q) col[q] = Sum::join(col[q], here[q]);
  }
#pragma unroll
  for (int q = 0; q < each; ++q) {
    if (place<wide>(q) < tile.cols) col_parts[tile.m * view.cols + tile.col + place<wide>(q)] = col[q];
  }
}

template <class T>
__global__ void __launch_bounds__(threads)
    join_pairs_kernel(int64_t n, int64_t count, const Pair<T> *parts, double *max, double *sum, bool onto) {
  const int64_t i = int64_t(blockIdx.x) * threads + threadIdx.x;
  if (i >= n) return;
  Pair<double> total = no_pair<double>();
  for (int64_t part = 0; part < count; ++part) total = merge(total, in_nats(parts[part * n + i]));
  if (onto) total = merge(Pair<double>{max[i], sum[i]}, total);
  max[i] = total.max;
  sum[i] = total.sum;
}

template <class T>
int join(int64_t n, int64_t count, const T *parts, double *, double *sum, bool onto, cudaStream_t stream) {
  unsigned blocks = grid_size(tiles(n, threads));
  if (blocks == 0) return n == 0 ? 0 : int(cudaErrorInvalidConfiguration);
  join_sums_kernel<<<blocks, threads, 0, stream>>>(n, n, count, parts, sum, onto);
  return launched();
}
template <class T>
int join(int64_t n, int64_t count, const Pair<T> *parts, double *max, double *sum, bool onto, cudaStream_t stream) {
  unsigned blocks = grid_size(tiles(n, threads));
  if (blocks == 0) return n == 0 ? 0 : int(cudaErrorInvalidConfiguration);
  join_pairs_kernel<<<blocks, threads, 0, stream>>>(n, count, parts, max, sum, onto);
  return launched();
}

template <class Sum>
int run_sums(const sweep_panel *panel, double *row_max, double *row_sum, double *col_max, double *col_sum,
             double *diagonal) {
  using T = typename Sum::Entry;
  using Value = typename Sum::Value;
  View<T> at = view<T>(panel);
  const int64_t tiles_m = tiles(at.rows, tile_rows);
  cudaStream_t stream = stream_of(panel);
  Value *col_parts = static_cast<Value *>(panel->workspace), *row_parts = col_parts + tiles_m * at.cols;
  if (at.rows > 0 && at.cols > 0) {
    unsigned blocks = grid_size(tiles_m * at.tiles_n);
    if (blocks == 0) return int(cudaErrorInvalidConfiguration);
    constexpr bool float_panel = sizeof(T) == 4;
    const bool keep = Sum::keeps && panel->keep != 0, wide = float_panel && wide_panel<T>(panel);
    auto kernel = wide ? (keep ? sums_kernel<Sum, float_panel, Sum::keeps> : sums_kernel<Sum, float_panel, false>)
                       : (keep ? sums_kernel<Sum, false, Sum::keeps> : sums_kernel<Sum, false, false>);
    kernel<<<blocks, threads, 0, stream>>>(at, panel->scalars, col_parts, row_parts, diagonal);
    if (int error = launched()) return error;
    if (int error = join(at.cols, tiles_m, col_parts, col_max, col_sum, true, stream)) return error;
  }
  return join(at.rows, at.tiles_n, row_parts, row_max, row_sum, false, stream);
}

int exp_sums(const sweep_panel *panel, double *row_sum, double *col_sum, double *diagonal) {
  return panel->double_panel ? run_sums<PlainSum<double>>(panel, nullptr, row_sum, nullptr, col_sum, diagonal)
                             : run_sums<PlainSum<float>>(panel, nullptr, row_sum, nullptr, col_sum, diagonal);
}
int stable_sums(const sweep_panel *panel, double *row_max, double *row_sum, double *col_max, double *col_sum,
                double *diagonal) {
  return panel->double_panel ? run_sums<PairSum<double>>(panel, row_max, row_sum, col_max, col_sum, diagonal)
                             : run_sums<PairSum<float>>(panel, row_max, row_sum, col_max, col_sum, diagonal);
}

/* G of one entry, from 1/R and 1/C or from ln R and ln C. */
template <class T, bool exponentials>
struct CommonRule {
  using Entry = T;
  using Term = T;
  static __device__ T term(double inverse) { return T(inverse); }
  static __device__ T slope(Fold<T> k, T s, T row, T col) {
    return (exponentials ? s : exponential(k, s)) * (row + col);
  }
};
template <class T>
struct StableRule {
  using Entry = T;
  using Term = Split<T>;
  static __device__ Split<T> term(double lse) { return split<T>(lse); }
  static __device__ T slope(Fold<T> k, T s, Split<T> row, Split<T> col) {
    return probability(k.slope, s, row) + probability(k.slope, s, col);
  }
};

constexpr int batch = 4; /* rows that a thread has on the way at once */

/* `out` may be the panel itself: an entry is read and written by one thread. */
template <class Rule, class Out, bool wide>
__global__ void __launch_bounds__(threads)
    gradient_kernel(View<typename Rule::Entry> view, const sweep_scalars *scalars, const double *row_terms,
                    const double *col_terms, const double *positive_slope, Out *out, int64_t out_stride) {
  using T = typename Rule::Entry;
  const Fold<T> k = fold<T>(scalars->scale, scalars->offset);
  const Tile tile(view);
  typename Rule::Term col[each];
#pragma unroll
  for (int q = 0; q < each; ++q) {
    col[q] = Rule::term(place<wide>(q) < tile.cols ? col_terms[tile.col + place<wide>(q)] : 0);
  }
#pragma unroll 1
  for (int first = 0; first < tile.rows; first += batch) {
    T s[batch][each], g[each];
    load<wide>(tile, view.panel, view.stride, first, s);
#pragma unroll
    for (int b = 0; b < batch; ++b) {
      const int r = first + b, positive = tile.positive(r, view.positive);
      if (r >= tile.rows) break;
      const int64_t i = tile.row + r;
      const typename Rule::Term row = Rule::term(row_terms[i]);
#pragma unroll
      for (int q = 0; q < each; ++q) g[q] = Rule::slope(k, s[b][q], row, col[q]);
      if (positive >= 0) {
#pragma unroll
        for (int q = 0; q < each; ++q) {
          if (place<wide>(q) == positive) g[q] = T(positive_slope[i]);
        }
      }
      store<wide>(out + i * out_stride + tile.col, tile.cols, g);
    }
  }
}

template <class Rule, class Out>
int launch_gradient(const sweep_panel *panel, const double *row_terms, const double *col_terms,
                    const double *positive_slope, Out *out, int64_t out_stride) {
  using T = typename Rule::Entry;
  View<T> at = view<T>(panel);
  if (at.rows == 0 || at.cols == 0) return 0;
  unsigned blocks = grid_size(tiles(at.rows, tile_rows) * at.tiles_n);
  if (blocks == 0) return int(cudaErrorInvalidConfiguration);
  constexpr bool float_panel = sizeof(T) == 4;
  auto kernel = float_panel && wide_output<T>(panel) ? gradient_kernel<Rule, Out, float_panel>
                                                     : gradient_kernel<Rule, Out, false>;
  kernel<<<blocks, threads, 0, stream_of(panel)>>>(at, panel->scalars, row_terms, col_terms, positive_slope, out,
                                                   out_stride);
  return launched();
}

template <class Rule>
int run_gradient(const sweep_panel *panel, const double *row_terms, const double *col_terms,
                 const double *positive_slope) {
  using T = typename Rule::Entry;
  if (panel->output_kind == SWEEP_IN_PLACE) {
    return launch_gradient<Rule>(panel, row_terms, col_terms, positive_slope, static_cast<T *>(panel->panel),
                                 panel->stride);
  }
  if constexpr (sizeof(T) == 4) switch (panel->output_kind) {
    case SWEEP_BF16:
      return launch_gradient<Rule>(panel, row_terms, col_terms, positive_slope,
                                   static_cast<__nv_bfloat16 *>(panel->output), panel->output_stride);
    case SWEEP_FP16:
      return launch_gradient<Rule>(panel, row_terms, col_terms, positive_slope, static_cast<__half *>(panel->output),
                                   panel->output_stride);
  }
  return int(cudaErrorInvalidValue);
}

int gradient(const sweep_panel *panel, const double *row_inverse, const double *col_inverse,
             const double *positive_slope) {
  auto run = panel->double_panel
                 ? (panel->holds ? run_gradient<CommonRule<double, true>> : run_gradient<CommonRule<double, false>>)
                 : (panel->holds ? run_gradient<CommonRule<float, true>> : run_gradient<CommonRule<float, false>>);
  return run(panel, row_inverse, col_inverse, positive_slope);
}
int stable_gradient(const sweep_panel *panel, const double *row_lse, const double *col_lse,
                    const double *positive_slope) {
  return panel->double_panel ? run_gradient<StableRule<double>>(panel, row_lse, col_lse, positive_slope)
                             : run_gradient<StableRule<float>>(panel, row_lse, col_lse, positive_slope);
}

__global__ void __launch_bounds__(threads)
    side_kernel(sweep_scalars *scalars, int64_t n, const double *max, const double *sum, const double *diagonal,
                double *loss, double *slope, double *lse, double *inverse) {
  const int64_t i = int64_t(blockIdx.x) * threads + threadIdx.x;
  if (i >= n) return;
  const double offset = scalars->offset;
  const Side side = side_entry(log(sum[i]) + (max ? max[i] : offset), diagonal[i], offset, double(n));
  loss[i] = side.loss;
  slope[i] = side.slope;
  lse[i] = side.lse;
  inverse[i] = side.inverse;
  /* Whoever writes, writes the same. */
  if (max == nullptr && side.unsound) scalars->flag = 1;
}
int run_side(sweep_scalars *scalars, int64_t n, const double *max, const double *sum, const double *diagonal,
             double *loss, double *slope, double *lse, double *inverse, void *stream) {
  unsigned blocks = grid_size(tiles(n, threads));
  if (blocks == 0) return n == 0 ? 0 : int(cudaErrorInvalidConfiguration);
  side_kernel<<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(scalars, n, max, sum, diagonal, loss, slope,
                                                                         lse, inverse);
  return launched();
}

__global__ void __launch_bounds__(wide_block)
    pairs_kernel(sweep_scalars *scalars, int64_t n, int64_t first, const double *row_loss, const double *row_slope,
                 const double *col_loss, const double *col_slope, double *positive_slope) {
  __shared__ double shared[wide_block / 32];
  double loss = 0;
  for (int64_t i = threadIdx.x; i < n; i += wide_block) {
    positive_slope[i] = -(row_slope[i] + col_slope[first + i]);
    loss += row_loss[i] + col_loss[first + i];
  }
  loss = block_sum(loss, shared);
  if (threadIdx.x == 0) scalars->loss = loss;
}
int run_pairs(sweep_scalars *scalars, int64_t n, int64_t first, const double *row_loss, const double *row_slope,
              const double *col_loss, const double *col_slope, double *positive_slope, void *stream) {
  pairs_kernel<<<1, wide_block, 0, static_cast<cudaStream_t>(stream)>>>(scalars, n, first, row_loss, row_slope,
                                                                        col_loss, col_slope, positive_slope);
  return launched();
}

template <class T, class Out, bool wide, bool keep>
__global__ void __launch_bounds__(threads)
    sigmoid_kernel(View<T> view, const sweep_scalars *scalars, double *parts, Out *out, int64_t out_stride) {
  __shared__ double shared[threads / 32];
  const T scale = T(scalars->scale), bias = T(scalars->bias);
  const Tile tile(view);
  double loss = 0, slope = 0;
#pragma unroll 1
  for (int first = 0; first < tile.rows; first += batch) {
    T s[batch][each], g[each];
    load<wide>(tile, view.panel, view.stride, first, s);
#pragma unroll
    for (int b = 0; b < batch; ++b) {
      const int r = first + b, positive = tile.positive(r, view.positive);
      if (r >= tile.rows) break;
      T row_loss = 0, row_slope = 0;
#pragma unroll
      for (int q = 0; q < each; ++q) {
        const Entry<T> entry = sigmoid_entry(scale, bias, s[b][q], place<wide>(q) == positive);
        g[q] = entry.slope;
        row_loss += place<wide>(q) < tile.cols ? entry.loss : T(0);
        row_slope += place<wide>(q) < tile.cols ? entry.slope : T(0);
      }
      loss += double(row_loss), slope += double(row_slope);
      if constexpr (keep) store<wide>(out + (tile.row + r) * out_stride + tile.col, tile.cols, g);
    }
  }
  loss = block_sum(loss, shared);
  slope = block_sum(slope, shared);
  if (threadIdx.x == 0) parts[2 * int64_t(blockIdx.x)] = loss, parts[2 * int64_t(blockIdx.x) + 1] = slope;
}

template <class T, class Out>
int launch_sigmoid(const sweep_panel *panel, Out *out, int64_t out_stride) {
  View<T> at = view<T>(panel);
  if (at.rows == 0 || at.cols == 0) return 0;
  const int64_t count = tiles(at.rows, tile_rows) * at.tiles_n;
  unsigned blocks = grid_size(count);
  if (blocks == 0) return int(cudaErrorInvalidConfiguration);
  constexpr bool float_panel = sizeof(T) == 4;
  const bool keep = panel->keep != 0;
  const bool wide = float_panel && (keep ? wide_output<T>(panel) : wide_panel<T>(panel));
  auto kernel = wide ? (keep ? sigmoid_kernel<T, Out, float_panel, true> : sigmoid_kernel<T, Out, float_panel, false>)
                     : (keep ? sigmoid_kernel<T, Out, false, true> : sigmoid_kernel<T, Out, false, false>);
  double *parts = static_cast<double *>(panel->workspace);
  kernel<<<blocks, threads, 0, stream_of(panel)>>>(at, panel->scalars, parts, out, out_stride);
  if (int error = launched()) return error;
  sigmoid_join_kernel<<<1, wide_block, 0, stream_of(panel)>>>(panel->scalars, count, parts, keep);
  return launched();
}
template <class T>
int run_sigmoid(const sweep_panel *panel) {
  if (!panel->keep || panel->output_kind == SWEEP_IN_PLACE) {
    return launch_sigmoid<T>(panel, static_cast<T *>(panel->panel), panel->stride);
  }
  if constexpr (sizeof(T) == 4) switch (panel->output_kind) {
    case SWEEP_BF16:
      return launch_sigmoid<T>(panel, static_cast<__nv_bfloat16 *>(panel->output), panel->output_stride);
    case SWEEP_FP16:
      return launch_sigmoid<T>(panel, static_cast<__half *>(panel->output), panel->output_stride);
  }
  return int(cudaErrorInvalidValue);
}
int sigmoid(const sweep_panel *panel) {
  return panel->double_panel ? run_sigmoid<double>(panel) : run_sigmoid<float>(panel);
}

const sweep_panel_kernels kernels = {workspace_bytes, run_exponent_offset, exp_sums,  gradient, stable_sums,
                                     stable_gradient, run_side,            run_pairs, sigmoid};

}  // namespace
}  // namespace sweep

extern "C" __attribute__((visibility("default"))) const sweep_panel_kernels *sweep_cuda_kernels(void) {
  return &sweep::kernels;
}
