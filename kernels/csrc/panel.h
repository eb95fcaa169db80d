/* Panel kernels of the contrastive losses: a plain C interface over pointers, one table a device.
 *
 * Images u_i (rows), texts v_j (columns), s = scale, S_ij = u_i . v_j (a matrix product, not done here), logits
 * l_ij = s S_ij. Row i belongs to column p(i) = i + positive; that logit, d_i = l_i,p(i), never enters a sum:
 *
 *   E_ij    = exp(l_ij - m)                                       m = offset, one number for all
 *   r_i     = sum_{j != p(i)} E_ij      c_j = sum_{i: p(i) != j} E_ij
 *   x_i     = ln r_i + m - d_i          y_i = ln c_p(i) + m - d_i
 *   L       = 1/(2B) sum_i [ softplus(x_i) + softplus(y_i) ]      = InfoNCE: -ln softmax of the positive, both ways
 *   B dL/dl = 1/2 G,  G_ij = E_ij (1/R_i + 1/C_j),  G_i,p(i) = -(sigmoid(x_i) + sigmoid(y_i))
 *   with      1/R_i = exp(m - d_i - softplus(x_i)), 1/C_j likewise.
 *
 * So a confident pair (p near 1) loses no digits: 1 - p is never formed by subtraction.
 *
 * A panel is a block of rows of S, all columns, row-major. Rows, sums and O(B) vectors are float64; a panel is float32
 * (float64 where `double_panel` is set). Pointers are to memory of the device; functions return 0, or an error code of
 * the device's runtime (cudaError_t), and never synchronise. Work goes to `stream` (a cudaStream_t; NULL on the CPU).
 */
#ifndef SWEEP_PANEL_H
#define SWEEP_PANEL_H
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

/* What a panel holds after a call that turns it into a gradient. */
enum sweep_output {
  SWEEP_IN_PLACE = 0, /* float32 (float64) over the panel itself */
  SWEEP_BF16 = 1,     /* bfloat16 into `output` */
  SWEEP_FP16 = 2      /* float16 of 2^14 G into `output` */
};

/* Numbers that live on the device: nothing here ever waits for the host. */
struct sweep_scalars {
  double scale;  /* s */
  double offset; /* m = max(0, M - 70), M = |s| max |u| max |v| (see `exponent_offset`) */
  double bias;   /* of the sigmoid loss; 0 for InfoNCE */
  double loss;   /* sum of the pairs' losses, not yet divided */
  double slope_sum; /* sum of dL/dl over all entries: the gradient of the bias, not yet divided */
  int64_t flag;  /* not 0: a sum was 0 or not finite under the common offset; use the stable pair of kernels */
};

struct sweep_panel {
  void *panel;              /* rows x cols */
  int64_t rows, cols;
  int64_t stride;           /* elements from row to row, of the panel */
  int64_t positive;         /* column of the positive of the panel's first row; may lie outside [0, cols) */
  int32_t double_panel;     /* 1: float64 */
  int32_t holds;            /* 0: S; 1: E (what `exp_sums` left with keep = 1) */
  int32_t keep;             /* exp_sums: 1 to leave E in the panel, 0 to leave it as it is or as it comes */
  int32_t output_kind;      /* enum sweep_output, of the gradient kernels */
  void *output;             /* rows x cols, row stride `output_stride`; NULL in place */
  int64_t output_stride;
  struct sweep_scalars *scalars;
  void *workspace;          /* workspace_bytes(rows, cols) of scratch, may be NULL if that is 0 */
  void *stream;
};

struct sweep_panel_kernels {
  /* Scratch that one panel of this size needs, bytes. */
  int64_t (*workspace_bytes)(int64_t rows, int64_t cols);

  /* offset = max(0, |scale| * image_norm * text_norm - 70), from the largest row norms (one float each), device memory,
   * down to a multiple of ln 2, so that exponents in units of ln 2 have it exactly; 0 where it is not finite. Clears loss, slope_sum and flag. */
  int (*exponent_offset)(struct sweep_scalars *scalars, const float *image_norm, const float *text_norm, void *stream);

  /* S -> (E): row_sum[i] = r_i, diagonal[i] = d_i (both of this panel: rows entries; diagonal untouched where the
   * positive lies outside), col_sum[j] += (this panel's part of c_j). Fixed order: the same bits every time. */
  int (*exp_sums)(const struct sweep_panel *panel, double *row_sum, double *col_sum, double *diagonal);

  /* S or E -> G: G_ij = E_ij (row_inverse[i] + col_inverse[j]); G at a positive is positive_slope[i]. */
  int (*gradient)(const struct sweep_panel *panel, const double *row_inverse, const double *col_inverse,
                  const double *positive_slope);

  /* The same without a common offset, for rows that underflow under any: running maxima beside sums.
   * row_max, row_sum: r_i = row_sum e^row_max; col_max, col_sum are updated (start: -infinity, 0). */
  int (*stable_sums)(const struct sweep_panel *panel, double *row_max, double *row_sum, double *col_max,
                     double *col_sum, double *diagonal);
  /* G_ij = exp(l_ij - row_lse[i]) + exp(l_ij - col_lse[j]), positives as above. The panel holds S. */
  int (*stable_gradient)(const struct sweep_panel *panel, const double *row_lse, const double *col_lse,
                         const double *positive_slope);

  /* One side (rows or columns) from sums to what the gradient needs, n entries. ln r = ln sum + (max ? max : offset).
   *   x = ln r - diagonal;  loss = softplus(x);  slope = sigmoid(x);  lse = diagonal + loss = ln R;
   *   inverse = exp(offset - lse);  all NaN where lse is infinite or NaN, as libtorch's softmax of an infinite logit
   * Sets scalars->flag where R e^-offset < n 2^-80, or where anything is not finite (max NULL only). */
  int (*side)(struct sweep_scalars *scalars, int64_t n, const double *max, const double *sum, const double *diagonal,
              double *loss, double *slope, double *lse, double *inverse, void *stream);

  /* Joins both sides for the n rows whose positives are the columns first, first + 1, ...:
   *   positive_slope[i] = -(row_slope[i] + col_slope[first + i]);
   *   scalars->loss = sum_i (row_loss[i] + col_loss[first + i]), always in the same order. */
  int (*pairs)(struct sweep_scalars *scalars, int64_t n, int64_t first, const double *row_loss, const double *row_slope,
               const double *col_loss, const double *col_slope, double *positive_slope, void *stream);

  /* Sigmoid loss (Zhai et al. 2023, section 3.1), loss and slope in one sweep: z = 1 at the positive, else -1,
   *   x_ij = s S_ij + bias;  scalars->loss += sum ln(1 + exp(-z x));  G_ij = -z sigmoid(-z x) = dL/dl, written as
   * `gradient` writes;  scalars->slope_sum += sum G.  `keep` = 0: the loss alone, nothing written. */
  int (*sigmoid)(const struct sweep_panel *panel);
};

/* Kernels that do the matrix product themselves and keep S on the chip: NVIDIA Hopper (sm_90a). The same formulas. */
struct sweep_fused {
  const void *images;       /* rows x depth, row-major, contiguous, 16-byte aligned, depth a multiple of 8 */
  const void *texts;        /* cols x depth, likewise */
  int32_t input_kind;       /* SWEEP_BF16 or SWEEP_FP16, both towers alike */
  int64_t rows, cols, depth;
  int64_t positive;         /* column of the positive of row 0 */
  void *output;             /* gradient and sigmoid: float16 of 2^14 G, rows x cols, row stride `output_stride` */
  int64_t output_stride;    /* a multiple of 8 */
  int32_t keep;             /* sigmoid: 0 for the loss alone */
  struct sweep_scalars *scalars;
  void *workspace;
  void *stream;
};
struct sweep_fused_kernels {
  /* Whether this device and shape can be served. */
  int (*supports)(int32_t input_kind, int64_t depth);
  int64_t (*workspace_bytes)(int64_t rows, int64_t cols);
  int (*sums)(const struct sweep_fused *problem, double *row_sum, double *col_sum, double *diagonal);
  int (*gradient)(const struct sweep_fused *problem, const double *row_inverse, const double *col_inverse,
                  const double *positive_slope);
  int (*sigmoid)(const struct sweep_fused *problem);
};

/* This library's tables. The CUDA one is in libsweep_kernels_cuda.so. */
const struct sweep_panel_kernels *sweep_cpu_kernels(void);
const struct sweep_panel_kernels *sweep_cuda_kernels(void);
const struct sweep_fused_kernels *sweep_hopper_kernels(void);

#ifdef __cplusplus
}
#endif
#endif
