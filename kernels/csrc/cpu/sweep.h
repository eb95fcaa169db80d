/* Vectors of sixteen float32 for the sweeps of tiles.cpp, and e^x on them.
 *
 * Sums keep sixteen lanes, so their order is fixed and needs no -ffast-math. The same source is compiled for AVX-512,
 * AVX2 and plain x86-64, and the loader picks (target_clones); a machine always gives the same bits.
 */
#pragma once
#include <cstdint>
#include <cstring>
#include <cmath>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SWEEP_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define SWEEP_CLONES
#endif
#define SWEEP_INLINE inline __attribute__((always_inline))

namespace sweep {

constexpr int LANES = 16;
constexpr double LOG2E = 1.4426950408889634;

/* Sixteen numbers at a time; the compiler maps them to what a processor has. */
using floats = float __attribute__((vector_size(4 * LANES)));
using words = uint32_t __attribute__((vector_size(4 * LANES)));
using halves = uint16_t __attribute__((vector_size(2 * LANES)));

SWEEP_INLINE floats load(const float *x) {
  floats v;
  std::memcpy(&v, x, sizeof v);
  return v;
}
SWEEP_INLINE floats load(const float *x, int64_t n) { /* the first n; zeros after them */
  floats v = {};
  std::memcpy(&v, x, size_t(n) * 4);
  return v;
}
SWEEP_INLINE void store(float *x, floats v, int64_t n = LANES) { std::memcpy(x, &v, size_t(n) * 4); }
SWEEP_INLINE double sum_of(floats v, int64_t n = LANES) {
  double sum = 0;
  for (int64_t lane = 0; lane < n; ++lane) sum += v[lane];
  return sum;
}

/* bfloat16 to nearest even; a NaN stays one. */
SWEEP_INLINE words bfloat16_of(floats x) {
  const words bits = (words)x;
  const words rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return x == x ? rounded : words{} + 0x7fc0u;
}
SWEEP_INLINE halves halves_of(words bits) { return __builtin_convertvector(bits, halves); }

/* 2^t: below 2^-126 it is 0, from 2^128 on infinite; NaN stays NaN. 2^t = 2^n 2^f, n the nearest whole number, 2^f by the minimax
 * polynomial of degree 6 on [-1/2, 1/2] (Remez; 1.9e-9 relative, 1.0e-7 with float32 rounding). */
SWEEP_INLINE floats exp2_of(floats t) {
  constexpr float SHIFT = 12582912.0f; /* 1.5 2^23: adding it rounds to a whole number, in the low bits */
  const floats least = floats{} - 127.0f;
  t = t < least ? least : t;
  t = t > 255.0f + least ? 255.0f + least : t; /* 128 */
  const floats shifted = t + SHIFT;
  const floats f = t - (shifted - SHIFT);
  const words exponent = ((words)shifted - 0x4b400000u + 127u) << 23;
  const floats power = (floats)exponent;
  floats p = f * 0.0001534581200370f + 0.0013399931219149f;
  p = p * f + 0.0096184889571091f;
  p = p * f + 0.0555032877696598f;
  p = p * f + 0.2402264689063429f;
  p = p * f + 0.6931472057372674f;
  p = p * f + 1.0000000005541665f;
  return p * power;
}

/* e^x with x = s S - m, from S: both constants in units of ln 2. */
struct Exponent {
  float factor, offset;
  Exponent(double scale, double m) : factor(float(scale * LOG2E)), offset(float(m * LOG2E)) {}
  SWEEP_INLINE floats of(floats product) const { return exp2_of(product * factor - offset); }
  /* s S with the factor as rounded above: a positive and its negatives see one scale. */
  double logit(float product) const { return double(factor) * double(product) / LOG2E; }
};

/* Calls body(begin, end) for what lies before and after `positive` in [0, n). */
template <typename F> void around(int64_t positive, int64_t n, F body) {
  if (positive < 0 || positive >= n) return body(int64_t(0), n);
  if (positive > 0) body(int64_t(0), positive);
  if (positive + 1 < n) body(positive + 1, n);
}

} // namespace sweep
