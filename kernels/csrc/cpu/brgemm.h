/* oneDNN's batch-reduce products, generated at run time for the processor, as ATen exports them: C (m, n) (+)= A (m, k) B
 * (k, n), A row-major; B row-major, for bfloat16 in pairs of rows ("VNNI": b[k/2][n][k%2]); C float32.
 */
#pragma once
#include <ATen/native/CPUBlas.h>
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
 * without products of bfloat16, `0` that of one with none of these products. */
inline bool asked(const char *way) {
  const char *const value = std::getenv("SWEEP_KERNELS_TILES");
  return value && !std::strcmp(value, way);
}

/* Whether ATen has these kernels for this processor: asked by using one. */
template <typename T> bool available() {
  static const bool yes = [] {
    if (asked("0") || asked("avx2") || (PAIRS<T> && asked("fp32"))) return false;
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

} // namespace sweep
