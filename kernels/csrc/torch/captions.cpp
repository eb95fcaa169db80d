/* Pairs of equal ids, their logits, sums and gradients: O(n D) for n of them. */
#include "captions.h"
#include <algorithm>

namespace sweep {
namespace {

/* Pairs at one time, so that gathered features take 32 MB in float64. */
int64_t chunk_of(const Batch &batch) { return std::max<int64_t>(1, (int64_t(1) << 22) / batch.images.size(1)); }

/* body(from, rows, cols) for chunks of the pairs. */
template <typename F> void in_chunks(const Captions &captions, const Batch &batch, F body) {
  const int64_t n = captions.rows.size(0), chunk = chunk_of(batch);
  for (int64_t from = 0; from < n; from += chunk) {
    const int64_t count = std::min(chunk, n - from);
    body(from, captions.rows.narrow(0, from, count), captions.cols.narrow(0, from, count));
  }
}

/* One side's sums: `at` says which entry a logit belongs to. */
void add(const Tensor &logits, const Tensor &at, const Tensor &offset, Side &side) {
  if (!side.max.defined()) {
    side.sum.index_add_(0, at, logits.sub(offset).exp_());
    return;
  }
  const Tensor most = side.max.scatter_reduce(0, at, logits, "amax");
  side.sum.mul_(at::where(side.max.eq(most), at::zeros_like(most), side.max.sub(most)).exp_());
  side.sum.index_add_(0, at, logits.sub(most.index_select(0, at)).exp_());
  side.max = most;
}

} // namespace

std::optional<Captions> captions_of(const Batch &batch, const Tensor &scale) {
  if (!batch.ids.defined()) return std::nullopt;
  const int64_t b = batch.images.size(0);
  const auto [unique, group, count] = at::_unique2(batch.all_ids, true, true, true);
  const Tensor order = at::argsort(group, /*stable=*/true, 0, false); /* columns by image, then by place */
  const Tensor begins = count.cumsum(0).sub_(count);
  const Tensor of_rows = group.narrow(0, batch.first, b);
  const Tensor each = count.index_select(0, of_rows); /* captions of a row's image */
  Captions captions;
  captions.sizes = each.to(at::kDouble);
  const auto like = batch.ids.options();
  const Tensor rows = at::repeat_interleave(at::arange(b, like), each);
  const Tensor within = at::arange(rows.size(0), like).sub_(at::repeat_interleave(each.cumsum(0).sub_(each), each));
  const Tensor cols = order.index_select(0, begins.index_select(0, of_rows).index_select(0, rows).add_(within));
  const Tensor others = cols.ne(rows.add(batch.first)).nonzero().select(1, 0);
  captions.rows = rows.index_select(0, others);
  captions.cols = cols.index_select(0, others);
  captions.starts = at::zeros({b + 1}, at::kLong);
  captions.starts.narrow(0, 1, b).copy_(each.sub(1).cumsum(0));
  captions.logits = at::empty({captions.rows.size(0)}, batch.images.options().dtype(at::kDouble));
  in_chunks(captions, batch, [&](int64_t from, const Tensor &i, const Tensor &j) {
    const Tensor u = batch.images.index_select(0, i).to(at::kDouble), v = batch.all_texts.index_select(0, j).to(at::kDouble);
    captions.logits.narrow(0, from, i.size(0)).copy_(u.mul(v).sum(1));
  });
  const Tensor own = batch.all_texts.narrow(0, batch.first, b).to(at::kDouble), s = scale.detach().to(at::kDouble).reshape({});
  captions.logits.mul_(s);
  captions.diagonal = batch.images.to(at::kDouble).mul(own).sum(1).mul_(s);
  return captions;
}

void add_to_sums(const Captions &captions, const Tensor &offset, Side &rows, Side &columns) {
  add(captions.logits, captions.rows, offset, rows);
  add(captions.logits, captions.cols, offset, columns);
}

void add_to_gradients(const Captions &captions, const Batch &batch, const Tensor &slope, Tensor &images, Tensor &texts) {
  in_chunks(captions, batch, [&](int64_t from, const Tensor &i, const Tensor &j) {
    const auto product = [&](const Tensor &features, const Tensor &at, const Tensor &like) {
      const Tensor g = slope.narrow(0, from, i.size(0)).to(like.scalar_type()).unsqueeze(1);
      return features.index_select(0, at).to(like.scalar_type()).mul_(g);
    };
    if (images.defined()) images.index_add_(0, i, product(batch.all_texts, j, images));
    if (texts.defined()) texts.index_add_(0, j, product(batch.images, i, texts));
  });
}

} // namespace sweep
