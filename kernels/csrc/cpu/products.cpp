#include "products.h"
#include "sweep.h"

namespace sweep {

SWEEP_CLONES void round_row(const float *from, int64_t n, float *to) {
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES) store(to + j, (floats)(bfloat16_of(load(from + j)) << 16));
  if (j < n) store(to + j, (floats)(bfloat16_of(load(from + j, n - j)) << 16), n - j);
}

/* By squares of eight in registers. */
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

} // namespace sweep
