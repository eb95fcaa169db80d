#include "adamw.h"
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>

namespace sweep {

void adamw(const std::vector<at::Tensor> &weights, const std::vector<at::Tensor> &gradients, const std::vector<at::Tensor> &first,
           const std::vector<at::Tensor> &second, const AdamWNumbers &n, const at::Tensor *clip) {
  if (weights.empty()) return;
  const at::NoGradGuard no_graph;
  /* The operator looks at pointers alone on a CPU. */
  for (size_t i = 0; i < weights.size(); ++i)
    for (const at::Tensor *each : {&weights[i], &gradients[i], &first[i], &second[i]})
      TORCH_CHECK(each->is_contiguous() && each->sizes() == weights[i].sizes() && each->scalar_type() == weights[0].scalar_type() &&
                      each->device() == weights[0].device(),
                  "AdamW takes contiguous weights, gradients and moments of one shape, type and device; of weights ", i, " of shape ",
                  weights[i].sizes(), " one has the shape ", each->sizes());
  const at::Tensor step = at::full({}, n.steps, weights[0].options().dtype(at::kFloat));
  const std::vector<at::Tensor> steps(weights.size(), step);
  /* It divides by what a loss was scaled with. */
  const std::optional<at::Tensor> scale = clip ? std::optional<at::Tensor>(clip->reciprocal()) : std::nullopt;
  at::_fused_adamw_(weights, gradients, first, second, {}, steps, n.lr, n.beta1, n.beta2, n.weight_decay, n.eps, false, false, scale);
}

} // namespace sweep
