/* Activation checkpointing (Chen et al. 2016, "Training deep nets with sublinear memory cost"): a part of a forward pass of which
 * autograd keeps what goes in. */
#pragma once
#include <ATen/core/Tensor.h>
#include <functional>
#include <vector>

namespace sweep {

using at::Tensor;

/* Computes y from `inputs`, the same whenever it is called with the same. It may draw no random numbers, and depends on no other
 * tensor that wants a gradient. */
using Run = std::function<Tensor(const std::vector<Tensor> &inputs)>;

/* run(inputs). Without a graph of its own: the way back calls `run` once more, with one, and walks that. Gradients are those of a
 * plain call, to the bit. `run` lives as long as y's graph; on a GPU another thread calls it then. */
Tensor recompute(const std::vector<Tensor> &inputs, Run run);

} // namespace sweep
