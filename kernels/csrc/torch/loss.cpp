/* From features to a loss and its gradients: engines do the B x B half, what is said here costs O(B D).
 *
 * Targets of InfoNCE, P_i the captions of image i (equal ids), e label smoothing: soft-label cross entropy with
 *   q_ij = (1 - e) [j in P_i] / |P_i| + e / B, rows and columns alike, so that
 *   L    = 1/(2B) sum_i [ ln R_i + ln C_i - 2 (1-e)/|P_i| sum_{j in P_i} l_ij - 2 e s u_i . mean v ]
 *   2B dL/dl_ij = E_ij (1/R_i + 1/C_j) - 2 q_ij
 * An engine knows one target a row, its positive; the other captions are captions.h's, and e / B is a mean vector.
 *
 * Scale. Both losses see s only in s u_i, so s dL/ds = sum_i u_i . dL/du_i: no product of its own.
 */
#include "loss.h"
#include "batch.h"
#include "captions.h"
#include <ATen/core/grad_mode.h>
#include <c10/core/DeviceGuard.h>
#include <limits>

namespace sweep {
namespace {

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

Towers towers_of(const Batch &batch, const Tensor &scale, const std::optional<Captions> &captions,
                 const Options &options) {
  Towers towers{batch.images, batch.all_texts, batch.first, options.budget_bytes, vector_of(6, batch.images), {}, {}};
  if (captions && captions->rows.size(0) > 0) towers.taken_starts = captions->starts, towers.taken_cols = captions->cols;
  towers.scalars.narrow(0, 0, 1).copy_(scale.detach().reshape({1}));
  return towers;
}

void offset_from_norms(const Towers &towers, const Batch &batch, const Options &options) {
  Tensor norms = at::stack({largest_norm(batch.images), largest_norm(batch.texts)});
  all_reduce(options, norms, true);
  const float *norm = norms.data_ptr<float>();
  const at::Device device = batch.images.device();
  check_code(kernels_of(device).exponent_offset(towers.numbers(), norm, norm + 1, stream_of(device)), "offset");
}

/* How the exponent is held in range, each way tried where the one before found a sum too small. */
enum class Range {
  bound,   /* offset from the largest norms: nothing is computed for it */
  largest, /* offset from the largest logit: for features far from unit length, or far from one another */
  stable   /* each row and column its own maximum: for anything */
};

constexpr double LN_2 = 0.6931471805599453;

void offset_from_largest(const Towers &towers, const Options &options) {
  Tensor most = largest_logit(towers);
  all_reduce(options, most, true);
  const Tensor over = most.sub_(70).clamp_min_(0);
  towers.scalars.select(0, 1).copy_(over.div_(LN_2).floor_().mul_(LN_2)); /* as exponent_offset rounds */
  towers.scalars.narrow(0, 3, 3).zero_();
}

/* Sums of both sides, over all ranks, and what follows from them. Returns whether the common offset served. */
bool both_sides(const Towers &towers, const Batch &batch, const std::optional<Captions> &captions, const Options &options,
                Engine &engine, Side &rows, Side &columns, bool keep) {
  const at::Device device = towers.images.device();
  const auto &kernels = kernels_of(device);
  void *stream = stream_of(device);
  engine.sums(rows, columns, keep);
  if (captions) {
    add_to_sums(*captions, towers.scalars.select(0, 1), rows, columns);
    rows.diagonal = captions->diagonal; /* of the same digits: a confident model has them nearly cancel */
  }
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
    Tensor own = scattered(options, batch, raw.texts);
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
  const auto zeros = [&](const Tensor &x) { return at::zeros(x.sizes(), x.options().dtype(gradient_type(x, wanted))); };
  if (wanted.images) out.images = zeros(images);
  if (wanted.texts) out.texts = zeros(texts);
  if (wanted.scale) out.scale = zeros(scale);
  if (wanted.bias && bias.defined()) out.bias = zeros(bias);
  return out;
}

at::ScalarType loss_type(const Tensor &x) { return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

} // namespace

Gradients clip(const Tensor &images, const Tensor &texts, const Tensor &scale, const Options &options,
               const Wanted &wanted) {
  at::NoGradGuard no_grad;
  const c10::DeviceGuard device_guard(images.device());
  const at::NoTF32Guard no_tf32;
  const Batch batch = prepare("clip_loss", images, texts, scale, nullptr, options);
  const at::ScalarType type = loss_type(batch.images);
  if (batch.total == 0) return nothing(images, texts, scale, Tensor(), type, wanted);
  const std::optional<Captions> captions = captions_of(batch, scale);
  const Towers towers = towers_of(batch, scale, captions, options);
  const double total = double(batch.total), smooth = options.label_smoothing;
  const auto run = [&](Range range) -> std::optional<Gradients> {
    const bool stable = range == Range::stable, gradients = wanted.images || wanted.texts || wanted.scale;
    if (range == Range::bound) offset_from_norms(towers, batch, options);
    if (range == Range::largest) offset_from_largest(towers, options);
    std::unique_ptr<Engine> engine = stable ? nullptr : tile_engine(towers);
    if (!engine) engine = panel_engine(towers, stable);
    Side rows = side_of(towers.rows(), batch.images, stable), columns = side_of(towers.cols(), batch.images, stable);
    if (!both_sides(towers, batch, captions, options, *engine, rows, columns, gradients)) return std::nullopt;
    const Tensor slope = vector_of(towers.rows(), batch.images);
    const at::Device device = batch.images.device();
    check_code(kernels_of(device).pairs(towers.numbers(), towers.rows(), towers.first, data(rows.loss),
                                        data(rows.slope), data(columns.loss), data(columns.slope), data(slope),
                                        stream_of(device)),
               "pairs");
    Tensor loss = towers.scalars.select(0, 3).clone(); /* of one caption each and no smoothing */
    Tensor share; /* (1 - e) / |P_i| */
    if (captions) share = captions->sizes.reciprocal().mul_(1 - smooth);
    else if (smooth > 0) share = at::full_like(slope, 1 - smooth);
    if (share.defined()) {
      Tensor others = rows.diagonal.clone(); /* sum over P_i of l_ij */
      if (captions) others.index_add_(0, captions->rows, captions->logits);
      loss.add_(rows.diagonal.sub(share.mul(others)).sum(), 2);
      slope.add_(share.neg().add_(1), 2);
    }
    Raw raw(towers, wanted);
    if (raw.images.defined() || raw.texts.defined())
      engine->gradients(rows, columns, slope, raw.image_pointer(), raw.text_pointer());
    engine.reset();
    if (captions) {
      const auto of = [&](const Tensor &x, const Tensor &at) { return x.index_select(0, at); };
      Tensor slopes = captions->logits.sub(of(rows.lse, captions->rows)).exp_();
      slopes.add_(captions->logits.sub(of(columns.lse, captions->cols)).exp_());
      slopes.sub_(of(share, captions->rows), 2);
      add_to_gradients(*captions, batch, slopes, raw.images, raw.texts);
    }
    if (smooth > 0) {
      const Tensor mean = batch.all_texts.to(at::kDouble).mean(0), sum = batch.images.to(at::kDouble).sum(0);
      loss.sub_(sum.dot(mean).mul_(towers.scalars.select(0, 0)), 2 * smooth);
      if (raw.images.defined()) raw.images.sub_(mean.to(type), 2 * smooth);
      if (raw.texts.defined()) raw.texts.sub_(sum.to(type), 2 * smooth / total);
    }
    loss.div_(2 * total);
    all_reduce(options, loss, false);
    Gradients out;
    out.loss = loss.to(type);
    finish(out, raw, 0.5 / total, towers, scale, batch, options, wanted, images, texts);
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
  const Batch batch = prepare("siglip_loss", images, texts, scale, &bias, options);
  const at::ScalarType type = loss_type(batch.images);
  if (batch.total == 0) return nothing(images, texts, scale, bias, type, wanted);
  const std::optional<Captions> captions = captions_of(batch, scale);
  const Towers towers = towers_of(batch, scale, captions, options);
  towers.scalars.narrow(0, 2, 1).copy_(bias.detach().reshape({1}));
  std::unique_ptr<Engine> engine = tile_engine(towers);
  if (!engine) engine = panel_engine(towers, false);
  Raw raw(towers, wanted);
  engine->sigmoid(raw.image_pointer(), raw.text_pointer());
  engine.reset();
  const double total = double(batch.total);
  Tensor loss = towers.scalars.select(0, 3).clone(), of_bias = towers.scalars.select(0, 4).clone();
  if (captions) { /* the other captions of an image: ln(1 + exp(-x)), and its slope -sigmoid(-x) */
    const Tensor x = captions->logits.add(towers.scalars.select(0, 2)).neg_();
    const Tensor slopes = at::sigmoid(x).neg_();
    loss.add_(at::softplus(x, 1, 700).sum());
    of_bias.add_(slopes.sum());
    add_to_gradients(*captions, batch, slopes, raw.images, raw.texts);
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
