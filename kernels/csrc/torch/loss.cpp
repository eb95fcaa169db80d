/* From features to a loss and its gradients: checks, types, captions of one image, ranks; engines do the B x B half.
 *
 * Targets. Both losses are linear in where their targets lie, so that captions of one image and label smoothing cost
 * O(B D) beside an engine that knows single positives alone. With P_i the captions of image i (ids equal), e smoothing:
 *
 *   InfoNCE   targets q_ij = (1 - e) [j in P_i] / |P_i| + e / B, rows and columns alike (soft-label cross entropy)
 *             L += s/B sum_i u_i . (v_i - w_i),  w_i = sum_j q_ij v_j     and dL/du_i += s/B (v_i - w_i), ...
 *   sigmoid   z_ij = +1 for j in P_i: softplus(-x) = softplus(x) - x, so
 *             L -= 1/B sum_i sum_{j in P_i, j != i} x_ij                  and dL/du_i -= s/B sum v_j, ...
 *
 * Scale. Both losses see s only in s u_i, so s dL/ds = sum_i u_i . dL/du_i: no product of its own.
 */
#include "loss.h"
#include <ATen/core/grad_mode.h>
#include <c10/core/DeviceGuard.h>
#include <limits>
#include <vector>

namespace sweep {
namespace {

/* Features as they came in, and as they go in. */
struct Batch {
  Tensor images, texts;    /* this rank's, valid pairs alone, compute type, contiguous */
  Tensor all_texts;        /* every rank's */
  Tensor ids, all_ids;     /* int64, or undefined */
  Tensor valid;            /* indices of the valid pairs, undefined: all */
  std::vector<int64_t> counts;
  int64_t first = 0, total = 0, given = 0;
};

const char *name_of(Compute c) {
  switch (c) {
  case Compute::fp32: return "fp32";
  case Compute::bf16: return "bf16";
  case Compute::fp16: return "fp16";
  case Compute::fp64: return "fp64";
  default: return "automatic";
  }
}

void check_inputs(const char *loss, const Tensor &images, const Tensor &texts, const Tensor &scale,
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
  if (options.check_finite) {
    const auto finite = [&](const Tensor &x, const char *what) {
      const Tensor bad = at::isfinite(x).logical_not().nonzero();
      if (bad.numel() == 0) return;
      const Tensor at = bad.select(0, 0).cpu();
      TORCH_CHECK(false, loss, ": ", what, " hold ", bad.size(0), " numbers that are not finite, the first at row ",
                  x.dim() ? at.data_ptr<int64_t>()[0] : 0, "; look for a loss that diverged or a division by a zero norm");
    };
    finite(images, "images");
    finite(texts, "texts");
    finite(scale.reshape({1}), "scale");
  }
}

at::ScalarType compute_type(const char *loss, const Tensor &images, const Tensor &texts, Compute compute) {
  switch (compute) {
  case Compute::fp32: return at::kFloat;
  case Compute::bf16: return at::kBFloat16;
  case Compute::fp16: return at::kHalf;
  case Compute::fp64: return at::kDouble;
  case Compute::automatic: break;
  default: TORCH_CHECK(false, loss, ": unknown compute type ", int32_t(compute), " (", name_of(compute), ")");
  }
  return at::promote_types(images.scalar_type(), texts.scalar_type());
}

void agreed(int code) { TORCH_CHECK(code == 0, "another rank, or the way to it, failed (see the error of the group)"); }

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

/* A view may start anywhere; CUDA's loads need 16 bytes, and the order of a library's sums may depend on 64. */
Tensor aligned(const Tensor &x) {
  return reinterpret_cast<uintptr_t>(x.data_ptr()) % 64 == 0 ? x : x.clone(at::MemoryFormat::Contiguous);
}

Batch prepare(const char *loss, const Tensor &images, const Tensor &texts, const Options &options) {
  Batch batch;
  batch.given = images.size(0);
  const at::ScalarType type = compute_type(loss, images, texts, options.compute);
  /* The CPU multiplies float16 no faster; float32 holds it exactly. */
  const at::ScalarType used = type == at::kHalf && images.is_cpu() ? at::kFloat : type;
  batch.images = images.detach();
  batch.texts = texts.detach();
  if (options.ids) {
    batch.ids = *options.ids;
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
  const int64_t world = options.group ? options.group->world : 1, rank = options.group ? options.group->rank : 0;
  batch.counts.assign(size_t(world), batch.images.size(0));
  if (world > 1) {
    Tensor counts = at::zeros({world}, at::kDouble);
    counts.data_ptr<double>()[rank] = double(batch.images.size(0));
    if (!images.is_cpu()) counts = counts.to(images.device());
    all_reduce(options, counts, false);
    counts = counts.cpu();
    for (int64_t r = 0; r < world; ++r) batch.counts[size_t(r)] = int64_t(counts.data_ptr<double>()[r]);
  }
  for (int64_t r = 0; r < world; ++r) {
    if (r < rank) batch.first += batch.counts[size_t(r)];
    batch.total += batch.counts[size_t(r)];
  }
  batch.all_texts = gathered(options, batch, batch.texts);
  if (batch.ids.defined()) batch.all_ids = gathered(options, batch, batch.ids);
  return batch;
}

Tensor vector_of(int64_t n, const Tensor &like, double fill = 0) {
  return at::full({n}, fill, like.options().dtype(at::kDouble));
}

Side side_of(int64_t n, const Tensor &like, bool stable) {
  Side side;
  side.sum = vector_of(n, like);
  side.diagonal = vector_of(n, like);
  side.loss = vector_of(n, like), side.slope = vector_of(n, like);
  side.lse = vector_of(n, like), side.inverse = vector_of(n, like);
  if (stable) side.max = vector_of(n, like, -std::numeric_limits<double>::infinity());
  return side;
}

double *data(const Tensor &x) { return x.defined() ? x.data_ptr<double>() : nullptr; }

/* Largest row norm, float32, shape (). */
Tensor largest_norm(const Tensor &x) {
  if (x.size(0) == 0) return at::zeros({}, x.options().dtype(at::kFloat));
  const auto type = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return at::linalg_vector_norm(x, 2, at::IntArrayRef{1}, false, type).max().to(at::kFloat);
}

Towers towers_of(const Batch &batch, const Tensor &scale, const Options &options) {
  Towers towers{batch.images, batch.all_texts, batch.first, options.budget_bytes, vector_of(6, batch.images)};
  towers.scalars.narrow(0, 0, 1).copy_(scale.detach().reshape({1}));
  Tensor norms = at::stack({largest_norm(batch.images), largest_norm(batch.texts)});
  all_reduce(options, norms, true);
  const float *norm = norms.data_ptr<float>();
  const at::Device device = batch.images.device();
  check_code(kernels_of(device).exponent_offset(towers.numbers(), norm, norm + 1, stream_of(device)), "offset");
  return towers;
}

/* How the exponent is held in range, each way tried where the one before found a sum too small. */
enum class Range {
  bound,   /* offset from the largest norms: nothing is computed for it */
  largest, /* offset from the largest logit: for features far from unit length, or far from one another */
  stable   /* each row and column its own maximum: for anything */
};

constexpr double LN_2 = 0.6931471805599453;

void offset_from_largest(const Towers &towers, const Options &options) {
  Tensor most = largest_product(towers);
  all_reduce(options, most, true);
  const Tensor over = most.mul_(towers.scalars.select(0, 0)).sub_(70).clamp_min_(0);
  towers.scalars.select(0, 1).copy_(over.div_(LN_2).floor_().mul_(LN_2)); /* as exponent_offset rounds */
  towers.scalars.narrow(0, 3, 3).zero_();
}

/* Sums of both sides, over all ranks, and what follows from them. Returns whether the common offset served. */
bool both_sides(const Towers &towers, const Batch &batch, const Options &options, Engine &engine, Side &rows,
                Side &columns, bool keep) {
  const at::Device device = towers.images.device();
  const auto &kernels = kernels_of(device);
  void *stream = stream_of(device);
  engine.sums(rows, columns, keep);
  if (options.group) {
    if (columns.max.defined()) { /* bring this rank's sums to the common maxima */
      Tensor most = columns.max.clone();
      all_reduce(options, most, true);
      columns.sum.mul_(at::where(columns.max.eq(most), at::zeros_like(most), columns.max.sub(most)).exp_());
      columns.max = most;
    }
    all_reduce(options, columns.sum, false);
  }
  columns.diagonal = gathered(options, batch, rows.diagonal);
  for (Side *side : {&rows, &columns})
    check_code(kernels.side(towers.numbers(), side->sum.size(0), data(side->max), data(side->sum), data(side->diagonal),
                            data(side->loss), data(side->slope), data(side->lse), data(side->inverse), stream),
               "sides");
  if (rows.max.defined()) return true;
  Tensor flag = towers.scalars.view(at::kLong).narrow(0, 5, 1).to(at::kDouble);
  all_reduce(options, flag, true);
  return flag.item<double>() == 0;
}

/* sum of rows with one id, for each id: (groups, D) in x's type; `at`: the group of each row. */
struct Captions {
  Tensor group_of_rows, group_of_columns; /* (b), (B) int64 */
  Tensor sizes;                           /* (groups) float64: captions of all ranks */
  int64_t groups = 0;
};

Captions captions_of(const Batch &batch) {
  Captions captions;
  const auto [unique, inverse, counts] = at::_unique2(batch.all_ids, true, true, true);
  captions.group_of_columns = inverse;
  captions.group_of_rows = inverse.narrow(0, batch.first, batch.images.size(0));
  captions.sizes = counts.to(at::kDouble);
  captions.groups = unique.size(0);
  return captions;
}

Tensor group_sums(const Tensor &x, const Tensor &group, int64_t groups) {
  return at::zeros({groups, x.size(1)}, x.options()).index_add_(0, group, x);
}

/* (b, D) float: v_i - w_i, and (B, D): this rank's part of u_j - w_j, w the mean of the targets. */
struct Targets {
  Tensor images, texts;
};

Targets smooth_targets(const Batch &batch, const Options &options, at::ScalarType type) {
  const double smooth = options.label_smoothing;
  const Tensor u = batch.images.to(type), v = batch.all_texts.to(type);
  const Tensor own = v.narrow(0, batch.first, u.size(0));
  Targets targets;
  Tensor of_images, of_texts; /* means of the captions' texts (b, D); this rank's images by caption (B, D) */
  if (batch.ids.defined()) {
    const Captions captions = captions_of(batch);
    const Tensor sizes = captions.sizes.to(type).unsqueeze(1);
    of_images = group_sums(v, captions.group_of_columns, captions.groups).div_(sizes).index_select(0, captions.group_of_rows);
    of_texts = group_sums(u, captions.group_of_rows, captions.groups).div_(sizes).index_select(0, captions.group_of_columns);
    targets.images = own - of_images * (1 - smooth);
    targets.texts = of_texts * (smooth - 1);
    targets.texts.narrow(0, batch.first, u.size(0)).add_(u);
  } else { /* own - (1 - e) own */
    targets.images = own * smooth;
    targets.texts = at::zeros_like(v);
    targets.texts.narrow(0, batch.first, u.size(0)).add_(u, smooth);
  }
  if (smooth > 0) {
    targets.images.sub_(v.mean(0, true).mul_(smooth));
    targets.texts.sub_(u.sum(0, true).mul_(smooth / double(batch.total)));
  }
  return targets;
}

at::ScalarType gradient_type(const Tensor &x, const Wanted &wanted) {
  return wanted.wide && x.element_size() == 2 ? at::kFloat : x.scalar_type();
}

/* Puts rows of the valid pairs back where they were, in the type of the features' gradient. */
Tensor restored(const Batch &batch, const Tensor &rows, at::ScalarType type) {
  if (!batch.valid.defined()) return rows.to(type);
  return at::zeros({batch.given, rows.size(1)}, rows.options().dtype(type)).index_copy_(0, batch.valid, rows.to(type));
}

/* Raw gradients of an engine, before they are scaled. */
struct Raw {
  Tensor images, texts;
  Raw(const Towers &towers, const Wanted &wanted) {
    const auto type = towers.images.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const bool either = wanted.images || wanted.texts, sums = wanted.scale || wanted.bias;
    if (wanted.images || (sums && !either)) images = at::empty(towers.images.sizes(), towers.images.options().dtype(type));
    if (wanted.texts) texts = at::empty(towers.texts.sizes(), towers.texts.options().dtype(type));
  }
  Tensor *pointer(Tensor &x) { return x.defined() ? &x : nullptr; }
  Tensor *image_pointer() { return pointer(images); }
  Tensor *text_pointer() { return pointer(texts); }
};

/* From raw gradients R = G V, G^T U: du = share s R, ds = share sum u . R (from the images', or the texts' where only those
 * exist); sums the texts' over ranks; restores shapes and types. */
void finish(Gradients &out, Raw &raw, double share, const Towers &towers, const Tensor &scale, const Batch &batch,
            const Options &options, const Wanted &wanted, const Tensor &images, const Tensor &texts) {
  Tensor of_scale;
  const auto dot = [&](const Tensor &x, const Tensor &gradient) {
    return (x.to(gradient.scalar_type()) * gradient).sum(at::kDouble).mul_(share);
  };
  const auto scaled = [&](Tensor &gradient) {
    return gradient.mul_((towers.scalars.select(0, 0) * share).to(gradient.scalar_type()));
  };
  if (raw.images.defined()) {
    if (wanted.scale) of_scale = dot(batch.images, raw.images);
    if (wanted.images) out.images = restored(batch, scaled(raw.images), gradient_type(images, wanted));
  }
  if (raw.texts.defined()) {
    Tensor own = raw.texts;
    if (options.group) {
      own = at::empty({batch.images.size(0), raw.texts.size(1)}, raw.texts.options());
      agreed(options.group->scatter_rows(options.group->self, &raw.texts, &own, batch.counts.data()));
    }
    if (wanted.scale && !of_scale.defined()) of_scale = dot(batch.texts, own);
    if (wanted.texts) out.texts = restored(batch, scaled(own), gradient_type(texts, wanted));
  }
  if (wanted.scale) out.scale = of_scale.to(gradient_type(scale, wanted)).reshape(scale.sizes());
}

/* Loss and gradients of a batch without a pair. */
Gradients nothing(const Tensor &images, const Tensor &texts, const Tensor &scale, const Tensor &bias,
                  at::ScalarType type, const Wanted &wanted) {
  Gradients out;
  out.loss = at::zeros({}, images.options().dtype(type));
  if (wanted.images) out.images = at::zeros_like(images, gradient_type(images, wanted));
  if (wanted.texts) out.texts = at::zeros_like(texts, gradient_type(texts, wanted));
  if (wanted.scale) out.scale = at::zeros_like(scale, gradient_type(scale, wanted));
  if (wanted.bias && bias.defined()) out.bias = at::zeros_like(bias, gradient_type(bias, wanted));
  return out;
}

at::ScalarType loss_type(const Tensor &x) { return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

} // namespace

Gradients clip(const Tensor &images, const Tensor &texts, const Tensor &scale, const Options &options,
               const Wanted &wanted) {
  at::NoGradGuard no_grad;
  const c10::DeviceGuard device_guard(images.device());
  const at::NoTF32Guard no_tf32;
  check_inputs("clip_loss", images, texts, scale, options);
  const Batch batch = prepare("clip_loss", images, texts, options);
  const at::ScalarType type = loss_type(batch.images);
  if (batch.total == 0) return nothing(images, texts, scale, Tensor(), type, wanted);
  const Towers towers = towers_of(batch, scale, options);
  const bool gradients = wanted.images || wanted.texts || wanted.scale;
  const auto run = [&](Range range) -> std::optional<Gradients> {
    const bool stable = range == Range::stable;
    if (range == Range::largest) offset_from_largest(towers, options);
    std::unique_ptr<Engine> engine = stable ? nullptr : tile_engine(towers);
    if (!engine) engine = panel_engine(towers, stable);
    Side rows = side_of(towers.rows(), batch.images, stable), columns = side_of(towers.cols(), batch.images, stable);
    if (!both_sides(towers, batch, options, *engine, rows, columns, gradients)) return std::nullopt;
    const Tensor slope = vector_of(towers.rows(), batch.images);
    const at::Device device = batch.images.device();
    check_code(kernels_of(device).pairs(towers.numbers(), towers.rows(), towers.first, data(rows.loss),
                                        data(rows.slope), data(columns.loss), data(columns.slope), data(slope),
                                        stream_of(device)),
               "pairs");
    Gradients out;
    const Tensor s = towers.scalars.select(0, 0);
    Tensor loss = towers.scalars.select(0, 3).clone().div_(2.0 * double(batch.total));
    Raw raw(towers, wanted);
    if (raw.images.defined() || raw.texts.defined())
      engine->gradients(rows, columns, slope, raw.image_pointer(), raw.text_pointer());
    engine.reset();
    if (batch.ids.defined() || options.label_smoothing > 0) {
      const Targets targets = smooth_targets(batch, options, type);
      loss.add_((batch.images.to(type) * targets.images).sum(at::kDouble).mul_(s).div_(double(batch.total)));
      if (raw.images.defined()) raw.images.add_(targets.images, 2);
      if (raw.texts.defined()) raw.texts.add_(targets.texts, 2);
    }
    all_reduce(options, loss, false);
    out.loss = loss.to(type);
    finish(out, raw, 0.5 / double(batch.total), towers, scale, batch, options, wanted, images, texts);
    return out;
  };
  for (const Range range : {Range::bound, Range::largest})
    if (auto out = run(range)) return *out;
  return *run(Range::stable);
}

Gradients siglip(const Tensor &images, const Tensor &texts, const Tensor &scale, const Tensor &bias,
                 const Options &options, const Wanted &wanted) {
  at::NoGradGuard no_grad;
  const c10::DeviceGuard device_guard(images.device());
  const at::NoTF32Guard no_tf32;
  check_inputs("siglip_loss", images, texts, scale, options);
  TORCH_CHECK(bias.numel() == 1 && at::isFloatingType(bias.scalar_type()) && bias.device() == images.device(),
              "siglip_loss: bias must be one floating-point number on ", images.device(), ", got shape ", bias.sizes(),
              " of ", bias.scalar_type(), " on ", bias.device());
  TORCH_CHECK(options.label_smoothing == 0, "siglip_loss: label_smoothing is not defined for the sigmoid loss; give 0");
  const Batch batch = prepare("siglip_loss", images, texts, options);
  const at::ScalarType type = loss_type(batch.images);
  if (batch.total == 0) return nothing(images, texts, scale, bias, type, wanted);
  const Towers towers = towers_of(batch, scale, options);
  towers.scalars.narrow(0, 2, 1).copy_(bias.detach().reshape({1}));
  std::unique_ptr<Engine> engine = tile_engine(towers);
  if (!engine) engine = panel_engine(towers, false);
  Raw raw(towers, wanted);
  engine->sigmoid(raw.image_pointer(), raw.text_pointer());
  engine.reset();
  const Tensor s = towers.scalars.select(0, 0), b = towers.scalars.select(0, 2);
  const double total = double(batch.total);
  Tensor loss = towers.scalars.select(0, 3).clone(), of_bias = towers.scalars.select(0, 4).clone();
  if (batch.ids.defined()) { /* the other captions of an image */
    const Captions captions = captions_of(batch);
    const Tensor u = batch.images.to(type), v = batch.all_texts.to(type);
    const Tensor others = group_sums(v, captions.group_of_columns, captions.groups).index_select(0, captions.group_of_rows)
                              .sub_(v.narrow(0, batch.first, u.size(0)));
    const Tensor more = captions.sizes.index_select(0, captions.group_of_rows).sub_(1).sum();
    loss.sub_((u * others).sum(at::kDouble).mul_(s)).sub_(more * b);
    of_bias.sub_(more);
    if (raw.images.defined()) raw.images.sub_(others);
    if (raw.texts.defined()) {
      Tensor others_of_texts = group_sums(u, captions.group_of_rows, captions.groups).index_select(0, captions.group_of_columns);
      others_of_texts.narrow(0, batch.first, u.size(0)).sub_(u);
      raw.texts.sub_(others_of_texts);
    }
  }
  Gradients out;
  loss.div_(total);
  all_reduce(options, loss, false);
  out.loss = loss.to(type);
  if (wanted.bias) out.bias = of_bias.div_(total).to(gradient_type(bias, wanted)).reshape(bias.sizes());
  finish(out, raw, 1 / total, towers, scale, batch, options, wanted, images, texts);
  return out;
}

} // namespace sweep
