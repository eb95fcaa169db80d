/* The losses with autograd, as the operators and the Rust binding call them. */
#pragma once
#include "loss.h"
#include <string>

namespace sweep {

/* InfoNCE, or with `bias` the sigmoid loss; the arguments of sweep::clip_loss and sweep::siglip_loss. */
Tensor loss(const Tensor &images, const Tensor &texts, const Tensor &scale, const std::optional<Tensor> &bias,
            const std::optional<Tensor> &ids, double label_smoothing, c10::string_view compute, int64_t budget_bytes,
            bool check_finite);

} // namespace sweep
