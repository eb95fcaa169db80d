/* A step of AdamW over lists of tensors, by libtorch's own operator: on a GPU a few launches, and nothing waits for them. */
#pragma once
#include <ATen/core/Tensor.h>
#include <vector>

namespace sweep {

/* As torch.optim.AdamW takes step number `steps`, in place. */
struct AdamWNumbers {
  double lr, beta1, beta2, weight_decay, eps, steps;
};

/* Each list has a tensor for each of the weights; `clip`, shape () and float32, is what gradients are multiplied with first, in place, or null. */
void adamw(const std::vector<at::Tensor> &weights, const std::vector<at::Tensor> &gradients, const std::vector<at::Tensor> &first,
           const std::vector<at::Tensor> &second, const AdamWNumbers &numbers, const at::Tensor *clip);

} // namespace sweep
