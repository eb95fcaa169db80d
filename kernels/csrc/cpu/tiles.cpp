/* The losses on the CPU, float32 and bfloat16: S in tiles of 64 x 256 that never leave the cache.
 *
 *   sums       for each panel of 64 rows, for each tile: S tile = U V^T, E = exp, row and column sums, at once
 *   gradients  E (kept, or made again) -> G in place, and G V while the tile is in cache; then G^T U by column tiles
 *
 * So each logit is made once (6 B^2 D operations) while all of E fits the budget, twice (8 B^2 D) beyond it, when only
 * a chunk of rows is kept. The products are oneDNN's (brgemm.h), of bfloat16 where they are faster. Without AVX-512 they are those of avx2.h, and B lies in strips of columns. Column sums are added thread by thread: the same bits for the same number of threads.
 */
#include "../torch/engine.h"
#include "avx2.h"
#include "brgemm.h"
#include "sweep.h"
#include <ATen/Parallel.h>
#include <algorithm>
#include <cstdlib>
#include <type_traits>
#include <vector>

namespace sweep {
namespace {

using at::BFloat16;

constexpr int64_t ROWS = 64, COLS = 256; /* of a tile */

/* ---- Sweeps over one row of a tile: n <= COLS entries without the positive. */

SWEEP_CLONES double exp_row(float *x, int64_t n, Exponent exponent, float *column) {
  floats sums = {};
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES) {
    const floats e = exponent.of(load(x + j));
    store(x + j, e);
    store(column + j, load(column + j) + e);
    sums += e;
  }
  double sum = sum_of(sums);
  if (j < n) {
    const floats e = exponent.of(load(x + j, n - j));
    store(x + j, e, n - j);
    store(column + j, load(column + j, n - j) + e, n - j);
    sum += sum_of(e, n - j);
  }
  return sum;
}

SWEEP_CLONES void slope_row(const float *e, int64_t n, float row_inverse, const float *col_inverse, float *g) {
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES) store(g + j, load(e + j) * (row_inverse + load(col_inverse + j)));
  for (; j < n; ++j) g[j] = e[j] * (row_inverse + col_inverse[j]);
}
SWEEP_CLONES void exp_slope_row(const float *x, int64_t n, Exponent exponent, float row_inverse,
                                const float *col_inverse, float *g) {
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES)
    store(g + j, exponent.of(load(x + j)) * (row_inverse + load(col_inverse + j)));
  if (j < n)
    store(g + j, exponent.of(load(x + j, n - j)) * (row_inverse + load(col_inverse + j, n - j)), n - j);
}

/* Negatives of the sigmoid loss: softplus(x) and its slope sigmoid(x), x = s S + bias. With e = exp(-|x|) and
 * u = e / (2 + e): ln(1 + e) = 2 artanh u = 2 (u + u^3/3 + ...), u <= 1/3, relative error below 2e-8. */
SWEEP_INLINE floats softplus(floats x, floats &slope) {
  const floats zero = {};
  const floats size = x < zero ? -x : x;
  const floats e = exp2_of(size * float(-LOG2E));
  const floats inverse = 1.0f / (1.0f + e);
  slope = x < zero ? e * inverse : inverse;
  const floats u = e / (2.0f + e), v = u * u;
  floats p = v * (1.0f / 13) + 1.0f / 11;
  p = p * v + 1.0f / 9;
  p = p * v + 1.0f / 7;
  p = p * v + 1.0f / 5;
  p = p * v + 1.0f / 3;
  p = p * v + 1.0f;
  return 2.0f * u * p + (x < zero ? zero : x);
}
SWEEP_CLONES void sigmoid_row(const float *x, int64_t n, float scale, float bias, float *g, double *loss,
                              double *slopes) {
  floats losses = {}, sums = {}, slope;
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES) {
    losses += softplus(load(x + j) * scale + bias, slope);
    sums += slope;
    store(g + j, slope);
  }
  *loss += sum_of(losses);
  *slopes += sum_of(sums);
  if (j < n) {
    *loss += sum_of(softplus(load(x + j, n - j) * scale + bias, slope), n - j);
    *slopes += sum_of(slope, n - j);
    store(g + j, slope, n - j);
  }
}

template <typename T> class Tiles final : public Engine {
public:
  explicit Tiles(const Towers &towers)
      : t(towers), rows(towers.rows()), cols(towers.cols()), width(towers.depth()), depth(even<T>(width)),
        panels((rows + ROWS - 1) / ROWS), blocks((cols + COLS - 1) / COLS), strips(!PAIRS<T> && use_avx2_products()) {
    images = even_columns(t.images);
    texts = even_columns(t.texts);
    pack_columns();
  }

  void sums(Side &rows_side, Side &columns, bool keep) override {
    if (keep && rows * cols * 4 <= t.budget_bytes) kept = at::empty({rows, cols}, at::kFloat);
    const Exponent exponent(t.numbers()->scale, t.numbers()->offset);
    double *row_sum = rows_side.sum.data_ptr<double>(), *diagonal = rows_side.diagonal.data_ptr<double>();
    std::vector<double> parts(size_t(at::get_num_threads()) * size_t(cols), 0.0);
    const int64_t count = in_parts(panels, [&](int64_t part, int64_t begin, int64_t end) {
      std::vector<float> scratch(kept.defined() ? 0 : size_t(ROWS * COLS));
      double *column = parts.data() + part * cols;
      float partial[COLS];
      for (int64_t panel = begin; panel < end; ++panel) {
        const int64_t i0 = panel * ROWS, m = rows_of(panel);
        std::fill(row_sum + i0, row_sum + i0 + m, 0.0);
        for (int64_t block = 0; block < blocks; ++block) {
          const int64_t j0 = block * COLS, n = cols_of(block);
          float *tile = kept.defined() ? kept.data_ptr<float>() + i0 * cols + j0 : scratch.data();
          const int64_t stride = kept.defined() ? cols : n;
          logits(panel, block, tile, stride);
          std::fill(partial, partial + n, 0.0f);
          for (int64_t i = 0; i < m; ++i) {
            float *row = tile + i * stride;
            const int64_t positive = t.first + i0 + i - j0;
            if (positive >= 0 && positive < n) diagonal[i0 + i] = exponent.logit(row[positive]);
            around(positive, n, [&](int64_t b, int64_t e) {
              row_sum[i0 + i] += exp_row(row + b, e - b, exponent, partial + b);
            });
          }
          for (int64_t j = 0; j < n; ++j) column[j0 + j] += partial[j];
        }
      }
    });
    double *col_sum = columns.sum.data_ptr<double>();
    for (int64_t part = 0; part < count; ++part)
      for (int64_t j = 0; j < cols; ++j) col_sum[j] += parts[size_t(part * cols + j)];
  }

  void gradients(const Side &rows_side, const Side &columns, const Tensor &slope, Tensor *d_images,
                 Tensor *d_texts) override {
    const Exponent exponent(t.numbers()->scale, t.numbers()->offset);
    const double *row_inverse = rows_side.inverse.data_ptr<double>(), *positive_slope = slope.data_ptr<double>();
    const Tensor inverse = columns.inverse.to(at::kFloat);
    const float *col_inverse = inverse.data_ptr<float>();
    const bool again = !kept.defined();
    each_chunk(d_images, d_texts, again, [&](int64_t i, int64_t j0, int64_t n, const float *x, float *g) {
      const int64_t positive = t.first + i - j0;
      const float inverse = float(row_inverse[i]);
      around(positive, n, [&](int64_t b, int64_t e) {
        if (again)
          exp_slope_row(x + b, e - b, exponent, inverse, col_inverse + j0 + b, g + b);
        else
          slope_row(x + b, e - b, inverse, col_inverse + j0 + b, g + b);
      });
      if (positive >= 0 && positive < n) g[positive] = float(positive_slope[i]);
    });
    add_residue(slope, d_images, d_texts);
  }

  void sigmoid(Tensor *d_images, Tensor *d_texts) override {
    const double scale = t.numbers()->scale, bias = t.numbers()->bias;
    std::vector<double> losses(size_t(rows), 0.0), slopes(size_t(rows), 0.0);
    const Tensor positive_slope = at::zeros({rows}, at::kDouble);
    double *slope_of = positive_slope.data_ptr<double>();
    each_chunk(d_images, d_texts, true, [&](int64_t i, int64_t j0, int64_t n, const float *x, float *g) {
      const int64_t positive = t.first + i - j0;
      double &loss = losses[size_t(i)], &sum = slopes[size_t(i)];
      const double l = positive >= 0 && positive < n ? scale * double(x[positive]) + bias : 0;
      around(positive, n, [&](int64_t b, int64_t e) {
        sigmoid_row(x + b, e - b, float(scale), float(bias), g + b, &loss, &sum);
      });
      if (positive >= 0 && positive < n) {
        loss += l > 0 ? std::log1p(std::exp(-l)) : std::log1p(std::exp(l)) - l;
        const double at_positive = -1 / (1 + std::exp(l));
        sum += at_positive;
        slope_of[i] = at_positive;
        g[positive] = float(at_positive);
      }
    });
    add_residue(positive_slope, d_images, d_texts);
    for (int64_t i = 0; i < rows; ++i) {
      t.numbers()->loss += losses[size_t(i)];
      t.numbers()->slope_sum += slopes[size_t(i)];
    }
  }

private:
  const Towers t;
  const int64_t rows, cols, width, depth, panels, blocks;
  const bool strips;      /* products of avx2.h; T is float32 */
  Tensor images, texts;   /* with an even number of columns for bfloat16 */
  std::vector<T> columns; /* V^T in blocks of COLS columns, each (depth, n), or its strips */
  Tensor kept;            /* (b, B) float32: E, if it fits the budget */

  int64_t rows_of(int64_t panel) const { return std::min(ROWS, rows - panel * ROWS); }
  int64_t cols_of(int64_t block) const { return std::min(COLS, cols - block * COLS); }
  static const T *pointer(const Tensor &x) { return static_cast<const T *>(x.data_ptr()); }
  Tensor even_columns(const Tensor &x) const {
    return depth == width ? x : at::constant_pad_nd(x, {0, depth - width}).contiguous();
  }

  /* What bfloat16 took from the positives' slopes (rows). Each is about as large as the rest of its row and of its column
   * together, so its rounding would be the largest error of a gradient; to put it right costs O(B D). */
  void add_residue(const Tensor &slope, Tensor *d_images, Tensor *d_texts) const {
    if (!PAIRS<T>) return;
    const Tensor exact = slope.to(at::kFloat);
    const Tensor residue = exact.sub(exact.to(at::kBFloat16)).unsqueeze(1);
    if (d_images) d_images->addcmul_(residue, t.texts.narrow(0, t.first, rows).to(at::kFloat));
    if (d_texts) d_texts->narrow(0, t.first, rows).addcmul_(residue, t.images.to(at::kFloat));
  }

  /* Element (k, n) of a B factor with rows of length `row`. */
  static int64_t place(int64_t k, int64_t n, int64_t row) {
    return PAIRS<T> ? (k / 2) * 2 * row + 2 * n + (k & 1) : k * row + n;
  }
  int64_t place_of_column(int64_t k, int64_t n, int64_t row) const {
    return strips ? n / STRIP * STRIP * depth + k * STRIP + n % STRIP : place(k, n, row);
  }

  void pack_columns() {
    columns.resize(size_t(depth) * size_t(strips ? whole_strips(cols) : cols)); /* COLS are whole strips */
    const T *from = pointer(texts);
    in_parts(blocks, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t j0 = block * COLS, n = cols_of(block);
        T *to = columns.data() + j0 * depth;
        for (int64_t k0 = 0; k0 < depth; k0 += 16) /* 16 columns at a time: whole cache lines on both sides */
          for (int64_t j = 0; j < n; ++j)
            for (int64_t k = k0; k < std::min(k0 + 16, depth); ++k) to[place_of_column(k, j, n)] = from[(j0 + j) * depth + k];
      }
    });
  }

  void logits(int64_t panel, int64_t block, float *tile, int64_t stride) const {
    const int64_t n = cols_of(block);
    const T *a = pointer(images) + panel * ROWS * depth, *b = columns.data() + block * COLS * depth;
    if constexpr (!PAIRS<T>)
      if (strips) avx2_product(rows_of(panel), n, depth, a, depth, b, STRIP * depth, tile, stride, false);
    if (!strips) product<T>(rows_of(panel), n, depth, a, depth, b, n, tile, stride, false);
    if (t.takes()) take(panel, block, tile, stride);
  }

  void take(int64_t panel, int64_t block, float *tile, int64_t stride) const {
    const int64_t *starts = t.taken_starts.data_ptr<int64_t>(), *taken = t.taken_cols.data_ptr<int64_t>();
    const int64_t i0 = panel * ROWS, j0 = block * COLS, j1 = j0 + cols_of(block);
    const double scale = t.numbers()->scale;
    const float value = float(scale > 0 ? TAKEN : scale < 0 ? -TAKEN : scale); /* NaN stays */
    for (int64_t i = 0; i < rows_of(panel); ++i) {
      const int64_t *end = taken + starts[i0 + i + 1];
      for (const int64_t *j = std::lower_bound(taken + starts[i0 + i], end, j0); j != end && *j < j1; ++j)
        tile[i * stride + *j - j0] = value;
    }
  }

  /* Both gradients, chunk by chunk of rows: slopes(i, j0, n, x, g) turns entries x (S, or E if kept) of row i into g. */
  template <typename F> void each_chunk(Tensor *d_images, Tensor *d_texts, bool again, F slopes) {
    const int64_t fit = t.budget_bytes / (4 * cols) / ROWS * ROWS;
    const int64_t most = again ? std::clamp<int64_t>(fit, ROWS, panels * ROWS) : panels * ROWS;
    const bool whole = d_texts != nullptr; /* a chunk of G is needed whole for G^T U alone */
    Tensor buffer = kept;
    if (again && whole) buffer = at::empty({std::min(most, rows), cols}, at::kFloat);
    std::vector<T> texts_packed = (PAIRS<T> || strips) && d_images ? pack_texts() : std::vector<T>();
    std::vector<float> texts_out(d_texts ? size_t(width) * size_t(cols) : 0);
    for (int64_t begin = 0; begin < panels; begin += most / ROWS) {
      const int64_t end = std::min(panels, begin + most / ROWS);
      in_parts(end - begin, [&](int64_t, int64_t from, int64_t to) {
        std::vector<float> scratch(buffer.defined() ? 0 : size_t(ROWS * COLS));
        std::vector<T> factor(PAIRS<T> ? size_t(ROWS * COLS) : 0);
        for (int64_t panel = begin + from; panel < begin + to; ++panel)
          for (int64_t block = 0; block < blocks; ++block) {
            const int64_t stride = buffer.defined() ? cols : cols_of(block);
            float *tile = buffer.defined()
                              ? buffer.data_ptr<float>() + (panel - begin) * ROWS * cols + block * COLS
                              : scratch.data();
            if (again) logits(panel, block, tile, stride);
            slope_tile(panel, block, tile, stride, factor.data(), slopes);
            if (d_images) image_product(panel, block, tile, stride, factor.data(), texts_packed, *d_images);
          }
      });
      if (d_texts) text_products(begin, end, buffer, texts_out.data());
    }
    if (d_texts) unpack(texts_out, *d_texts);
    kept.reset(); /* holds G now */
  }

  /* A tile of G: float32 in place; bfloat16 into `factor` by rows, (m, even n), and in place by pairs of rows, the pair
   * (i, i + 1) in the memory of row i. */
  template <typename F>
  void slope_tile(int64_t panel, int64_t block, float *tile, int64_t stride, T *factor, F slopes) const {
    const int64_t i0 = panel * ROWS, m = rows_of(panel), j0 = block * COLS, n = cols_of(block);
    if constexpr (!PAIRS<T>) {
      for (int64_t i = 0; i < m; ++i) slopes(i0 + i, j0, n, tile + i * stride, tile + i * stride);
    } else {
      float g[2][COLS];
      const int64_t wide = even<T>(n);
      for (int64_t i = 0; i < m; i += 2) {
        for (int64_t k = 0; k < 2; ++k) {
          std::fill(g[k], g[k] + COLS, 0.0f);
          if (i + k == m) continue;
          slopes(i0 + i + k, j0, n, tile + (i + k) * stride, g[k]);
          bfloat16_row(g[k], wide, reinterpret_cast<uint16_t *>(factor + (i + k) * wide));
        }
        bfloat16_pairs(g[0], g[1], n, tile + i * stride);
      }
    }
  }

  void image_product(int64_t panel, int64_t block, const float *tile, int64_t stride, const T *factor,
                     const std::vector<T> &texts_packed, Tensor &out) const {
    const int64_t j0 = block * COLS, n = cols_of(block), k = even<T>(n), m = rows_of(panel);
    float *c = out.data_ptr<float>() + panel * ROWS * width;
    const T *a, *b;
    if constexpr (PAIRS<T>) {
      a = factor;
      b = texts_packed.data() + j0 * width;
    } else {
      a = tile;
      b = pointer(texts) + j0 * width;
      if (strips) {
        const float *packed = texts_packed.data() + j0 * whole_strips(width);
        return avx2_product(m, width, n, tile, stride, packed, STRIP * n, c, width, block > 0);
      }
    }
    for (int64_t d = 0; d < width; d += DEPTH) /* pairs: column d of a pair of rows is element 2 d */
      product<T>(m, std::min(DEPTH, width - d), k, a, PAIRS<T> ? k : stride, b + (PAIRS<T> ? 2 : 1) * d, width, c + d,
                 width, block > 0);
  }

  /* V in blocks of COLS rows: by pairs of rows, a row of zeros after an odd number; or the blocks' strips. */
  std::vector<T> pack_texts() const {
    std::vector<T> out(size_t(cols + 1) * size_t(strips ? whole_strips(width) : width), T(0.0f));
    const T *from = pointer(texts);
    in_parts(blocks, [&](int64_t, int64_t begin, int64_t end) {
      if constexpr (!PAIRS<T>) {
        for (int64_t block = begin; block < end; ++block)
          pack_strips(cols_of(block), width, from + block * COLS * depth, depth,
                      out.data() + block * COLS * whole_strips(width));
        return;
      }
      for (int64_t j = begin * COLS; j < std::min(end * COLS, cols); ++j)
        for (int64_t d = 0; d < width; ++d) out[size_t(place(j, d, width))] = from[j * depth + d];
    });
    return out;
  }

  /* out, blocks of (D, n): += U^T G over the panels of a chunk. */
  void text_products(int64_t begin, int64_t end, const Tensor &buffer, float *out) const {
    std::vector<T> factor(size_t(end - begin) * ROWS * size_t(width), T(0.0f)); /* U^T by panels, (D, even m) */
    const T *from = pointer(images);
    in_parts(end - begin, [&](int64_t, int64_t a, int64_t b) {
      for (int64_t panel = begin + a; panel < begin + b; ++panel) {
        const int64_t m = even<T>(rows_of(panel));
        T *to = factor.data() + (panel - begin) * ROWS * width;
        for (int64_t d0 = 0; d0 < width; d0 += 16)
          for (int64_t i = 0; i < rows_of(panel); ++i)
            for (int64_t d = d0; d < std::min(d0 + 16, width); ++d)
              to[d * m + i] = from[(panel * ROWS + i) * depth + d];
      }
    });
    in_parts(blocks, [&](int64_t, int64_t a, int64_t b) {
      std::vector<float> packed(strips ? size_t(ROWS * COLS) : 0);
      for (int64_t block = a; block < b; ++block) {
        const int64_t n = cols_of(block);
        if constexpr (!PAIRS<T>)
          if (strips) {
            for (int64_t panel = begin; panel < end; ++panel) {
              const int64_t m = rows_of(panel);
              pack_strips(m, n, buffer.data_ptr<float>() + (panel - begin) * ROWS * cols + block * COLS, cols,
                          packed.data());
              avx2_product(width, n, m, factor.data() + (panel - begin) * ROWS * width, m, packed.data(), STRIP * m,
                           out + block * COLS * width, n, panel > 0);
            }
            continue;
          }
        for (int64_t d = 0; d < width; d += DEPTH)
          for (int64_t panel = begin; panel < end; ++panel) {
            const int64_t m = even<T>(rows_of(panel));
            const float *g = buffer.data_ptr<float>() + (panel - begin) * ROWS * cols + block * COLS;
            brgemm(std::min(DEPTH, width - d), n, m, m, PAIRS<T> ? 2 * cols : cols, n, panel > 0,
                   factor.data() + (panel - begin) * ROWS * width + d * m, reinterpret_cast<const T *>(g),
                   out + block * COLS * width + d * n, PAIRS<T>);
          }
      }
    });
  }

  void unpack(const std::vector<float> &from, Tensor &to) const {
    in_parts(blocks, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t j0 = block * COLS, n = cols_of(block);
        const float *tile = from.data() + j0 * width;
        float *out = to.data_ptr<float>() + j0 * width;
        for (int64_t d0 = 0; d0 < width; d0 += 16)
          for (int64_t j = 0; j < n; ++j)
            for (int64_t d = d0; d < std::min(d0 + 16, width); ++d) out[j * width + d] = tile[d * n + j];
      }
    });
  }
};

} // namespace

std::unique_ptr<Engine> tile_engine(const Towers &towers) {
  if (!towers.images.device().is_cpu() || towers.rows() == 0 || towers.cols() == 0) return nullptr;
  const auto type = towers.images.scalar_type();
  const bool half = type == at::kBFloat16;
  if (half && available<BFloat16>()) return std::make_unique<Tiles<BFloat16>>(towers);
  if (!(half || type == at::kFloat) || !(use_avx2_products() || available<float>())) return nullptr;
  Towers wide = towers; /* without products of bfloat16: the same numbers */
  wide.images = towers.images.to(at::kFloat), wide.texts = towers.texts.to(at::kFloat);
  return std::make_unique<Tiles<float>>(wide);
}

} // namespace sweep
