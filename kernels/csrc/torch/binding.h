/* What Rust calls: kernels/src/ffi.rs mirrors this file. */
#pragma once
#include "adamw.h"
#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <cstdint>

#pragma GCC visibility push(default)
extern "C" {

struct sweep_inputs {
  const at::Tensor *images, *texts, *scale;
  const at::Tensor *bias; /* null: InfoNCE; else the sigmoid loss */
  const at::Tensor *ids;  /* null: every pair is its own image */
  double label_smoothing;
  int32_t compute; /* 0 automatic, 1 fp32, 2 bf16, 3 fp16, 4 fp64 */
  int32_t check_finite;
  int64_t budget_bytes;
};

/* The ranks of a group; see sweep::Group. */
struct sweep_group {
  int64_t rank, world;
  void *self;
  int (*gather_rows)(void *self, const at::Tensor *local, at::Tensor *all, const int64_t *counts);
  int (*scatter_rows)(void *self, const at::Tensor *all, at::Tensor *local_sum, const int64_t *counts);
  int (*all_reduce)(void *self, at::Tensor *values, int32_t maximum);
};

/* 0, or 1 with the words in sweep_last_error (of this thread, until its next call). Tensors that come out are the caller's. */
const char *sweep_last_error(void);
/* The current stream of a tensor's device; null on the CPU. */
void *sweep_stream(const at::Tensor *tensor);
/* The loss with autograd. */
int sweep_loss(const sweep_inputs *in, at::Tensor **out);
/* Loss and gradients (loss, images, texts, scale, bias; null where not wanted). `wanted`: bits 1, 2, 4, 8. */
int sweep_gradients(const sweep_inputs *in, const sweep_group *group, int32_t wanted, at::Tensor **out);
/* A leaf's gradient, borrowed for the call; not 0 ends the walk. */
typedef int (*sweep_take)(void *self, int64_t leaf, const at::Tensor *gradient);
/* See backward.h. */
int sweep_backward(const at::Tensor *loss, const at::Tensor *const *leaves, int64_t count, sweep_take take, void *self);
/* See recompute.h. `run` gives a tensor that is the callee's own, or null if it failed; `drop` is called once, when `self` is needed no
 * more, whatever came out. */
typedef at::Tensor *(*sweep_run)(void *self, const at::Tensor *const *inputs, int64_t count);
typedef void (*sweep_drop)(void *self);
int sweep_recompute(const at::Tensor *const *inputs, int64_t count, sweep_run run, sweep_drop drop, void *self, at::Tensor **out);
/* See adamw.h; each list has `count` tensors. */
int sweep_adamw(const at::Tensor *const *weights, const at::Tensor *const *gradients, const at::Tensor *const *first,
                const at::Tensor *const *second, int64_t count, const sweep::AdamWNumbers *numbers, const at::Tensor *clip);
/* See memory.h, of a tensor's device. */
int sweep_peak_bytes(const at::Tensor *of, int64_t *out);
int sweep_reset_peak_bytes(const at::Tensor *of);
int sweep_pinned(const at::Tensor *x, at::Tensor **out);
/* See stream.h, of a tensor's device. A mark is freed by its caller; on a CPU it is null. */
int sweep_use_side_stream(const at::Tensor *of);
int sweep_mark(const at::Tensor *of, c10::Event **out);
int sweep_wait(const c10::Event *mark);
int sweep_record_use(const at::Tensor *x);
void sweep_free_mark(c10::Event *mark);
/* x W^T + b with autograd; `bias` may be null. See linear.h. */
int sweep_linear(const at::Tensor *x, const at::Tensor *weight, const at::Tensor *bias, int32_t half, at::Tensor **out);

/* Whether x is served by the two that follow. */
int sweep_branch_available(const at::Tensor *x);
/* Halves of a transformer block, see branch.h. `layers`: gamma, beta, W1, b1, W2, b2. `sequences`: pairs of how many of how many
 * tokens; `pooled` may be null, for all rows. `activation` is an index of {"gelu", "gelu_tanh", "quick_gelu"}. */
int sweep_attention_branch(const at::Tensor *x, const at::Tensor *const *layers, double eps, const int64_t *sequences, int64_t groups,
                           const at::Tensor *pooled, int64_t heads, int32_t causal, int32_t half, at::Tensor **out);
int sweep_mlp_branch(const at::Tensor *x, const at::Tensor *const *layers, double eps, int32_t activation, int32_t half, at::Tensor **out);
}
#pragma GCC visibility pop
