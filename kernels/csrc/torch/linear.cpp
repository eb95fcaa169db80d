#include "linear.h"
#include "../cpu/linear.h"
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace sweep {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/* Rows of x's last dimension. */
int64_t rows_of(const Tensor &x) { return x.numel() / std::max<int64_t>(1, x.size(-1)); }

const float *floats_of(const Tensor &x) { return x.const_data_ptr<float>(); }

struct Linear : torch::autograd::Function<Linear> {
  static Tensor forward(AutogradContext *context, const Tensor &input, const Tensor &given_weight,
                        const std::optional<Tensor> &bias, bool half) {
    const Tensor x = input.contiguous(), weight = given_weight.contiguous();
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = weight.size(0);
    Tensor y = at::empty(shape, x.options());
    layer_forward(rows_of(x), weight.size(0), weight.size(1), floats_of(x), floats_of(weight),
                  bias ? floats_of(*bias) : nullptr, y.mutable_data_ptr<float>(), half);
    context->save_for_backward({x, weight});
    context->saved_data["half"] = half;
    context->saved_data["biased"] = bias.has_value();
    return y;
  }

  static variable_list backward(AutogradContext *context, variable_list upstream) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "sweep::linear has no second derivative: call backward without create_graph=True");
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], dy = upstream[0].contiguous();
    const bool half = context->saved_data["half"].toBool();
    const int64_t m = rows_of(x), n = weight.size(0), k = weight.size(1);
    variable_list out(4);
    if (context->needs_input_grad(0)) {
      out[0] = at::empty(x.sizes(), x.options());
      layer_inputs(m, n, k, floats_of(dy), floats_of(weight), out[0].mutable_data_ptr<float>(), half);
    }
    /* Inputs that are no tensors are not counted. */
    const bool of_bias = context->saved_data["biased"].toBool() && context->needs_input_grad(2);
    if (!context->needs_input_grad(1)) {
      if (of_bias) out[2] = dy.reshape({m, n}).sum(0);
    } else {
      out[1] = at::empty(weight.sizes(), weight.options());
      if (of_bias) out[2] = at::empty({n}, weight.options());
      layer_weights(m, n, k, floats_of(dy), floats_of(x), out[1].mutable_data_ptr<float>(),
                    out[2].defined() ? out[2].mutable_data_ptr<float>() : nullptr, half);
    }
    return out;
  }
};

bool serves(const Tensor &x, const Tensor &weight, const std::optional<Tensor> &bias) {
  const auto fits = [](const Tensor &t) { return t.device().is_cpu() && t.scalar_type() == at::kFloat && t.numel() > 0; };
  return fits(x) && fits(weight) && (!bias || (fits(*bias) && bias->is_contiguous())) && layers_available();
}

} // namespace

Tensor linear(const Tensor &x, const Tensor &weight, const std::optional<Tensor> &bias, bool half) {
  TORCH_CHECK(weight.dim() == 2 && x.dim() > 0 && x.size(-1) == weight.size(1), "linear takes x (.., k) and W (n, k), got ",
              x.sizes(), " and ", weight.sizes());
  TORCH_CHECK(!bias || (bias->dim() == 1 && bias->size(0) == weight.size(0)), "linear takes b (n), got ",
              bias ? bias->sizes() : at::IntArrayRef{});
  if (serves(x, weight, bias)) return Linear::apply(x, weight, bias, half);
  if (!half) return at::linear(x, weight, bias);
  const auto rounded = [](const Tensor &t) { return t.to(at::kBFloat16); };
  return at::linear(rounded(x), rounded(weight), bias ? std::optional<Tensor>(rounded(*bias)) : std::nullopt).to(at::kFloat);
}

TORCH_LIBRARY_FRAGMENT(sweep, m) {
  m.def("linear(Tensor x, Tensor weight, Tensor? bias=None, bool half=False) -> Tensor", linear);
}

} // namespace sweep
