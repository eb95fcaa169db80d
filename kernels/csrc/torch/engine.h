/* How the B x B half of a loss is computed: an engine goes over S = U V^T without keeping it, or within a budget.
 *
 * Shapes: images U (b, D), texts V (B, D), contiguous, of one type; row i belongs to column first + i. Vectors are
 * float64: rows (b), columns (B). Gradients come out unscaled, in float32 (float64 of float64): G V and G^T U with the
 * G of panel.h.
 */
#pragma once
#include "../panel.h"
#include "stream.h"
#include <ATen/ATen.h>
#include <memory>

namespace sweep {

using at::Tensor;

/* What both towers are multiplied in. Sums and O(B) vectors are float64 in every case. */
enum class Compute : int32_t { automatic = 0, fp32 = 1, bf16 = 2, fp16 = 3, fp64 = 4 };

struct Towers {
  Tensor images, texts;
  int64_t first;
  int64_t budget_bytes; /* for what grows as B x B or as rows x B */
  Tensor scalars;       /* (6) float64: a struct sweep_scalars on the towers' device */
  /* Entries that no sum, loss or gradient of an engine may hold, or undefined: columns (n) int64 of each row in order,
   * row i's from starts[i] to starts[i + 1] (b + 1, int64, on the CPU). */
  Tensor taken_starts, taken_cols;

  int64_t rows() const { return images.size(0); }
  int64_t cols() const { return texts.size(0); }
  int64_t depth() const { return images.size(1); }
  bool takes() const { return taken_cols.defined(); }
  sweep_scalars *numbers() const { return static_cast<sweep_scalars *>(scalars.data_ptr()); }
};

/* One side's O(B) vectors, float64 (n). `max` is undefined under a common offset. */
struct Side {
  Tensor max, sum, diagonal, loss, slope, lse, inverse;
};

/* S at a taken entry, times the sign of s: so far below any logit that its exponential is 0. */
constexpr double TAKEN = -1e30;

class Engine {
public:
  virtual ~Engine() = default;
  /* Fills rows.sum, rows.diagonal; adds to columns.sum. `keep`: gradients will be asked for. */
  virtual void sums(Side &rows, Side &columns, bool keep) = 0;
  /* G V into `images` (b, D), G^T U into `texts` (B, D), each if it is not null. */
  virtual void gradients(const Side &rows, const Side &columns, const Tensor &slope, Tensor *images, Tensor *texts) = 0;
  /* The sigmoid loss: adds to loss and slope_sum of the scalars; gradients as above. */
  virtual void sigmoid(Tensor *images, Tensor *texts) = 0;
};

/* Any device and type, by row panels: a matrix product of the library, then the device's panel kernels. `stable`: rows
 * and columns have their own maxima instead of a common offset. */
std::unique_ptr<Engine> panel_engine(const Towers &towers, bool stable);

/* float32 and bfloat16 on the CPU, by tiles that stay in cache. Null where the processor or the types don't allow. */
std::unique_ptr<Engine> tile_engine(const Towers &towers);

/* The largest logit s u_i . v_j, float64, shape (): one matrix product more. */
Tensor largest_logit(const Towers &towers);

/* The kernels of a device; throws for a device that has none. */
const sweep_panel_kernels &kernels_of(const at::Device &device);
/* Hopper's, or null. */
const sweep_fused_kernels *fused_kernels();
/* Throws for a code that is not 0. */
void check_code(int code, const char *what);

} // namespace sweep
