/* Half a transformer block on a CPU, with its derivative: y = x + W2 g(W1 LayerNorm(x) + b1) + b2 of each row of x, where g is
 * attention within sequences (W1, b1 give queries, keys and values) or an activation. Pre-LN, as in Xiong et al. 2020, figure 1b.
 *
 * Rows go through in blocks that stay in the cache: products, norm, g and residual of a block follow one another, and of what lies
 * between them only W1 LayerNorm(x) + b1 and, for attention, g are kept for the way back. The derivatives of W1 and W2 are added up
 * over chunks of about 256 rows, in order: bits do not depend on the number of threads.
 *
 * `half`: factors of products with W1 and W2 are rounded to bfloat16, and what is kept is bfloat16, on the way there as on the way
 * back; norms, attention's own products and sums are float32.
 */
#pragma once
#include "rows.h"
#include <cstdint>
#include <vector>

namespace sweep {

/* Sequences of as many tokens each; their rows stand one after another. */
struct Sequences {
  int64_t count, tokens;
};

struct Branch {
  int64_t width;  /* W of x (R, W) */
  int64_t inner;  /* N of W1 (N, W): 3 W for attention */
  int64_t outer;  /* M of W2 (W, M): W for attention, N for an activation */
  float eps;      /* of LayerNorm */
  bool half;
  std::vector<Sequences> sequences; /* of all rows; of one token each for an activation */
  /* Attention, if heads > 0: a token sees itself and what stands before it, if causal, or all of its sequence. */
  int64_t heads;
  bool causal;
  Activation activation;

  bool attends() const { return heads > 0; }
};

/* gamma (W), beta (W), W1 (N, W), b1 (N), W2 (W, M), b2 (W). */
struct BranchWeights {
  const float *norm_weight, *norm_bias, *in_weight, *in_bias, *out_weight, *out_bias;
};

/* What the way back needs: mean and 1 / deviation of each row (R, 2); z = W1 LayerNorm(x) + b1 (R, N) and, for attention, g(z)
 * (R, M), both float32 or, if half, bfloat16. Null where there is no way back. */
struct Kept {
  float *stats;
  void *z, *g;
};

/* Of the weights, each in its shape. */
struct BranchGradients {
  float *norm_weight, *norm_bias, *in_weight, *in_bias, *out_weight, *out_bias;
};

/* y (R, W). */
void branch_forward(const Branch &branch, const BranchWeights &weights, const float *x, float *y, const Kept &kept);

/* dx (R, W) and the weights' gradients from dy (R, W). */
void branch_backward(const Branch &branch, const BranchWeights &weights, const float *x, const float *dy, const Kept &kept, float *dx,
                     const BranchGradients &gradients);

/* Attention of one token of each sequence, as the last block of a tower needs it: y (S, W), from rows `pooled` (S) of x, one of each
 * sequence in order, which see what stands before them in theirs, if causal, or all of it. Queries are worked out for them alone.
 * Kept: stats; z = keys and values (R, 2 W); q (S, W); g (S, W). */
struct KeptPooled {
  float *stats;
  void *z, *q, *g;
};

void pooled_forward(const Branch &branch, const int64_t *pooled, const BranchWeights &weights, const float *x, float *y,
                    const KeptPooled &kept);
void pooled_backward(const Branch &branch, const int64_t *pooled, const BranchWeights &weights, const float *x, const float *dy,
                     const KeptPooled &kept, float *dx, const BranchGradients &gradients);

} // namespace sweep
