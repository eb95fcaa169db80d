/* The engine for any device and type: S a panel of rows at a time, by the library's matrix product.
 *
 *   sums       S panel = U_panel V^T, then the device's exp_sums (or Hopper's fused product and sums, S never stored)
 *   gradients  G panel in float32, or float16 of 2^14 G for towers in half precision; G V, and G^T U added up in order
 *
 * A panel takes 6 bytes an entry at most and as many rows as the budget allows, 2,048 at most on a GPU. Half precision:
 * towers go into the gradient products as float16, which has eight times bfloat16's precision at the same speed; features
 * must lie below 65,504 in size, which normalised ones do. 2^14 keeps the smallest slopes out of the subnormal range.
 */
#include "engine.h"
#include <algorithm>
#include <limits>

namespace sweep {
namespace {

constexpr int64_t PANEL_ROWS = 2048;
constexpr int64_t TERMS = 256; /* of one float32 sum on the CPU */
constexpr double HALF_FACTOR = 16384.0;

double *data(const Tensor &x) { return x.defined() ? x.data_ptr<double>() : nullptr; }

class Panels final : public Engine {
public:
  Panels(const Towers &towers, bool use_maxima)
      : t(towers), stable(use_maxima), kernels(kernels_of(towers.images.device())), half(is_half(towers)),
        fused(use_maxima ? nullptr : fused_for(towers)) {
    const int64_t fit = t.budget_bytes / (std::max<int64_t>(t.cols(), 1) * (half ? 6 : element()));
    const int64_t most = t.images.is_cuda() ? PANEL_ROWS : t.rows();
    panel_rows = std::clamp<int64_t>(fit, std::min<int64_t>(64, t.rows()), std::max<int64_t>(most, 1));
    panel_rows = std::max<int64_t>(1, std::min(panel_rows, t.rows()));
    const int64_t needed = fused ? fused->workspace_bytes(t.rows(), t.cols()) : 0;
    const int64_t bytes = std::max(kernels.workspace_bytes(panel_rows, t.cols()), needed);
    if (bytes > 0) workspace = at::empty({bytes}, t.images.options().dtype(at::kByte));
  }

  void sums(Side &rows, Side &columns, bool keep) override {
    if (t.rows() == 0) return;
    if (fused) {
      sweep_fused problem = fused_problem(0, t.rows());
      return check_code(fused->sums(&problem, data(rows.sum), data(columns.sum), data(rows.diagonal)), "fused sums");
    }
    holds_e = keep && !stable && panel_rows == t.rows();
    for (int64_t from = 0; from < t.rows(); from += panel_rows) {
      const int64_t n = std::min(panel_rows, t.rows() - from);
      sweep_panel p = panel(from, n);
      p.keep = holds_e;
      double *sum = data(rows.sum) + from, *diagonal = data(rows.diagonal) + from;
      if (stable)
        check_code(kernels.stable_sums(&p, data(rows.max) + from, sum, data(columns.max), data(columns.sum), diagonal),
                   "stable sums");
      else
        check_code(kernels.exp_sums(&p, sum, data(columns.sum), diagonal), "sums");
    }
    if (!holds_e) buffer.reset();
  }

  void gradients(const Side &rows, const Side &columns, const Tensor &slope, Tensor *images, Tensor *texts) override {
    each(images, texts, [&](int64_t from, int64_t n, const Tensor &out) {
      const double *positive = data(slope) + from;
      if (fused) {
        sweep_fused problem = fused_problem(from, n);
        set_output(problem, out);
        check_code(fused->gradient(&problem, data(rows.inverse) + from, data(columns.inverse), positive),
                   "fused gradient");
        return;
      }
      sweep_panel p = holds_e ? described(from, n) : panel(from, n);
      p.holds = holds_e;
      set_output(p, out);
      if (stable)
        check_code(kernels.stable_gradient(&p, data(rows.lse) + from, data(columns.lse), positive), "stable gradient");
      else
        check_code(kernels.gradient(&p, data(rows.inverse) + from, data(columns.inverse), positive), "gradient");
    });
  }

  Tensor largest() {
    Tensor most = at::full({}, -std::numeric_limits<double>::infinity(), t.scalars.options());
    for (int64_t from = 0; from < t.rows(); from += panel_rows) {
      const int64_t n = std::min(panel_rows, t.rows() - from);
      panel(from, n);
      const auto [least, greatest] = at::aminmax(buffer.narrow(0, 0, n));
      const Tensor s = t.scalars.select(0, 0); /* the sign of s says which of the two is the larger logit */
      most = at::maximum(most, at::maximum(least.to(at::kDouble) * s, greatest.to(at::kDouble) * s));
    }
    return most;
  }

  void sigmoid(Tensor *images, Tensor *texts) override {
    each(images, texts, [&](int64_t from, int64_t n, const Tensor &out) {
      if (fused) {
        sweep_fused problem = fused_problem(from, n);
        set_output(problem, out);
        problem.keep = images || texts;
        return check_code(fused->sigmoid(&problem), "fused sigmoid");
      }
      sweep_panel p = panel(from, n);
      set_output(p, out);
      p.keep = images || texts;
      check_code(kernels.sigmoid(&p), "sigmoid");
    });
  }

private:
  const Towers t;
  const bool stable;
  const sweep_panel_kernels &kernels;
  const bool half;
  const sweep_fused_kernels *fused;
  int64_t panel_rows = 1;
  bool holds_e = false;
  Tensor buffer, workspace, wide;

  /* V in the panel's type. */
  const Tensor &wide_texts() {
    if (!wide.defined()) wide = t.texts.to(panel_options().dtype());
    return wide;
  }

  static bool is_half(const Towers &towers) { return towers.images.element_size() == 2; }
  int64_t element() const { return t.images.scalar_type() == at::kDouble ? 8 : 4; }
  at::TensorOptions panel_options() const {
    return t.images.options().dtype(t.images.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  }

  static const sweep_fused_kernels *fused_for(const Towers &towers) {
    const bool can = towers.images.is_cuda() && is_half(towers) && !towers.takes();
    const sweep_fused_kernels *table = can ? fused_kernels() : nullptr;
    const int32_t kind = towers.images.scalar_type() == at::kHalf ? SWEEP_FP16 : SWEEP_BF16;
    return table && table->supports(kind, towers.depth()) ? table : nullptr;
  }

  sweep_fused fused_problem(int64_t from, int64_t n) const {
    sweep_fused p{};
    p.images = static_cast<const char *>(t.images.data_ptr()) + from * t.depth() * t.images.element_size();
    p.texts = t.texts.data_ptr();
    p.input_kind = t.images.scalar_type() == at::kHalf ? SWEEP_FP16 : SWEEP_BF16;
    p.rows = n, p.cols = t.cols(), p.depth = t.depth(), p.positive = t.first + from;
    p.scalars = t.numbers();
    p.workspace = workspace.defined() ? workspace.data_ptr() : nullptr;
    p.stream = stream_of(t.images.device());
    return p;
  }

  /* The panel's struct alone; its numbers are as they are. */
  sweep_panel described(int64_t from, int64_t n) const {
    sweep_panel p{};
    p.panel = buffer.data_ptr();
    p.rows = n, p.cols = t.cols(), p.stride = t.cols(), p.positive = t.first + from;
    p.double_panel = t.images.scalar_type() == at::kDouble;
    p.output_kind = SWEEP_IN_PLACE;
    p.scalars = t.numbers();
    p.workspace = workspace.defined() ? workspace.data_ptr() : nullptr;
    p.stream = stream_of(t.images.device());
    return p;
  }

  /* S of rows from .. from + n. */
  sweep_panel panel(int64_t from, int64_t n) {
    if (!buffer.defined()) buffer = at::empty({panel_rows, t.cols()}, panel_options());
    Tensor out = buffer.narrow(0, 0, n);
    const Tensor rows = t.images.narrow(0, from, n);
    if (half && t.images.is_cuda())
      at::mm_out(out, rows, t.texts.t(), at::kFloat);
    else if (half)
      at::mm_out(out, rows.to(at::kFloat), wide_texts().t());
    else
      at::mm_out(out, rows, t.texts.t());
    if (t.takes()) take(from, n);
    return described(from, n);
  }

  void take(int64_t from, int64_t n) {
    const int64_t *starts = t.taken_starts.data_ptr<int64_t>();
    const int64_t begin = starts[from], count = starts[from + n] - begin;
    if (count == 0) return;
    const Tensor each = t.taken_starts.narrow(0, from, n + 1).diff();
    const Tensor rows = at::repeat_interleave(at::arange(n, each.options()), each).to(t.images.device());
    const Tensor place = rows.mul_(t.cols()).add_(t.taken_cols.narrow(0, begin, count));
    const Tensor value = t.scalars.select(0, 0).sign().mul_(TAKEN).to(buffer.scalar_type());
    buffer.view({-1}).index_copy_(0, place, value.expand({count}));
  }

  template <typename P> static void set_output(P &p, const Tensor &out) {
    if (!out.defined()) return;
    p.output = out.data_ptr();
    p.output_stride = out.stride(0);
    if constexpr (std::is_same_v<P, sweep_panel>) p.output_kind = SWEEP_FP16;
  }

  /* out += a b. In float32 on the CPU in parts, each summed on its own: a library may add a narrow matrix up term by term,
   * onto what is there, and where terms are alike their roundings add up too (5e-5 of 16,000 terms, 2e-4 of 65,000). */
  static Tensor &product(Tensor &out, const Tensor &a, const Tensor &b) {
    const int64_t terms = a.size(1);
    if (!a.is_cpu() || a.scalar_type() != at::kFloat) return at::addmm_out(out, out, a, b);
    for (int64_t from = 0; from < terms; from += TERMS) {
      const int64_t n = std::min(TERMS, terms - from);
      out.add_(at::mm(a.narrow(1, from, n), b.narrow(0, from, n)));
    }
    return out;
  }

  /* make(from, n, out) leaves G of some rows in `out` (or, where it is not defined, in the panel). */
  template <typename F> void each(Tensor *images, Tensor *texts, F make) {
    const bool halves = half && t.images.is_cuda();
    Tensor slopes; /* rows a multiple of 8 apart, as fused kernels need */
    if (halves && (images || texts)) slopes = at::empty({panel_rows, (t.cols() + 7) / 8 * 8}, t.images.options().dtype(at::kHalf));
    if (texts) texts->zero_();
    const Tensor texts_factor = !images ? Tensor() : halves ? t.texts.to(at::kHalf) : wide_texts();
    for (int64_t from = 0; from < t.rows(); from += panel_rows) {
      const int64_t n = std::min(panel_rows, t.rows() - from);
      const Tensor out = slopes.defined() ? slopes.narrow(0, 0, n) : Tensor();
      make(from, n, out);
      if (!images && !texts) continue;
      const Tensor g = halves ? out.narrow(1, 0, t.cols()) : buffer.narrow(0, 0, n);
      if (images) {
        Tensor part = images->narrow(0, from, n);
        halves ? at::mm_out(part, g, texts_factor, at::kFloat) : product(part.zero_(), g, texts_factor);
      }
      if (texts) {
        const Tensor rows = t.images.narrow(0, from, n).to(g.scalar_type());
        halves ? at::addmm_out(*texts, *texts, g.t(), rows, at::kFloat) : product(*texts, g.t(), rows);
      }
    }
    if (halves && images) images->div_(HALF_FACTOR);
    if (halves && texts) texts->div_(HALF_FACTOR);
    buffer.reset();
  }
};

} // namespace

std::unique_ptr<Engine> panel_engine(const Towers &towers, bool stable) {
  return std::make_unique<Panels>(towers, stable);
}

Tensor largest_logit(const Towers &towers) { return Panels(towers, true).largest(); }

} // namespace sweep
