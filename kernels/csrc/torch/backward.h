/* The backward pass of a model, which hands over each parameter's gradient as soon as it is whole. */
#pragma once
#include <ATen/core/Tensor.h>
#include <functional>
#include <vector>

namespace sweep {

using at::Tensor;

/* Walks `loss` back and calls `take(i, gradient)` once for leaf i, when nothing will be added to it any more, in an order that the
 * graph decides. Gradients that nobody kept are freed then. Calls come one at a time, from the thread that walks the leaves'
 * device. Leaves are distinct; hooks that they had are gone afterwards. Throws if the loss depends on one of them in no way. */
void backward(const Tensor &loss, const std::vector<Tensor> &leaves, const std::function<void(int64_t, const Tensor &)> &take);

} // namespace sweep
