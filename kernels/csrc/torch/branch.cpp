#include "branch.h"
#include "../cpu/branch.h"
#include "../cpu/linear.h"
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace sweep {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

const float *floats_of(const Tensor &x) { return x.const_data_ptr<float>(); }
float *floats_in(const Tensor &x) { return x.mutable_data_ptr<float>(); }

BranchWeights weights_of(const variable_list &layers) {
  return {floats_of(layers[0]), floats_of(layers[1]), floats_of(layers[2]), floats_of(layers[3]), floats_of(layers[4]), floats_of(layers[5])};
}

/* What says everything of a branch but its tensors, as autograd keeps it. */
void save(AutogradContext *context, const Branch &branch) {
  std::vector<int64_t> numbers{branch.width, branch.inner, branch.outer, branch.half, branch.heads, branch.causal, int64_t(branch.activation)};
  for (const Sequences &group : branch.sequences) numbers.insert(numbers.end(), {group.count, group.tokens});
  context->saved_data["numbers"] = numbers;
  context->saved_data["eps"] = double(branch.eps);
}

Branch restored(AutogradContext *context) {
  const std::vector<int64_t> n = context->saved_data["numbers"].toIntVector();
  Branch branch{n[0], n[1], n[2], float(context->saved_data["eps"].toDouble()), n[3] != 0, {}, n[4], n[5] != 0, Activation(n[6])};
  for (size_t i = 7; i < n.size(); i += 2) branch.sequences.push_back({n[i], n[i + 1]});
  return branch;
}

/* (rows, columns), in memory for as many rows as a multiple of an eighth has: captions make other rows of each batch, and a heap reuses
 * blocks of sizes that it was asked for before. */
Tensor rows_of(int64_t rows, int64_t columns, const at::TensorOptions &options) {
  int64_t eighth = 16;
  while (eighth * 16 <= rows) eighth *= 2;
  return at::empty({(rows + eighth - 1) / eighth * eighth, columns}, options).resize_({rows, columns});
}

void *data_of(const Tensor &x) { return x.defined() ? x.data_ptr() : nullptr; }
float *stats_of(const Tensor &x) { return static_cast<float *>(data_of(x)); }

variable_list layers_of(const variable_list &saved) { return {saved.begin() + 1, saved.begin() + 7}; }

/* Of all rows, or with `pooled` (S) of those alone. */
struct Applied : torch::autograd::Function<Applied> {
  static Tensor forward(AutogradContext *context, const Tensor &x, const Tensor &norm_weight, const Tensor &norm_bias,
                        const Tensor &in_weight, const Tensor &in_bias, const Tensor &out_weight, const Tensor &out_bias,
                        const Branch &branch, bool keeps, const std::optional<Tensor> &given) {
    variable_list saved{x, norm_weight, norm_bias, in_weight, in_bias, out_weight, out_bias};
    const Tensor pooled = given.value_or(Tensor());
    const bool all = !pooled.defined();
    const int64_t width = branch.width, rows = x.size(0), rows_out = all ? rows : pooled.size(0);
    Tensor y = rows_of(rows_out, width, x.options()), stats, z, q, g;
    if (keeps) {
      const auto type = x.options().dtype(branch.half ? at::kBFloat16 : at::kFloat);
      stats = rows_of(rows, 2, x.options());
      z = rows_of(rows, all ? branch.inner : 2 * width, type);
      if (!all) q = rows_of(rows_out, width, type);
      if (branch.attends()) g = rows_of(rows_out, branch.outer, type);
    }
    const BranchWeights weights = weights_of(layers_of(saved));
    if (all) branch_forward(branch, weights, floats_of(x), floats_in(y), {stats_of(stats), data_of(z), data_of(g)});
    else
      pooled_forward(branch, pooled.const_data_ptr<int64_t>(), weights, floats_of(x), floats_in(y),
                     {stats_of(stats), data_of(z), data_of(q), data_of(g)});
    if (keeps) {
      saved.insert(saved.end(), {stats, z, q, g, pooled});
      context->save_for_backward(saved);
      save(context, branch);
    }
    return y;
  }

  static variable_list backward(AutogradContext *context, variable_list upstream) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "half a block has no second derivative: call backward without create_graph=True");
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved[0], &stats = saved[7], &z = saved[8], &q = saved[9], &g = saved[10], &pooled = saved[11];
    const Tensor dy = upstream[0].contiguous();
    const Branch branch = restored(context);
    const BranchWeights weights = weights_of(layers_of(saved));
    variable_list out(10); /* as many as forward takes */
    out[0] = rows_of(x.size(0), x.size(1), x.options());
    for (size_t i = 1; i < 7; ++i) out[i] = at::empty_like(saved[i]);
    const BranchGradients gradients{floats_in(out[1]), floats_in(out[2]), floats_in(out[3]),
                                    floats_in(out[4]), floats_in(out[5]), floats_in(out[6])};
    if (!pooled.defined())
      branch_backward(branch, weights, floats_of(x), floats_of(dy), {stats_of(stats), data_of(z), data_of(g)}, floats_in(out[0]), gradients);
    else
      pooled_backward(branch, pooled.const_data_ptr<int64_t>(), weights, floats_of(x), floats_of(dy),
                      {stats_of(stats), data_of(z), data_of(q), data_of(g)}, floats_in(out[0]), gradients);
    return out;
  }
};

Tensor applied(const Tensor &given, const BranchLayers &layers, Branch branch, const std::optional<Tensor> &pooled = std::nullopt) {
  TORCH_CHECK(given.dim() == 2 && given.numel() > 0, "half a block takes x (R, W) of at least a row, got ", given.sizes());
  const int64_t width = given.size(1), inner = layers.in_weight.size(0), outer = layers.out_weight.size(-1);
  const auto fits = [](const Tensor &t, at::IntArrayRef shape) {
    return t.device().is_cpu() && t.scalar_type() == at::kFloat && t.sizes() == shape;
  };
  TORCH_CHECK(branch_available(given), "half a block takes float32 on a CPU with AVX2");
  TORCH_CHECK(inner > 0 && outer > 0, "half a block has something between its layers, got W1 ", layers.in_weight.sizes());
  TORCH_CHECK(fits(layers.norm_weight, {width}) && fits(layers.norm_bias, {width}) && fits(layers.in_weight, {inner, width}) &&
                  fits(layers.in_bias, {inner}) && fits(layers.out_weight, {width, outer}) && fits(layers.out_bias, {width}),
              "half a block of width ", width, " takes gamma and beta (W), W1 (N, W), b1 (N), W2 (W, M), b2 (W), all float32");
  branch.width = width, branch.inner = inner, branch.outer = outer, branch.eps = float(layers.eps);
  variable_list all{given, layers.norm_weight, layers.norm_bias, layers.in_weight, layers.in_bias, layers.out_weight, layers.out_bias};
  bool keeps = false;
  for (Tensor &each : all) {
    keeps |= at::GradMode::is_enabled() && each.requires_grad();
    each = each.contiguous();
  }
  return Applied::apply(all[0], all[1], all[2], all[3], all[4], all[5], all[6], branch, keeps, pooled);
}

/* What attention is of, for x (R, W). */
Branch attention_of(const Tensor &x, const BranchLayers &layers, at::IntArrayRef sequences, int64_t heads, bool causal, bool half) {
  Branch branch{};
  int64_t rows = 0;
  TORCH_CHECK(sequences.size() % 2 == 0, "sequences are pairs of how many of how many tokens, got ", sequences);
  for (size_t i = 0; i + 1 < sequences.size(); i += 2) {
    TORCH_CHECK(sequences[i] > 0 && sequences[i + 1] > 0, "sequences are pairs of how many of how many tokens, got ", sequences);
    branch.sequences.push_back({sequences[i], sequences[i + 1]});
    rows += sequences[i] * sequences[i + 1];
  }
  const int64_t width = x.size(-1);
  TORCH_CHECK(rows == x.size(0), "sequences of ", rows, " tokens in all, but x has ", x.size(0), " rows");
  TORCH_CHECK(heads > 0 && width % heads == 0, heads, " heads don't divide a width of ", width);
  TORCH_CHECK(layers.in_weight.size(0) == 3 * width && layers.out_weight.size(-1) == width, "attention takes W1 (3 W, W) and W2 (W, W)");
  branch.heads = heads, branch.causal = causal, branch.half = half;
  return branch;
}

} // namespace

bool branch_available(const Tensor &x) {
  return x.defined() && x.device().is_cpu() && x.scalar_type() == at::kFloat && layers_available();
}

Tensor attention_branch(const Tensor &x, const BranchLayers &layers, at::IntArrayRef sequences, int64_t heads, bool causal, bool half) {
  return applied(x, layers, attention_of(x, layers, sequences, heads, causal, half));
}

Tensor pooled_attention_branch(const Tensor &x, const BranchLayers &layers, at::IntArrayRef sequences, const Tensor &pooled,
                               int64_t heads, bool causal, bool half) {
  const Branch branch = attention_of(x, layers, sequences, heads, causal, half);
  const Tensor rows = pooled.contiguous();
  TORCH_CHECK(rows.device().is_cpu() && rows.scalar_type() == at::kLong && rows.dim() == 1, "pooled rows are (S) int64");
  int64_t index = 0, first = 0;
  for (const Sequences &group : branch.sequences)
    for (int64_t s = 0; s < group.count; ++s, ++index, first += group.tokens) {
      const int64_t row = index < rows.size(0) ? rows.const_data_ptr<int64_t>()[index] : -1;
      TORCH_CHECK(row >= first && row < first + group.tokens, "sequence ", index, " has rows ", first, " to ", first + group.tokens - 1,
                  ", but pools row ", row);
    }
  TORCH_CHECK(index == rows.size(0), index, " sequences, but ", rows.size(0), " pooled rows");
  return applied(x, layers, branch, rows);
}

Tensor mlp_branch(const Tensor &x, const BranchLayers &layers, const std::string &activation, bool half) {
  Branch branch{};
  TORCH_CHECK(activation == "gelu" || activation == "gelu_tanh" || activation == "quick_gelu",
              "activation `", activation, "`; allowed: gelu, gelu_tanh, quick_gelu");
  TORCH_CHECK(layers.in_weight.size(0) == layers.out_weight.size(-1), "an MLP takes W1 (N, W) and W2 (W, N)");
  branch.activation = activation == "gelu" ? Activation::gelu : activation == "gelu_tanh" ? Activation::gelu_tanh : Activation::quick_gelu;
  branch.half = half;
  branch.sequences.push_back({x.size(0), 1});
  return applied(x, layers, branch);
}

TORCH_LIBRARY_FRAGMENT(sweep, m) {
  m.def("attention_branch(Tensor x, Tensor norm_weight, Tensor norm_bias, Tensor in_weight, Tensor in_bias, Tensor out_weight, "
        "Tensor out_bias, float eps, int[] sequences, int heads, bool causal=False, bool half=False) -> Tensor",
        [](const Tensor &x, const Tensor &norm_weight, const Tensor &norm_bias, const Tensor &in_weight, const Tensor &in_bias,
           const Tensor &out_weight, const Tensor &out_bias, double eps, at::IntArrayRef sequences, int64_t heads, bool causal, bool half) {
          return attention_branch(x, {norm_weight, norm_bias, in_weight, in_bias, out_weight, out_bias, eps}, sequences, heads, causal, half);
        });
  m.def("pooled_attention_branch(Tensor x, Tensor norm_weight, Tensor norm_bias, Tensor in_weight, Tensor in_bias, Tensor out_weight, "
        "Tensor out_bias, float eps, int[] sequences, Tensor pooled, int heads, bool causal=False, bool half=False) -> Tensor",
        [](const Tensor &x, const Tensor &norm_weight, const Tensor &norm_bias, const Tensor &in_weight, const Tensor &in_bias,
           const Tensor &out_weight, const Tensor &out_bias, double eps, at::IntArrayRef sequences, const Tensor &pooled, int64_t heads,
           bool causal, bool half) {
          const BranchLayers layers{norm_weight, norm_bias, in_weight, in_bias, out_weight, out_bias, eps};
          return pooled_attention_branch(x, layers, sequences, pooled, heads, causal, half);
        });
  m.def("mlp_branch(Tensor x, Tensor norm_weight, Tensor norm_bias, Tensor in_weight, Tensor in_bias, Tensor out_weight, "
        "Tensor out_bias, float eps, str activation='gelu', bool half=False) -> Tensor",
        [](const Tensor &x, const Tensor &norm_weight, const Tensor &norm_bias, const Tensor &in_weight, const Tensor &in_bias,
           const Tensor &out_weight, const Tensor &out_bias, double eps, const std::string &activation, bool half) {
          return mlp_branch(x, {norm_weight, norm_bias, in_weight, in_bias, out_weight, out_bias, eps}, activation, half);
        });
}

} // namespace sweep
