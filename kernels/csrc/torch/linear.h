/* Layers of a tower: x W^T + b, with autograd. */
#pragma once
#include <ATen/core/Tensor.h>
#include <optional>

namespace sweep {

using at::Tensor;

/* x (.., k), W (n, k), b (n): float32 to float32 (.., n). On a CPU that has them by the products of cpu/linear.h, else by ATen's
 * `linear`. `half`: products of bfloat16, sums of float32, which an ATen without those products gives in bfloat16. */
Tensor linear(const Tensor &x, const Tensor &weight, const std::optional<Tensor> &bias, bool half);

} // namespace sweep
