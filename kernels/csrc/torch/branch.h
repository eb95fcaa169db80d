/* Halves of a pre-LN transformer block on a CPU, with autograd: see cpu/branch.h. */
#pragma once
#include <ATen/ATen.h>
#include <string>

namespace sweep {

using at::Tensor;

/* LayerNorm's gamma and beta (W), its eps; W1 (N, W), b1 (N); W2 (W, M), b2 (W). */
struct BranchLayers {
  Tensor norm_weight, norm_bias, in_weight, in_bias, out_weight, out_bias;
  double eps;
};

/* Whether x (R, W), and layers like it, are served: float32 on a CPU with AVX2 or AVX-512. */
bool branch_available(const Tensor &x);

/* x + W2 attention(W1 LayerNorm(x) + b1) + b2, N = 3 W, M = W. `sequences` (G, 2): how many of how many tokens each, whose rows stand
 * one after another in x. */
Tensor attention_branch(const Tensor &x, const BranchLayers &layers, at::IntArrayRef sequences, int64_t heads, bool causal, bool half);

/* The same of one row of each sequence, `pooled` (S) in order: y (S, W). */
Tensor pooled_attention_branch(const Tensor &x, const BranchLayers &layers, at::IntArrayRef sequences, const Tensor &pooled,
                               int64_t heads, bool causal, bool half);

/* x + W2 act(W1 LayerNorm(x) + b1) + b2, N = M; `activation`: gelu, gelu_tanh, quick_gelu. */
Tensor mlp_branch(const Tensor &x, const BranchLayers &layers, const std::string &activation, bool half);

} // namespace sweep
