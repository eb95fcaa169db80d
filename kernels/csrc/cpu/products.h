/* What the layers' operators are made of: products chosen by instruction set, and how their factors are laid.
 *
 * A product is one of Brgemm<BFloat16>, Brgemm<float> and Avx2; T is the type of its factors. `ROUNDS`: float32 factors are rounded
 * to what bfloat16 has, on processors that have no products of it. Chosen by `by_processor`, never by a measurement, so that a
 * machine always gives the same bits.
 */
#pragma once
#include "avx2.h"
#include "brgemm.h"
#include "sweep.h"
#include <memory>

namespace sweep {

using at::BFloat16;

constexpr int64_t CHUNK = 256; /* rows of the factors of a product that sums over rows */

inline int64_t blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }

/* Memory that is written before it is read. */
template <typename T> std::unique_ptr<T[]> room(int64_t n) { return std::unique_ptr<T[]>(new T[size_t(n)]); }

/* n numbers to the float32 that bfloat16 has for them. */
void round_row(const float *from, int64_t n, float *to);

/* `to` (n, m) = `from` (m, n)^T. */
void transpose(int64_t m, int64_t n, const float *from, int64_t ld_from, float *to, int64_t ld_to);

float sum_row(const float *x, int64_t n);

/* A's row for brgemm: n numbers, and a zero after them if n is odd. */
inline void convert(const float *from, int64_t n, BFloat16 *to) {
  bfloat16_row(from, n, reinterpret_cast<uint16_t *>(to));
  if (n & 1) to[n] = BFloat16(0.0f);
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

/* Columns of a matrix; `first` is a multiple of 16. */
struct Columns {
  int64_t first, count;
};

/* Calls body with columns of a right factor of CHUNK rows that stay in the second-level cache, while it goes over C's rows. */
template <typename F> void by_columns(int64_t n, F body) {
  for (int64_t first = 0; first < n; first += 768) body(Columns{first, std::min<int64_t>(768, n - first)});
}

/* oneDNN makes a kernel for each size of a product: rows go by 128, then what whole sixteens are left, then the rest, while a panel is in
 * the cache.
 *
 * ROWS of C at a time; COLS of B lie together (see Panels); `multiply` is C (m, n) (+)= A (m, k) B of panels; `accumulate` the same
 * of some columns with B (k, n) as `lay` lays it, k at most `depth`; `room_for` is what that takes. AS_IT_IS: it lays a row-major float32
 * B as it is. */
template <typename Factor, bool Rounds = false> struct Brgemm {
  using T = Factor;
  static constexpr bool ROUNDS = Rounds, AS_IT_IS = !PAIRS<T> && !Rounds;
  static constexpr int64_t ROWS = 64, COLS = 64;

  static void multiply(int64_t m, int64_t n, int64_t k, const T *a, int64_t lda, const T *panels, float *c, bool add) {
    for (int64_t j = 0; j < n; j += COLS)
      for (int64_t i = 0, rows; i < m; i += rows) {
        rows = m - i >= 128 ? 128 : m - i >= LANES ? (m - i) / LANES * LANES : m - i;
        product(rows, std::min(COLS, n - j), k, a + i * lda, lda, panels + j * k, COLS, c + i * n + j, n, add);
      }
  }
  static int64_t room_for(int64_t n, int64_t depth) { return even<T>(depth) * n; }
  /* Rows `first` and following of B, from (k, n); `first` is even. */
  static void lay(int64_t k, int64_t n, const float *b, int64_t ldb, int64_t first, int64_t, T *to) {
    pack<T>(k, n, b, ldb, n, to + first * n);
    if (ROUNDS) round_values(to + first * n, k * n);
  }
  static void accumulate(int64_t m, int64_t n, Columns of, int64_t k, int64_t, const T *a, int64_t lda, const T *b, float *c, bool add) {
    brgemm(m, of.count, k, lda, n, n, add, a, b + of.first * (PAIRS<T> ? 2 : 1), c + of.first, PAIRS<T>);
  }

private:
  static void round_values(float *x, int64_t n) { round_row(x, n, x); }
  static void round_values(BFloat16 *, int64_t) {}
};
template <bool Rounds> struct Avx2 {
  using T = float;
  static constexpr bool ROUNDS = Rounds, AS_IT_IS = false;
  static constexpr int64_t ROWS = 96, COLS = STRIP;

  static void multiply(int64_t m, int64_t n, int64_t k, const T *a, int64_t lda, const T *panels, float *c, bool add) {
    avx2_product(m, n, k, a, lda, panels, STRIP * k, c, n, add);
  }
  static int64_t room_for(int64_t n, int64_t depth) { return depth * whole_strips(n); }
  static void lay(int64_t k, int64_t n, const float *b, int64_t ldb, int64_t first, int64_t depth, T *to) {
    for (int64_t j = 0; j < n; j += STRIP) {
      float *const strip = to + j * depth + first * STRIP;
      pack_strips(k, std::min(STRIP, n - j), b + j, ldb, strip);
      if (ROUNDS) round_row(strip, k * STRIP, strip);
    }
  }
  static void accumulate(int64_t m, int64_t n, Columns of, int64_t k, int64_t depth, const T *a, int64_t lda, const T *b, float *c,
                         bool add) {
    avx2_product(m, of.count, k, a, lda, b + of.first * depth, STRIP * depth, c + of.first, n, add);
  }
};

/* Calls body with what multiplies here. */
template <typename F> void by_processor(bool half, F body) {
  if (half && available<BFloat16>()) return body(Brgemm<BFloat16>{});
  if (use_avx2_products()) return half ? body(Avx2<true>{}) : body(Avx2<false>{});
  half ? body(Brgemm<float, true>{}) : body(Brgemm<float>{});
}

/* A (rows, k) as P takes it at `to`, rows even(k) apart; or A itself, if P takes it as it is. */
template <typename P>
const typename P::T *left_factor(int64_t rows, int64_t k, const float *a, typename P::T *to) {
  if constexpr (PAIRS<typename P::T>) {
    for (int64_t r = 0; r < rows; ++r) convert(a + r * k, k, to + r * even<BFloat16>(k));
    return to;
  } else if constexpr (P::ROUNDS) {
    round_row(a, rows * k, to);
    return to;
  } else {
    return a;
  }
}

/* A (n, rows) as P takes it at `to`, from float32 with rows `ld` apart, which `to` has as well; or A itself, changed in place. If
 * `rows` is odd and P wants pairs, a column of zeros follows. */
template <typename P>
const typename P::T *turned_factor(int64_t n, int64_t rows, float *a, int64_t ld, typename P::T *to) {
  if constexpr (PAIRS<typename P::T>) {
    for (int64_t r = 0; r < n; ++r) convert(a + r * ld, rows, to + r * ld);
    return to;
  } else {
    if (P::ROUNDS)
      for (int64_t r = 0; r < n; ++r) round_row(a + r * ld, rows, a + r * ld);
    return a;
  }
}

/* B (k, n) in panels of COLS columns, each with its rows one after the other; k is even where rows go in pairs. */
template <typename P> struct Panels {
  using T = typename P::T;
  int64_t k, n;
  std::unique_ptr<T[]> values;

  /* B = W^T, W (n, k). */
  static Panels of_transpose(int64_t k, int64_t n, const float *w) {
    Panels panels(k, n);
    in_parts(blocks(n, P::COLS), [&](int64_t, int64_t begin, int64_t end) {
      const auto turned = room<float>(PAIRS<T> ? k * P::COLS : 0);
      for (int64_t panel = begin; panel < end; ++panel) {
        const int64_t j = panel * P::COLS, cols = std::min(P::COLS, n - j);
        T *const to = panels.values.get() + panel * panels.k * P::COLS;
        if constexpr (PAIRS<T>) {
          transpose(cols, k, w + j * k, k, turned.get(), P::COLS);
          pack<T>(k, cols, turned.get(), P::COLS, P::COLS, to);
        } else {
          transpose(cols, k, w + j * k, k, to, P::COLS);
          panels.finish(to);
        }
      }
    });
    return panels;
  }

  /* B = W, W (k, n). */
  static Panels of(int64_t k, int64_t n, const float *w) {
    Panels panels(k, n);
    in_parts(blocks(n, P::COLS), [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t panel = begin; panel < end; ++panel) {
        T *const to = panels.values.get() + panel * panels.k * P::COLS;
        pack<T>(k, std::min(P::COLS, n - panel * P::COLS), w + panel * P::COLS, n, P::COLS, to);
        panels.finish(to);
      }
    });
    return panels;
  }

  /* C (m, n) (+)= A B, A as `left_factor` gives it. */
  void multiply(int64_t m, const T *a, float *c, bool add) const { P::multiply(m, n, k, a, k, values.get(), c, add); }

private:
  /* Columns that a last panel lacks are zeros: they are multiplied where strips are whole. */
  Panels(int64_t k_, int64_t n_) : k(even<T>(k_)), n(n_), values(room<T>(k * blocks(n, P::COLS) * P::COLS)) {
    if (n % P::COLS) std::fill_n(values.get() + k * (n / P::COLS * P::COLS), k * P::COLS, T(0.0f));
  }
  void finish(T *panel) const {
    if constexpr (P::ROUNDS) round_row(panel, k * P::COLS, panel);
  }
};

} // namespace sweep
