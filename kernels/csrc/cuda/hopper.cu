/* Hopper's fused kernels: `sweep_hopper_kernels`. The GEMMs are in hopper_*.cu; here is what goes before and after.
 *
 * Workspace, whichever is largest of
 *   sums      row parts [tiles_n x 8192] and column parts [tiles_m x cols], float32; rows go in chunks of 8192, so that
 *             64k x 64k takes 25 MB
 *   gradient  1/R and 1/C as float32
 *   sigmoid   loss and slope, float64, a warp
 */
#include "hopper.h"
#include "join.cuh"

namespace sweep {
namespace {

constexpr int64_t chunk_rows = 64 * hopper_rows;

int64_t rounded(int64_t n, int64_t unit) { return tiles(n, unit) * unit; }

int64_t workspace_bytes(int64_t rows, int64_t cols) {
  const int64_t chunk = rounded(rows < chunk_rows ? rows : chunk_rows, hopper_rows);
  const int64_t width = rounded(cols, hopper_cols);
  const int64_t sums = sizeof(float) * (width / hopper_cols * chunk + chunk / hopper_rows * width);
  const int64_t inverses = sizeof(float) * (rounded(rows, 4) + rounded(cols, 4));
  const int64_t losses = 2 * sizeof(double) * hopper_warps * tiles(rows, hopper_rows) * tiles(cols, hopper_cols);
  const int64_t most = sums > inverses ? sums : inverses;
  return most > losses ? most : losses;
}

int supports(int32_t input_kind, int64_t depth) {
  if ((input_kind != SWEEP_BF16 && input_kind != SWEEP_FP16) || depth <= 0 || depth % 8 != 0) return 0;
  int device = 0, major = 0, minor = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess) {
    cudaGetLastError(); /* the answer is no; nobody else should find this error */
    return 0;
  }
  return major == 9 && minor == 0;
}

bool fits(int64_t n) { return n > 0 && n <= 0x7fffffff - 4096; }

/* The call that all GEMMs share, or an error. */
int prepare(const sweep_fused *problem, HopperCall *call) {
  const bool kind = problem->input_kind == SWEEP_BF16 || problem->input_kind == SWEEP_FP16;
  if (!kind || !fits(problem->rows) || !fits(problem->cols) || !fits(problem->depth) || problem->depth % 8 != 0 ||
      !aligned(problem->images, 16) || !aligned(problem->texts, 16) || !aligned(problem->workspace, 16)) {
    return int(cudaErrorInvalidValue);
  }
  *call = HopperCall{};
  call->images = problem->images;
  call->texts = problem->texts;
  call->rows = int32_t(problem->rows);
  call->cols = int32_t(problem->cols);
  call->depth = int32_t(problem->depth);
  call->positive = problem->positive;
  call->scalars = problem->scalars;
  call->stream = static_cast<cudaStream_t>(problem->stream);
  return 0;
}
int with_output(const sweep_fused *problem, HopperCall *call) {
  if (!aligned(problem->output, 16) || problem->output_stride % 8 != 0 || problem->output_stride < problem->cols) {
    return int(cudaErrorInvalidValue);
  }
  call->output = problem->output;
  call->output_stride = problem->output_stride;
  return 0;
}

int join(int64_t n, int64_t width, int64_t count, const float *parts, double *sum, bool onto, cudaStream_t stream) {
  join_sums_kernel<<<grid_size(tiles(n, threads)), threads, 0, stream>>>(n, width, count, parts, sum, onto);
  return launched();
}

int sums(const sweep_fused *problem, double *row_sum, double *col_sum, double *diagonal) {
  HopperCall whole;
  if (int error = prepare(problem, &whole)) return error;
  const int64_t width = rounded(problem->cols, hopper_cols);
  for (int64_t first = 0; first < problem->rows; first += chunk_rows) {
    HopperCall call = whole;
    const int64_t rows = problem->rows - first < chunk_rows ? problem->rows - first : chunk_rows;
    const int64_t height = rounded(rows, hopper_rows);
    call.rows = int32_t(rows);
    /* Both kinds of input have two bytes. */
    call.images = static_cast<const char *>(problem->images) + 2 * first * problem->depth;
    call.positive = problem->positive + first;
    call.diagonal = diagonal + first;
    call.row_parts = static_cast<float *>(problem->workspace);
    call.col_parts = call.row_parts + width / hopper_cols * height;
    if (int error = problem->input_kind == SWEEP_BF16 ? hopper_bf16_sums(call) : hopper_fp16_sums(call)) return error;
    if (int error = join(rows, height, width / hopper_cols, call.row_parts, row_sum + first, false, call.stream)) {
      return error;
    }
    if (int error = join(problem->cols, width, height / hopper_rows, call.col_parts, col_sum, true, call.stream)) {
      return error;
    }
  }
  return 0;
}

__global__ void __launch_bounds__(threads) to_float_kernel(int64_t n, const double *from, float *to) {
  const int64_t i = int64_t(blockIdx.x) * threads + threadIdx.x;
  if (i < n) to[i] = float(from[i]);
}
int to_float(int64_t n, const double *from, float *to, cudaStream_t stream) {
  to_float_kernel<<<grid_size(tiles(n, threads)), threads, 0, stream>>>(n, from, to);
  return launched();
}

int gradient(const sweep_fused *problem, const double *row_inverse, const double *col_inverse,
             const double *positive_slope) {
  HopperCall call;
  if (int error = prepare(problem, &call)) return error;
  if (int error = with_output(problem, &call)) return error;
  float *row = static_cast<float *>(problem->workspace), *col = row + rounded(problem->rows, 4);
  if (int error = to_float(problem->rows, row_inverse, row, call.stream)) return error;
  if (int error = to_float(problem->cols, col_inverse, col, call.stream)) return error;
  call.row_inverse = row;
  call.col_inverse = col;
  call.positive_slope = positive_slope;
  return problem->input_kind == SWEEP_BF16 ? hopper_bf16_gradient(call) : hopper_fp16_gradient(call);
}

int sigmoid(const sweep_fused *problem) {
  HopperCall call;
  if (int error = prepare(problem, &call)) return error;
  call.loss_parts = static_cast<double *>(problem->workspace);
  const bool bf16 = problem->input_kind == SWEEP_BF16, keep = problem->keep != 0;
  if (keep) {
    if (int error = with_output(problem, &call)) return error;
    if (int error = bf16 ? hopper_bf16_sigmoid(call) : hopper_fp16_sigmoid(call)) return error;
  } else if (int error = bf16 ? hopper_bf16_loss(call) : hopper_fp16_loss(call)) {
    return error;
  }
  const int64_t count = hopper_warps * tiles(problem->rows, hopper_rows) * tiles(problem->cols, hopper_cols);
  sigmoid_join_kernel<<<1, wide_block, 0, call.stream>>>(problem->scalars, count, call.loss_parts, keep);
  return launched();
}

const sweep_fused_kernels kernels = {supports, workspace_bytes, sums, gradient, sigmoid};

}  // namespace
}  // namespace sweep

extern "C" __attribute__((visibility("default"))) const sweep_fused_kernels *sweep_hopper_kernels(void) {
  return &sweep::kernels;
}
