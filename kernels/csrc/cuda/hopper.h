/* What the Hopper kernels' host side (hopper.cu) and its GEMMs (one file each: CUTLASS is slow to compile) say to each
 * other. One call is one GEMM over `rows` x `cols` x `depth`; each returns a cudaError_t.
 */
#ifndef SWEEP_CUDA_HOPPER_H
#define SWEEP_CUDA_HOPPER_H
#include <cuda_runtime.h>

#include "../panel.h"

namespace sweep {

/* Tiles of the output, and the warps that write a part of the sigmoid loss each. */
constexpr int64_t hopper_rows = 128, hopper_cols = 256, hopper_warps = 8;

struct HopperCall {
  const void *images, *texts;
  int32_t rows, cols, depth;
  int64_t positive;
  const sweep_scalars *scalars;
  cudaStream_t stream;
  /* sums: parts [tiles_n x tiles_m 128] and [tiles_m x tiles_n 256]; the positives' logits. */
  float *row_parts, *col_parts;
  double *diagonal;
  /* gradient: 1/R and 1/C, 16-byte aligned. */
  const float *row_inverse, *col_inverse;
  const double *positive_slope;
  /* gradient and sigmoid: float16 of 2^14 G. */
  void *output;
  int64_t output_stride;
  /* sigmoid and loss: pairs (loss, slope) [tiles_n x tiles_m x 8]. */
  double *loss_parts;
};

int hopper_bf16_sums(const HopperCall &call);
int hopper_bf16_gradient(const HopperCall &call);
int hopper_bf16_sigmoid(const HopperCall &call);
int hopper_bf16_loss(const HopperCall &call);
int hopper_fp16_sums(const HopperCall &call);
int hopper_fp16_gradient(const HopperCall &call);
int hopper_fp16_sigmoid(const HopperCall &call);
int hopper_fp16_loss(const HopperCall &call);

}  // namespace sweep
#endif
