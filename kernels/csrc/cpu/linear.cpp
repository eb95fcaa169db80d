#include "linear.h"
#include "avx2.h"
#include "brgemm.h"
#include "sweep.h"
#include <ATen/Parallel.h>
#include <algorithm>
#include <vector>

namespace sweep {
namespace {

using at::BFloat16;

constexpr int64_t CHUNK = 256;         /* rows of X and dY that the product for dW takes at a time */
constexpr int64_t TURNED = CHUNK + 16; /* from row to row of dY^T: a power of two would have rows share cache lines' places */

int64_t blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }

/* A's row for brgemm: n numbers, and a zero after them if n is odd. */
void convert(const float *from, int64_t n, BFloat16 *to) {
  bfloat16_row(from, n, reinterpret_cast<uint16_t *>(to));
  if (n & 1) to[n] = BFloat16(0.0f);
}

/* n numbers to the float32 that bfloat16 has for them. */
SWEEP_CLONES void round_row(const float *from, int64_t n, float *to) {
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES) store(to + j, (floats)(bfloat16_of(load(from + j)) << 16));
  if (j < n) store(to + j, (floats)(bfloat16_of(load(from + j, n - j)) << 16), n - j);
}

/* B (k, n) with rows `ldb` apart, as brgemm takes it; rows of `to` are `cols` apart. */
template <typename T> void pack(int64_t k, int64_t n, const float *b, int64_t ldb, int64_t cols, T *to) {
  if constexpr (PAIRS<T>) {
    for (int64_t p = 0; p < k; p += 2)
      bfloat16_pairs(b + p * ldb, p + 1 < k ? b + (p + 1) * ldb : nullptr, n, reinterpret_cast<float *>(to + p * cols));
  } else {
    for (int64_t p = 0; p < k; ++p) std::copy_n(b + p * ldb, n, to + p * cols);
  }
}

/* `to` (n, m) = `from` (m, n)^T, by squares of eight in registers. */
SWEEP_CLONES void transpose(int64_t m, int64_t n, const float *from, int64_t ld_from, float *to, int64_t ld_to) {
  using eight = float __attribute__((vector_size(32)));
  int64_t i = 0;
  for (; i + 8 <= m; i += 8) {
    int64_t j = 0;
    for (; j + 8 <= n; j += 8) {
      eight r[8], t[8];
      for (int q = 0; q < 8; ++q) std::memcpy(&r[q], from + (i + q) * ld_from + j, 32);
      for (int q = 0; q < 8; q += 2) {
        t[q] = __builtin_shufflevector(r[q], r[q + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        t[q + 1] = __builtin_shufflevector(r[q], r[q + 1], 2, 10, 3, 11, 6, 14, 7, 15);
      }
      for (int q = 0; q < 8; q += 4) {
        r[q] = __builtin_shufflevector(t[q], t[q + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        r[q + 1] = __builtin_shufflevector(t[q], t[q + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        r[q + 2] = __builtin_shufflevector(t[q + 1], t[q + 3], 0, 1, 8, 9, 4, 5, 12, 13);
        r[q + 3] = __builtin_shufflevector(t[q + 1], t[q + 3], 2, 3, 10, 11, 6, 7, 14, 15);
      }
      for (int q = 0; q < 4; ++q) {
        t[q] = __builtin_shufflevector(r[q], r[q + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        t[q + 4] = __builtin_shufflevector(r[q], r[q + 4], 4, 5, 6, 7, 12, 13, 14, 15);
      }
      for (int q = 0; q < 8; ++q) std::memcpy(to + (j + q) * ld_to + i, &t[q], 32);
    }
    for (; j < n; ++j)
      for (int64_t q = i; q < i + 8; ++q) to[j * ld_to + q] = from[q * ld_from + j];
  }
  for (; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) to[j * ld_to + i] = from[i * ld_from + j];
}

SWEEP_CLONES float sum_row(const float *x, int64_t n) {
  floats sums = {};
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES) sums += load(x + j);
  if (j < n) sums += load(x + j, n - j);
  return float(sum_of(sums));
}

/* What multiplies: T, the type of factors; whether float32 factors are rounded to bfloat16, where there are no products of that; rows
 * of C at a time; columns of B that lie together; and C (m, n) (+)= A (m, k) B. */
template <typename Factor, bool Rounds = false> struct Brgemm {
  using T = Factor;
  static constexpr bool ROUNDS = Rounds;
  static constexpr int64_t ROWS = 64, COLS = 64;

  static void multiply(int64_t m, int64_t n, int64_t k, const T *a, int64_t lda, const T *panels, float *c, bool add) {
    for (int64_t j = 0; j < n; j += COLS)
      product(m, std::min(COLS, n - j), k, a, lda, panels + j * k, COLS, c + j, n, add);
  }
};
template <bool Rounds> struct Avx2 {
  using T = float;
  static constexpr bool ROUNDS = Rounds;
  static constexpr int64_t ROWS = 96, COLS = STRIP;

  static void multiply(int64_t m, int64_t n, int64_t k, const T *a, int64_t lda, const T *panels, float *c, bool add) {
    avx2_product(m, n, k, a, lda, panels, STRIP * k, c, n, add);
  }
};

/* B (k, n) in panels of COLS columns, each with its rows one after the other; k is even where rows go in pairs. */
template <typename P> struct Panels {
  using T = typename P::T;
  int64_t k, n;
  std::vector<T> values;

  Panels(int64_t k_, int64_t n_) : k(even<T>(k_)), n(n_), values(size_t(k * blocks(n, P::COLS) * P::COLS)) {}
  T *of(int64_t panel) { return values.data() + panel * k * P::COLS; }
  void finish(int64_t panel) {
    if constexpr (P::ROUNDS) round_row(of(panel), k * P::COLS, of(panel));
  }
};

/* C (m, n) = A (m, k) B + bias. */
template <typename P>
void by_rows(int64_t m, int64_t k, const float *a, const Panels<P> &b, const float *bias, float *c) {
  using T = typename P::T;
  constexpr int64_t ROWS = P::ROWS;
  in_parts(blocks(m, ROWS), [&](int64_t, int64_t begin, int64_t end) {
    std::vector<T> converted(PAIRS<T> || P::ROUNDS ? size_t(ROWS * b.k) : 0);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t i = block * ROWS, rows = std::min(ROWS, m - i);
      const T *own;
      if constexpr (PAIRS<T>) {
        for (int64_t r = 0; r < rows; ++r) convert(a + (i + r) * k, k, converted.data() + r * b.k);
        own = converted.data();
      } else if constexpr (P::ROUNDS) {
        round_row(a + i * k, rows * k, converted.data());
        own = converted.data();
      } else {
        own = a + i * k;
      }
      if (bias)
        for (int64_t r = 0; r < rows; ++r) std::copy_n(bias, b.n, c + (i + r) * b.n);
      P::multiply(rows, b.n, b.k, own, b.k, b.values.data(), c + i * b.n, bias != nullptr);
    }
  });
}

template <typename P>
void forward(int64_t m, int64_t n, int64_t k, const float *x, const float *w, const float *b, float *y) {
  using T = typename P::T;
  constexpr int64_t COLS = P::COLS;
  Panels<P> panels(k, n);
  in_parts(blocks(n, COLS), [&](int64_t, int64_t begin, int64_t end) {
    std::vector<float> turned(PAIRS<T> ? size_t(k * COLS) : 0);
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t j = panel * COLS, cols = std::min(COLS, n - j);
      if constexpr (PAIRS<T>) {
        transpose(cols, k, w + j * k, k, turned.data(), COLS);
        pack<T>(k, cols, turned.data(), COLS, COLS, panels.of(panel));
      } else {
        transpose(cols, k, w + j * k, k, panels.of(panel), COLS);
        panels.finish(panel);
      }
    }
  });
  by_rows<P>(m, k, x, panels, b, y);
}

template <typename P> void inputs(int64_t m, int64_t n, int64_t k, const float *dy, const float *w, float *dx) {
  constexpr int64_t COLS = P::COLS;
  Panels<P> panels(n, k);
  in_parts(blocks(k, COLS), [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      pack<typename P::T>(n, std::min(COLS, k - panel * COLS), w + panel * COLS, k, COLS, panels.of(panel));
      panels.finish(panel);
    }
  });
  by_rows<P>(m, n, dy, panels, nullptr, dx);
}

/* Threads share out dW's rows: blocks of up to 64, and no fewer than there are threads where that leaves whole vectors. */
template <typename P>
void weights(int64_t m, int64_t n, int64_t k, const float *dy, const float *x, float *dw, float *db) {
  using T = typename P::T;
  constexpr bool STRIPS = P::COLS == STRIP;
  const int64_t share = blocks(blocks(n, at::get_num_threads()), LANES) * LANES, height = std::min<int64_t>(64, share);
  in_parts(blocks(n, height), [&](int64_t, int64_t begin, int64_t end) {
    std::vector<float> turned(size_t(height * TURNED));
    std::vector<T> left(PAIRS<T> ? size_t(height * TURNED) : 0);
    std::vector<T> right(PAIRS<T> || STRIPS || P::ROUNDS ? size_t(CHUNK * whole_strips(k)) : 0);
    if (db) std::fill(db + begin * height, db + std::min(n, end * height), 0.0f);
    for (int64_t i = 0; i < m; i += CHUNK) {
      const int64_t rows = std::min(CHUNK, m - i);
      if constexpr (STRIPS)
        pack_strips(rows, k, x + i * k, k, right.data());
      else if constexpr (PAIRS<T> || P::ROUNDS)
        pack<T>(rows, k, x + i * k, k, k, right.data());
      if constexpr (P::ROUNDS) round_row(right.data(), int64_t(right.size()), right.data());
      for (int64_t block = begin; block < end; ++block) {
        const int64_t j = block * height, cols = std::min(height, n - j);
        float *const to = dw + j * k;
        transpose(rows, cols, dy + i * n + j, n, turned.data(), TURNED);
        if (db)
          for (int64_t r = 0; r < cols; ++r) db[j + r] += sum_row(turned.data() + r * TURNED, rows);
        if constexpr (P::ROUNDS)
          for (int64_t r = 0; r < cols; ++r) round_row(turned.data() + r * TURNED, rows, turned.data() + r * TURNED);
        if constexpr (STRIPS) {
          P::multiply(cols, k, rows, turned.data(), TURNED, right.data(), to, i > 0);
        } else if constexpr (PAIRS<T>) {
          for (int64_t r = 0; r < cols; ++r) convert(turned.data() + r * TURNED, rows, left.data() + r * TURNED);
          brgemm(cols, k, even<T>(rows), TURNED, k, k, i > 0, left.data(), right.data(), to, true);
        } else {
          brgemm(cols, k, rows, TURNED, k, k, i > 0, turned.data(), P::ROUNDS ? right.data() : x + i * k, to, false);
        }
      }
    }
  });
}

/* Calls body with what multiplies here: by instruction set, never by a measurement, so that a machine always gives the same bits. */
template <typename F> void by(bool half, F body) {
  if (half && available<BFloat16>()) return body(Brgemm<BFloat16>{});
  if (use_avx2_products()) return half ? body(Avx2<true>{}) : body(Avx2<false>{});
  half ? body(Brgemm<float, true>{}) : body(Brgemm<float>{});
}

} // namespace

bool layers_available() { return use_avx2_products() || available<float>(); }

void layer_forward(int64_t m, int64_t n, int64_t k, const float *x, const float *w, const float *b, float *y, bool half) {
  by(half, [&](auto product) { forward<decltype(product)>(m, n, k, x, w, b, y); });
}

void layer_inputs(int64_t m, int64_t n, int64_t k, const float *dy, const float *w, float *dx, bool half) {
  by(half, [&](auto product) { inputs<decltype(product)>(m, n, k, dy, w, dx); });
}

void layer_weights(int64_t m, int64_t n, int64_t k, const float *dy, const float *x, float *dw, float *db, bool half) {
  by(half, [&](auto product) { weights<decltype(product)>(m, n, k, dy, x, dw, db); });
}

} // namespace sweep
