#include "avx2.h"
#include "brgemm.h"
#include <ATen/Version.h>
#include <algorithm>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

namespace sweep {
namespace {

#define SWEEP_AVX2 __attribute__((target("avx2,fma")))
constexpr int64_t ROWS = 6;     /* of C in registers */
constexpr int64_t SLICE = 256; /* of k: 16 KiB of a strip */

/* M rows and one strip. C is added last: sums of sums lose less than one long sum. Each is a variable of its own, since the
 * compiler keeps copies of arrays in memory. */
#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)
#define BEGIN(i) __m256 left##i = _mm256_setzero_ps(), right##i = _mm256_setzero_ps();
#define ADD(i)                                                                                                         \
  if (i < M) {                                                                                                         \
    const __m256 x = _mm256_broadcast_ss(a + i * lda + p);                                                             \
    left##i = _mm256_fmadd_ps(x, left, left##i);                                                                       \
    right##i = _mm256_fmadd_ps(x, right, right##i);                                                                    \
  }
#define END(i)                                                                                                         \
  if (i < M) {                                                                                                         \
    if (add) left##i += _mm256_loadu_ps(c + i * ldc), right##i += _mm256_loadu_ps(c + i * ldc + 8);                    \
    _mm256_storeu_ps(c + i * ldc, left##i), _mm256_storeu_ps(c + i * ldc + 8, right##i);                               \
  }

template <int M>
SWEEP_AVX2 void block(int64_t k, const float *a, int64_t lda, const float *b, float *c, int64_t ldc, bool add) {
  EACH_ROW(BEGIN)
  for (int64_t p = 0; p < k; ++p, b += STRIP) {
    const __m256 left = _mm256_loadu_ps(b), right = _mm256_loadu_ps(b + 8);
    EACH_ROW(ADD)
  }
  EACH_ROW(END)
}

void rows_of_strip(int64_t m, int64_t k, const float *a, int64_t lda, const float *b, float *c, int64_t ldc, bool add) {
  switch (m) {
  case 6: return block<6>(k, a, lda, b, c, ldc, add);
  case 5: return block<5>(k, a, lda, b, c, ldc, add);
  case 4: return block<4>(k, a, lda, b, c, ldc, add);
  case 3: return block<3>(k, a, lda, b, c, ldc, add);
  case 2: return block<2>(k, a, lda, b, c, ldc, add);
  default: return block<1>(k, a, lda, b, c, ldc, add);
  }
}

} // namespace

bool use_avx2_products() {
  static const bool yes = [] {
    const bool can = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return can && !asked("0") && (asked("avx2") || at::get_cpu_capability() == "AVX2");
  }();
  return yes;
}

void avx2_product(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t stride, float *c,
                  int64_t ldc, bool add) {
  float edge[ROWS * STRIP]; /* of a strip that C has only a part of */
  for (int64_t from = 0; from < k; from += SLICE) {
    const int64_t depth = std::min(SLICE, k - from);
    const bool onto = add || from > 0;
    for (int64_t j = 0; j < n; j += STRIP) {
      const float *strip = b + j / STRIP * stride + from * STRIP;
      const int64_t wide = std::min(STRIP, n - j);
      for (int64_t i = 0; i < m; i += ROWS) {
        const int64_t rows = std::min(ROWS, m - i);
        float *const to = c + i * ldc + j;
        if (wide == STRIP) {
          rows_of_strip(rows, depth, a + i * lda + from, lda, strip, to, ldc, onto);
          continue;
        }
        for (int64_t r = 0; onto && r < rows; ++r) std::copy_n(to + r * ldc, wide, edge + r * STRIP);
        rows_of_strip(rows, depth, a + i * lda + from, lda, strip, edge, STRIP, onto);
        for (int64_t r = 0; r < rows; ++r) std::copy_n(edge + r * STRIP, wide, to + r * ldc);
      }
    }
  }
}

} // namespace sweep
#else
namespace sweep {
bool use_avx2_products() { return false; }
void avx2_product(int64_t, int64_t, int64_t, const float *, int64_t, const float *, int64_t, float *, int64_t, bool) {
  std::abort();
}
} // namespace sweep
#endif

namespace sweep {

void pack_strips(int64_t k, int64_t n, const float *b, int64_t ldb, float *to) {
  for (int64_t j = 0; j < n; j += STRIP) {
    const int64_t wide = std::min(STRIP, n - j);
    for (int64_t p = 0; p < k; ++p, to += STRIP) {
      std::copy_n(b + p * ldb + j, wide, to);
      std::fill(to + wide, to + STRIP, 0.0f);
    }
  }
}

} // namespace sweep
