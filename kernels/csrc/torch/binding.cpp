/* The losses and layers for Rust: a C interface on at::Tensor pointers, which are what tch's tensors are. No exception crosses it. */
#include "binding.h"
#include "backward.h"
#include "branch.h"
#include "linear.h"
#include "memory.h"
#include "operators.h"
#include "recompute.h"
#include "stream.h"
#include <exception>
#include <string>

namespace {

thread_local std::string last_error;

template <typename F> int guarded(F body) {
  try {
    body();
    return 0;
  } catch (const c10::Error &error) {
    last_error = error.what_without_backtrace();
  } catch (const std::exception &error) {
    last_error = error.what();
  }
  return 1;
}

std::optional<at::Tensor> optional(const at::Tensor *x) { return x ? std::optional<at::Tensor>(*x) : std::nullopt; }

std::vector<at::Tensor> list_of(const at::Tensor *const *all, int64_t count) {
  std::vector<at::Tensor> list;
  for (int64_t i = 0; i < count; ++i) list.push_back(*all[i]);
  return list;
}

at::Tensor *owned(const at::Tensor &x) { return x.defined() ? new at::Tensor(x) : nullptr; }

sweep::BranchLayers branch_layers(const at::Tensor *const *layers, double eps) {
  return {*layers[0], *layers[1], *layers[2], *layers[3], *layers[4], *layers[5], eps};
}

const char *const ACTIVATION_NAMES[] = {"gelu", "gelu_tanh", "quick_gelu"};
const char *const COMPUTE_NAMES[] = {"auto", "fp32", "bf16", "fp16", "fp64"};

} // namespace

extern "C" {

const char *sweep_last_error(void) { return last_error.c_str(); }

void *sweep_stream(const at::Tensor *tensor) {
  void *stream = nullptr;
  guarded([&] { stream = sweep::stream_of(tensor->device()); });
  return stream;
}

int sweep_loss(const sweep_inputs *in, at::Tensor **out) {
  return guarded([&] {
    *out = owned(sweep::loss(*in->images, *in->texts, *in->scale, optional(in->bias), optional(in->ids),
                             in->label_smoothing, COMPUTE_NAMES[in->compute], in->budget_bytes, in->check_finite != 0));
  });
}

int sweep_gradients(const sweep_inputs *in, const sweep_group *group, int32_t wanted, at::Tensor **out) {
  return guarded([&] {
    sweep::Options options;
    options.ids = optional(in->ids);
    options.label_smoothing = in->label_smoothing;
    options.compute = sweep::Compute(in->compute);
    options.budget_bytes = in->budget_bytes;
    options.check_finite = in->check_finite != 0;
    sweep::Group together;
    if (group && group->world > 1) {
      together = {group->rank, group->world, group->self, group->gather_rows, group->scatter_rows, group->all_reduce};
      options.group = &together;
    }
    const sweep::Wanted want = sweep::Wanted::of(wanted);
    const sweep::Gradients g = in->bias ? sweep::siglip(*in->images, *in->texts, *in->scale, *in->bias, options, want)
                                        : sweep::clip(*in->images, *in->texts, *in->scale, options, want);
    const at::Tensor *each[] = {&g.loss, &g.images, &g.texts, &g.scale, &g.bias};
    for (int i = 0; i < 5; ++i) out[i] = owned(*each[i]);
  });
}

int sweep_backward(const at::Tensor *loss, const at::Tensor *const *leaves, int64_t count, sweep_take take, void *self) {
  return guarded([&] {
    sweep::backward(*loss, list_of(leaves, count), [&](int64_t leaf, const at::Tensor &gradient) {
      TORCH_CHECK(take(self, leaf, &gradient) == 0, "whoever takes gradients has failed");
    });
  });
}

int sweep_recompute(const at::Tensor *const *inputs, int64_t count, sweep_run run, sweep_drop drop, void *self, at::Tensor **out) {
  const std::shared_ptr<void> kept(self, drop);
  return guarded([&] {
    *out = owned(sweep::recompute(list_of(inputs, count), [kept, run](const std::vector<at::Tensor> &given) {
      std::vector<const at::Tensor *> pointers;
      for (const at::Tensor &each : given) pointers.push_back(&each);
      const std::unique_ptr<at::Tensor> y(run(kept.get(), pointers.data(), int64_t(pointers.size())));
      TORCH_CHECK(y, "a part of the forward pass has failed");
      return *y;
    }));
  });
}

int sweep_adamw(const at::Tensor *const *weights, const at::Tensor *const *gradients, const at::Tensor *const *first,
                const at::Tensor *const *second, int64_t count, const sweep::AdamWNumbers *numbers, const at::Tensor *clip) {
  return guarded([&] {
    sweep::adamw(list_of(weights, count), list_of(gradients, count), list_of(first, count), list_of(second, count), *numbers, clip);
  });
}

int sweep_peak_bytes(const at::Tensor *of, int64_t *out) {
  return guarded([&] { *out = sweep::peak_bytes(of->device()); });
}

int sweep_reset_peak_bytes(const at::Tensor *of) {
  return guarded([&] { sweep::reset_peak_bytes(of->device()); });
}

int sweep_pinned(const at::Tensor *x, at::Tensor **out) {
  return guarded([&] { *out = owned(sweep::pinned(*x)); });
}

int sweep_use_side_stream(const at::Tensor *of) {
  return guarded([&] { sweep::use_side_stream(of->device()); });
}

int sweep_mark(const at::Tensor *of, c10::Event **out) {
  return guarded([&] { *out = sweep::mark_of(of->device()).release(); });
}

int sweep_wait(const c10::Event *mark) {
  return guarded([&] { sweep::wait_for(*mark); });
}

int sweep_record_use(const at::Tensor *x) {
  return guarded([&] { sweep::record_use(*x); });
}

void sweep_free_mark(c10::Event *mark) { delete mark; }

int sweep_linear(const at::Tensor *x, const at::Tensor *weight, const at::Tensor *bias, int32_t half, at::Tensor **out) {
  return guarded([&] { *out = owned(sweep::linear(*x, *weight, optional(bias), half != 0)); });
}

int sweep_branch_available(const at::Tensor *x) { return sweep::branch_available(*x); }

int sweep_attention_branch(const at::Tensor *x, const at::Tensor *const *layers, double eps, const int64_t *sequences, int64_t groups,
                           const at::Tensor *pooled, int64_t heads, int32_t causal, int32_t half, at::Tensor **out) {
  return guarded([&] {
    const at::IntArrayRef all(sequences, size_t(2 * groups));
    const sweep::BranchLayers own = branch_layers(layers, eps);
    *out = owned(pooled ? sweep::pooled_attention_branch(*x, own, all, *pooled, heads, causal != 0, half != 0)
                        : sweep::attention_branch(*x, own, all, heads, causal != 0, half != 0));
  });
}

int sweep_mlp_branch(const at::Tensor *x, const at::Tensor *const *layers, double eps, int32_t activation, int32_t half, at::Tensor **out) {
  return guarded([&] {
    *out = owned(sweep::mlp_branch(*x, branch_layers(layers, eps), ACTIVATION_NAMES[activation], half != 0));
  });
}
}
