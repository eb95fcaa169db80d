/* The two losses, value and gradients at once. */
#pragma once
#include "engine.h"
#include <optional>

namespace sweep {

/* What the ranks of a data-parallel group do together, in the same order on each. Shapes are those of the caller. */
struct Group {
  int64_t rank = 0, world = 1;
  void *self = nullptr;
  /* Each returns 0, or not 0 to give up. Rows of every rank in order: counts[rank] rows each. */
  int (*gather_rows)(void *self, const Tensor *local, Tensor *all, const int64_t *counts) = nullptr;
  int (*scatter_rows)(void *self, const Tensor *all, Tensor *local_sum, const int64_t *counts) = nullptr;
  int (*all_reduce)(void *self, Tensor *values, int32_t maximum) = nullptr; /* 0: sum; 1: maximum */
};

struct Options {
  std::optional<Tensor> ids;
  double label_smoothing = 0;
  Compute compute = Compute::automatic;
  int64_t budget_bytes = int64_t(1) << 30;
  bool check_finite = false;
  const Group *group = nullptr;
};

/* Which gradients are wanted. `wide`: of inputs in half precision in float32, not yet rounded. */
struct Wanted {
  bool images = true, texts = true, scale = true, bias = true, wide = false;

  /* As it crosses an interface: bits 1 images, 2 texts, 4 scale, 8 bias, 16 wide. */
  static constexpr int64_t WIDE = 16;
  static Wanted of(int64_t bits) { return {(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0, (bits & WIDE) != 0}; }
};

/* Type of the gradient of x. */
inline at::ScalarType gradient_type(const Tensor &x, const Wanted &wanted) {
  return wanted.wide && x.element_size() == 2 ? at::kFloat : x.scalar_type();
}

/* Gradients are undefined where they are not wanted. With a group: loss is that of all ranks; gradients are those of
 * the global mean with respect to this rank's features, and this rank's part of those of scale and bias (sum them). */
struct Gradients {
  Tensor loss, images, texts, scale, bias;
};

/* InfoNCE of B pairs, images and texts (B, D); `scale` one element: the factor s itself, not its logarithm. */
Gradients clip(const Tensor &images, const Tensor &texts, const Tensor &scale, const Options &options,
               const Wanted &wanted);
/* Pairwise sigmoid loss; `bias` one element. */
Gradients siglip(const Tensor &images, const Tensor &texts, const Tensor &scale, const Tensor &bias,
                 const Options &options, const Wanted &wanted);

} // namespace sweep
