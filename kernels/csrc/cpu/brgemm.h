/* oneDNN's batch-reduce products, generated at run time for the processor, as ATen exports them: C (m, n) (+)= A (m, k) B
 * (k, n), A row-major; B row-major, for bfloat16 in pairs of rows ("VNNI": b[k/2][n][k%2]); C float32.
 */
#pragma once
#include <ATen/Parallel.h>
#include <ATen/cpu/Utils.h>
#include <ATen/native/CPUBlas.h>
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

namespace sweep {

using at::native::cpublas::brgemm;

template <typename T> constexpr bool PAIRS = std::is_same<T, at::BFloat16>::value;
template <typename T> int64_t even(int64_t n) { return PAIRS<T> ? n + (n & 1) : n; }

/* For tests, SWEEP_KERNELS_TILES has a processor take another's way: `avx2` that of one without AVX-512, `fp32` that of one
 * without products of bfloat16, `bf16` that of one with them, `0` that of one with none of these products. */
inline bool asked(const char *way) {
  const char *const value = std::getenv("SWEEP_KERNELS_TILES");
  return value && !std::strcmp(value, way);
}

/* Intel's processors multiply bfloat16 by tiles (AMX). What they have beside those (VDPBF16PS) is half as fast as float32: 82 and 168 GFLOP/s
 * of a core of an Emerald Rapids whose hypervisor hides the tiles. */
inline bool fast_bfloat16() {
#if defined(__x86_64__) && defined(__GNUC__)
  return asked("bf16") || !__builtin_cpu_is("intel") || at::cpu::init_amx();
#else
  return true;
#endif
}

/* Whether ATen has these kernels for this processor: asked by using one. Without AVX-512 it would take plain products for them. */
template <typename T> bool available() {
  static const bool yes = [] {
#if defined(__x86_64__) && defined(__GNUC__)
    if (!__builtin_cpu_supports("avx512f")) return false;
#endif
    if (asked("0") || asked("avx2") || (PAIRS<T> && (asked("fp32") || !fast_bfloat16()))) return false;
    try {
      T a[4] = {T(1.0f), T(2.0f), T(0.0f), T(1.0f)}, b[4] = {T(3.0f), T(4.0f), T(5.0f), T(6.0f)};
      if (PAIRS<T>) std::swap(b[1], b[2]); /* (3 4; 5 6) in pairs of rows */
      float c[4];
      brgemm(2, 2, 2, 2, 2, 2, false, a, b, c, PAIRS<T>);
      at::native::cpublas::brgemm_release(PAIRS<T>);
      return c[0] == 13.0f && c[1] == 16.0f && c[2] == 5.0f && c[3] == 6.0f;
    } catch (const std::exception &) {
      return false;
    }
  }();
  return yes;
}

constexpr int64_t DEPTH = 512; /* of one product, so that both factors stay in the second-level cache */

/* C (m, n) (+)= A (m, k) B (k, n), k in slices that fit the cache. */
template <typename T>
void product(int64_t m, int64_t n, int64_t k, const T *a, int64_t lda, const T *b, int64_t ldb, float *c, int64_t ldc,
             bool add) {
  for (int64_t from = 0; from < k; from += DEPTH) {
    const int64_t depth = std::min(DEPTH, k - from);
    brgemm(m, n, depth, lda, ldb, ldc, add || from > 0, a + from, b + from * ldb, c, PAIRS<T>);
  }
}

/* n numbers to bfloat16: a row of A. */
void bfloat16_row(const float *from, int64_t n, uint16_t *to);

/* n pairs (first[j], second[j]) of bfloat16: two rows of B. `second` may be null, for zeros. */
void bfloat16_pairs(const float *first, const float *second, int64_t n, float *to);

/* Work in as many equal parts as there are threads; part numbers do not depend on who takes them. */
template <typename F> int64_t in_parts(int64_t items, F body) {
  const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(at::get_num_threads(), items));
  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) body(part, items * part / parts, items * (part + 1) / parts);
    at::native::cpublas::brgemm_release();
  });
  return parts;
}

} // namespace sweep
