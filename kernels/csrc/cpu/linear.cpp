#include "linear.h"
#include "stretches.h"

namespace sweep {
namespace {

constexpr int64_t TURNED = CHUNK + 16; /* from row to row of dY^T: a power of two would have rows share cache lines' places */

/* C (m, n) = A (m, k) B + bias. */
template <typename P>
void by_rows(int64_t m, int64_t k, const float *a, const Panels<P> &b, const float *bias, float *c) {
  constexpr int64_t ROWS = P::ROWS;
  in_parts(blocks(m, ROWS), [&](int64_t, int64_t begin, int64_t end) {
    const auto converted = room<typename P::T>(ROWS * b.k);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t i = block * ROWS, rows = std::min(ROWS, m - i);
      float *const to = c + i * b.n;
      if (bias)
        for (int64_t r = 0; r < rows; ++r) std::copy_n(bias, b.n, to + r * b.n);
      b.multiply(rows, left_factor<P>(rows, k, a + i * k, converted.get()), to, bias != nullptr);
    }
  });
}

/* Threads share out dW's rows. */
template <typename P>
void weights(int64_t m, int64_t n, int64_t k, const float *dy, const float *x, float *dw, float *db) {
  using T = typename P::T;
  const int64_t height = shared_height(n);
  in_parts(blocks(n, height), [&](int64_t, int64_t begin, int64_t end) {
    const auto turned = room<float>(height * TURNED);
    const auto left = room<T>(height * TURNED), laid = room<T>(P::AS_IT_IS ? 0 : P::room_for(k, CHUNK));
    if (db) std::fill(db + begin * height, db + std::min(n, end * height), 0.0f);
    for (int64_t i = 0; i < m; i += CHUNK) {
      const int64_t rows = std::min(CHUNK, m - i);
      const T *right;
      if constexpr (P::AS_IT_IS) right = x + i * k;
      else P::lay(rows, k, x + i * k, k, 0, CHUNK, laid.get()), right = laid.get();
      for (int64_t block = begin; block < end; ++block) {
        const int64_t j = block * height, cols = std::min(height, n - j);
        transpose(rows, cols, dy + i * n + j, n, turned.get(), TURNED);
        if (db)
          for (int64_t r = 0; r < cols; ++r) db[j + r] += sum_row(turned.get() + r * TURNED, rows);
        const T *const a = turned_factor<P>(cols, rows, turned.get(), TURNED, left.get());
        P::accumulate(cols, k, Columns{0, k}, even<T>(rows), CHUNK, a, TURNED, right, dw + j * k, i > 0);
      }
    }
  });
}

} // namespace

bool layers_available() { return use_avx2_products() || available<float>(); }

void layer_forward(int64_t m, int64_t n, int64_t k, const float *x, const float *w, const float *b, float *y, bool half) {
  by_processor(half, [&](auto product) {
    using P = decltype(product);
    by_rows<P>(m, k, x, Panels<P>::of_transpose(k, n, w), b, y);
  });
}

void layer_inputs(int64_t m, int64_t n, int64_t k, const float *dy, const float *w, float *dx, bool half) {
  by_processor(half, [&](auto product) {
    using P = decltype(product);
    by_rows<P>(m, n, dy, Panels<P>::of(n, k, w), nullptr, dx);
  });
}

void layer_weights(int64_t m, int64_t n, int64_t k, const float *dy, const float *x, float *dw, float *db, bool half) {
  by_processor(half, [&](auto product) { weights<decltype(product)>(m, n, k, dy, x, dw, db); });
}

} // namespace sweep
