/* Checks, types, ignored pairs, ranks. */
#include "batch.h"

namespace sweep {
namespace {

void check_inputs(const char *loss, const Tensor &images, const Tensor &texts, const Tensor &scale, const Tensor *bias,
                  const Options &options) {
  const auto matrix = [&](const Tensor &x, const char *what) {
    TORCH_CHECK(x.dim() == 2, loss, ": ", what, " must be a matrix (B, D), got ", x.dim(), " dimensions");
    const auto type = x.scalar_type();
    TORCH_CHECK(type == at::kFloat || type == at::kDouble || type == at::kBFloat16 || type == at::kHalf, loss, ": ",
                what, " must be float32, float64, bfloat16 or float16, got ", type);
    TORCH_CHECK(x.device().is_cpu() || x.device().is_cuda(), loss, ": ", what, " must be on the CPU or a CUDA device, got ",
                x.device());
  };
  matrix(images, "images");
  matrix(texts, "texts");
  TORCH_CHECK(images.sizes() == texts.sizes(), loss, ": images and texts must have one shape (B, D), got ",
              images.sizes(), " and ", texts.sizes());
  TORCH_CHECK(images.size(1) > 0, loss, ": features need a width of at least 1");
  TORCH_CHECK(images.device() == texts.device(), loss, ": images are on ", images.device(), ", texts on ",
              texts.device(), "; move one of them");
  TORCH_CHECK(scale.numel() == 1 && at::isFloatingType(scale.scalar_type()), loss,
              ": scale must be one floating-point number, got shape ", scale.sizes(), " of ", scale.scalar_type());
  TORCH_CHECK(scale.device() == images.device(), loss, ": scale is on ", scale.device(), ", features on ",
              images.device(), "; move it");
  TORCH_CHECK(options.label_smoothing >= 0 && options.label_smoothing <= 1, loss,
              ": label_smoothing must lie in [0, 1], got ", options.label_smoothing);
  TORCH_CHECK(options.budget_bytes >= 0, loss, ": budget_bytes must be at least 0, got ", options.budget_bytes);
  if (options.ids) {
    const Tensor &ids = *options.ids;
    TORCH_CHECK(ids.dim() == 1 && ids.size(0) == images.size(0) && ids.scalar_type() == at::kLong, loss,
                ": ids must be int64 of shape (B), one for each pair, got ", ids.scalar_type(), " of shape ", ids.sizes());
    TORCH_CHECK(ids.device() == images.device(), loss, ": ids are on ", ids.device(), ", features on ", images.device(),
                "; move them");
  }
  if (bias)
    TORCH_CHECK(bias->numel() == 1 && at::isFloatingType(bias->scalar_type()) && bias->device() == images.device(), loss,
                ": bias must be one floating-point number on ", images.device(), ", got shape ", bias->sizes(), " of ",
                bias->scalar_type(), " on ", bias->device());
  TORCH_CHECK(!bias || options.label_smoothing == 0, loss,
              ": label_smoothing is not defined for the sigmoid loss; give 0");
  /* Captions of one image are taken out of an engine's sums by an infinite distance, which no factor of 0 would keep. */
  TORCH_CHECK(!options.ids || scale.item<double>() != 0, loss, ": with ids the scale must not be 0");
}

void check_finite(const char *loss, const Tensor &x, const char *what, const Tensor &valid) {
  const Tensor bad = at::isfinite(x).logical_not().nonzero();
  if (bad.numel() == 0) return;
  const int64_t row = x.dim() == 2 ? bad.select(0, 0).select(0, 0).item<int64_t>() : 0;
  TORCH_CHECK(false, loss, ": ", what, " hold ", bad.size(0), " numbers that are not finite, the first at row ",
              valid.defined() ? valid.select(0, row).item<int64_t>() : row,
              "; look for a loss that diverged or a division by a zero norm");
}

at::ScalarType compute_type(const char *loss, const Tensor &images, const Tensor &texts, Compute compute) {
  switch (compute) {
  case Compute::fp32: return at::kFloat;
  case Compute::bf16: return at::kBFloat16;
  case Compute::fp16: return at::kHalf;
  case Compute::fp64: return at::kDouble;
  case Compute::automatic: break;
  default: TORCH_CHECK(false, loss, ": unknown compute type ", int32_t(compute));
  }
  return at::promote_types(images.scalar_type(), texts.scalar_type());
}

/* A view may start anywhere; CUDA's loads need 16 bytes, and the order of a library's sums may depend on 64. */
Tensor aligned(const Tensor &x) {
  return reinterpret_cast<uintptr_t>(x.data_ptr()) % 64 == 0 ? x : x.clone(at::MemoryFormat::Contiguous);
}

void agreed(int code) { TORCH_CHECK(code == 0, "another rank, or the way to it, failed (see the error of the group)"); }

/* This rank's half of a batch. */
Batch own(const char *loss, const Tensor &images, const Tensor &texts, const Tensor &scale, const Tensor *bias,
          const Options &options) {
  check_inputs(loss, images, texts, scale, bias, options);
  Batch batch;
  batch.given = images.size(0);
  const at::ScalarType type = compute_type(loss, images, texts, options.compute);
  /* The CPU multiplies float16 no faster; float32 holds it exactly. */
  const at::ScalarType used = type == at::kHalf && images.is_cpu() ? at::kFloat : type;
  batch.images = images.detach();
  batch.texts = texts.detach();
  if (options.ids) {
    batch.ids = options.ids->contiguous();
    const Tensor keep = batch.ids.ge(0);
    if (!keep.all().item<bool>()) {
      batch.valid = keep.nonzero().select(1, 0).contiguous();
      batch.images = batch.images.index_select(0, batch.valid);
      batch.texts = batch.texts.index_select(0, batch.valid);
      batch.ids = batch.ids.index_select(0, batch.valid);
    }
  }
  batch.images = aligned(batch.images.to(used).contiguous());
  batch.texts = aligned(batch.texts.to(used).contiguous());
  if (options.check_finite) { /* after the cast: what float32 holds may be too large for float16 */
    check_finite(loss, batch.images, "images", batch.valid);
    check_finite(loss, batch.texts, "texts", batch.valid);
    check_finite(loss, scale.reshape({1}), "scale", {});
    if (bias) check_finite(loss, bias->reshape({1}), "bias", {});
  }
  return batch;
}

} // namespace

Batch prepare(const char *loss, const Tensor &images, const Tensor &texts, const Tensor &scale, const Tensor *bias,
              const Options &options) {
  const int64_t world = options.group ? options.group->world : 1, rank = options.group ? options.group->rank : 0;
  Batch batch;
  std::string refused;
  try {
    batch = own(loss, images, texts, scale, bias, options);
  } catch (const c10::Error &error) {
    if (world == 1) throw;
    refused = error.what_without_backtrace();
  }
  if (world == 1) {
    batch.counts = {batch.images.size(0)};
  } else { /* pairs of each rank, and how many ranks refused theirs */
    Tensor counts = at::zeros({world + 1}, at::kDouble);
    counts.data_ptr<double>()[refused.empty() ? rank : world] = refused.empty() ? double(batch.images.size(0)) : 1;
    counts = counts.to(images.device());
    all_reduce(options, counts, false);
    counts = counts.cpu();
    const double *each = counts.data_ptr<double>();
    TORCH_CHECK(refused.empty(), refused);
    TORCH_CHECK(each[world] == 0, loss, ": the input of ", each[world], " other rank(s) was refused; see what they say");
    batch.counts.assign(each, each + world);
  }
  for (int64_t r = 0; r < world; ++r) {
    if (r < rank) batch.first += batch.counts[size_t(r)];
    batch.total += batch.counts[size_t(r)];
  }
  batch.all_texts = gathered(options, batch, batch.texts);
  if (batch.ids.defined()) batch.all_ids = gathered(options, batch, batch.ids);
  return batch;
}

void all_reduce(const Options &options, Tensor &values, bool maximum) {
  if (options.group) agreed(options.group->all_reduce(options.group->self, &values, maximum));
}

Tensor gathered(const Options &options, const Batch &batch, const Tensor &local) {
  if (!options.group) return local;
  auto shape = local.sizes().vec();
  shape[0] = batch.total;
  Tensor all = at::empty(shape, local.options());
  agreed(options.group->gather_rows(options.group->self, &local, &all, batch.counts.data()));
  return all;
}

Tensor scattered(const Options &options, const Batch &batch, const Tensor &all) {
  if (!options.group) return all;
  Tensor own = at::empty({batch.images.size(0), all.size(1)}, all.options());
  agreed(options.group->scatter_rows(options.group->self, &all, &own, batch.counts.data()));
  return own;
}

} // namespace sweep
