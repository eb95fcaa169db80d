/* Several captions of one image: pairs (i, j) that are right beside the positive (i, p(i)) that engines know.
 *
 * They are few, so they are kept out of the engines' sums altogether and added in float64: their slopes are differences of
 * nearly equal numbers once a model is confident, and only exact ones survive that.
 */
#pragma once
#include "batch.h"
#include <optional>

namespace sweep {

struct Captions {
  Tensor rows, cols; /* (n) int64, by rows, then by columns: this rank's pairs with equal ids, j != p(i) */
  Tensor starts;     /* (b + 1) int64 on the CPU: where each row's begin */
  Tensor sizes;      /* (b) float64: captions of each row's image, its own included */
  Tensor logits;     /* (n) float64: s u_i . v_j */
  Tensor diagonal;   /* (b) float64: those of the positives */
};

/* Nothing where every image has one caption. */
std::optional<Captions> captions_of(const Batch &batch, const Tensor &scale);

/* Adds exp of the logits to the sums of both sides: under the offset (float64, one number), or to their maxima. */
void add_to_sums(const Captions &captions, const Tensor &offset, Side &rows, Side &columns);

/* Adds slope_ij v_j to `images` (b, D) and slope_ij u_i to `texts` (B, D), each if it is defined; slope (n) float64. */
void add_to_gradients(const Captions &captions, const Batch &batch, const Tensor &slope, Tensor &images, Tensor &texts);

} // namespace sweep
