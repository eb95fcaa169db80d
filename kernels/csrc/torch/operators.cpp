/* PyTorch operators of the losses, with autograd: `torch.ops.load_library(...)`, then `torch.ops.sweep.clip_loss(...)`.
 *
 * Gradients are computed with the loss, while E is at hand, and multiplied by the upstream gradient in backward: so
 * nothing of size B x B outlives the forward pass, and a graph may be walked as often as one likes. There is no second
 * derivative.
 */
#include "operators.h"
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace sweep {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Compute compute_of(const std::string &name) {
  if (name.empty() || name == "auto") return Compute::automatic;
  if (name == "fp32") return Compute::fp32;
  if (name == "bf16") return Compute::bf16;
  if (name == "fp16") return Compute::fp16;
  if (name == "fp64") return Compute::fp64;
  TORCH_CHECK(false, "compute must be auto, fp32, bf16, fp16 or fp64, got `", name, "`");
}

using Pack = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>; /* loss, images, texts, scale, bias */

/* Gradients that are not wanted come out empty: an operator's outputs are tensors. */
Pack packed(const Gradients &g, const Tensor &like) {
  const auto or_empty = [&](const Tensor &x) { return x.defined() ? x : at::empty({0}, like.options()); };
  return {g.loss, or_empty(g.images), or_empty(g.texts), or_empty(g.scale), or_empty(g.bias)};
}

/* sweep::contrastive: both losses, with `bias` the sigmoid one. `wanted`: see Wanted::of. */
Pack contrastive(const Tensor &images, const Tensor &texts, const Tensor &scale, const std::optional<Tensor> &bias,
                 const std::optional<Tensor> &ids, double label_smoothing, c10::string_view compute,
                 int64_t budget_bytes, bool check_finite, int64_t wanted) {
  Options options;
  options.ids = ids;
  options.label_smoothing = label_smoothing;
  options.compute = compute_of(std::string(compute));
  options.budget_bytes = budget_bytes;
  options.check_finite = check_finite;
  const Wanted want = Wanted::of(wanted);
  return packed(bias ? siglip(images, texts, scale, *bias, options, want) : clip(images, texts, scale, options, want),
                images);
}

/* Shapes and types alone, for torch.compile and the meta device. */
Pack contrastive_shapes(const Tensor &images, const Tensor &texts, const Tensor &scale,
                        const std::optional<Tensor> &bias, const std::optional<Tensor> &, double, c10::string_view compute,
                        int64_t, bool, int64_t wanted) {
  const Compute type = compute_of(std::string(compute));
  const bool wide = type == Compute::fp64 || (type == Compute::automatic &&
                                              at::promote_types(images.scalar_type(), texts.scalar_type()) == at::kDouble);
  const auto shape = [&](bool yes, const Tensor &x) {
    const auto of = x.options().dtype(gradient_type(x, Wanted::of(wanted)));
    return yes ? at::empty(x.sizes(), of) : at::empty({0}, images.options());
  };
  return {at::empty({}, images.options().dtype(wide ? at::kDouble : at::kFloat)), shape(wanted & 1, images),
          shape(wanted & 2, texts), shape(wanted & 4, scale), shape(bias && (wanted & 8), bias ? *bias : scale)};
}

Pack dispatched(const Tensor &images, const Tensor &texts, const Tensor &scale, const std::optional<Tensor> &bias,
                const std::optional<Tensor> &ids, double label_smoothing, c10::string_view compute,
                int64_t budget_bytes, bool check_finite, int64_t wanted) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("sweep::contrastive", "").typed<decltype(contrastive)>();
  return op.call(images, texts, scale, bias, ids, label_smoothing, compute, budget_bytes, check_finite, wanted);
}

struct Loss : torch::autograd::Function<Loss> {
  static Tensor forward(AutogradContext *context, const Tensor &images, const Tensor &texts, const Tensor &scale,
                        const std::optional<Tensor> &bias, const std::optional<Tensor> &ids, double label_smoothing,
                        const std::string &compute, int64_t budget_bytes, bool check_finite) {
    int64_t wanted = Wanted::WIDE;
    const auto want = [&](const Tensor &x, int64_t bit) { wanted |= x.requires_grad() ? bit : 0; };
    want(images, 1), want(texts, 2), want(scale, 4);
    if (bias) want(*bias, 8);
    at::AutoDispatchBelowADInplaceOrView below;
    auto [loss, d_images, d_texts, d_scale, d_bias] =
        dispatched(images, texts, scale, bias, ids, label_smoothing, compute, budget_bytes, check_finite, wanted);
    context->save_for_backward({d_images, d_texts, d_scale, d_bias});
    context->saved_data["wanted"] = wanted;
    const auto type = [](const Tensor &x) { return int64_t(x.scalar_type()); };
    context->saved_data["types"] = std::vector<int64_t>{type(images), type(texts), type(scale), type(bias ? *bias : scale)};
    return loss;
  }

  static variable_list backward(AutogradContext *context, variable_list upstream) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "the contrastive losses have no second derivative: call backward without "
                                             "create_graph=True");
    const variable_list saved = context->get_saved_variables();
    const int64_t wanted = context->saved_data["wanted"].toInt();
    const std::vector<int64_t> types = context->saved_data["types"].toIntVector();
    variable_list out(9);
    /* Rounded once, after the product: a loss scaler's factor is there to lift what float16 would drop, and may itself be
     * more than float16 holds. */
    for (size_t i = 0; i < 4; ++i)
      if (wanted >> i & 1) out[i] = (saved[i] * upstream[0].to(saved[i].scalar_type())).to(at::ScalarType(types[i]));
    return out;
  }
};

} // namespace

Tensor loss(const Tensor &images, const Tensor &texts, const Tensor &scale, const std::optional<Tensor> &bias,
            const std::optional<Tensor> &ids, double label_smoothing, c10::string_view compute, int64_t budget_bytes,
            bool check_finite) {
  const bool any = images.requires_grad() || texts.requires_grad() || scale.requires_grad() || (bias && bias->requires_grad());
  if (!at::GradMode::is_enabled() || !any)
    return std::get<0>(dispatched(images, texts, scale, bias, ids, label_smoothing, compute, budget_bytes, check_finite, 0));
  return Loss::apply(images, texts, scale, bias, ids, label_smoothing, std::string(compute), budget_bytes, check_finite);
}

namespace {
Tensor clip_loss(const Tensor &images, const Tensor &texts, const Tensor &scale, const std::optional<Tensor> &ids,
                 double label_smoothing, c10::string_view compute, int64_t budget_bytes, bool check_finite) {
  return loss(images, texts, scale, std::nullopt, ids, label_smoothing, compute, budget_bytes, check_finite);
}
Tensor siglip_loss(const Tensor &images, const Tensor &texts, const Tensor &scale, const Tensor &bias,
                   const std::optional<Tensor> &ids, c10::string_view compute, int64_t budget_bytes, bool check_finite) {
  return loss(images, texts, scale, bias, ids, 0.0, compute, budget_bytes, check_finite);
}
} // namespace

TORCH_LIBRARY(sweep, m) {
  m.def("contrastive(Tensor images, Tensor texts, Tensor scale, Tensor? bias, Tensor? ids, float label_smoothing, "
        "str compute, int budget_bytes, bool check_finite, int wanted) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        {at::Tag::cudagraph_unsafe}); /* it reads a flag, so it waits for the device */
  m.def("clip_loss(Tensor images, Tensor texts, Tensor scale, Tensor? ids=None, float label_smoothing=0., "
        "str compute='auto', int budget_bytes=1073741824, bool check_finite=False) -> Tensor", clip_loss);
  m.def("siglip_loss(Tensor images, Tensor texts, Tensor scale, Tensor bias, Tensor? ids=None, "
        "str compute='auto', int budget_bytes=1073741824, bool check_finite=False) -> Tensor", siglip_loss);
}
TORCH_LIBRARY_IMPL(sweep, CPU, m) { m.impl("contrastive", contrastive); }
TORCH_LIBRARY_IMPL(sweep, CUDA, m) { m.impl("contrastive", contrastive); }
TORCH_LIBRARY_IMPL(sweep, Meta, m) { m.impl("contrastive", contrastive_shapes); }

} // namespace sweep
