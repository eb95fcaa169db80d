/* Formulas of one entry, for the host and the device alike: kernels are thin loops around these, and a plain C++
 * compiler can test them.
 *
 *   t_ij = k S_ij          k = s b    b = log2 e for float (powers of 2), 1 for double (powers of e)
 *   E_ij = base^(t_ij - q)  q = m b    d = t / b
 *
 * The positive's logit d comes from the same rounded k as E does: what matters is that both speak of one scale, not
 * that the last bit of that scale is right. `exponent_offset` makes q a whole number, so that m and q agree exactly.
 */
#ifndef SWEEP_CUDA_ELEMENT_H
#define SWEEP_CUDA_ELEMENT_H
#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define SWEEP_BOTH __host__ __device__ __forceinline__
#else
#define SWEEP_BOTH inline
#endif

namespace sweep {

constexpr double log2_e = 1.4426950408889634074;
constexpr double ln_2 = 0.69314718055994530942;

/* base^t. The approximation errs by 2 units in the last place, keeps NaN, and flushes below 2^-126 to 0. */
SWEEP_BOTH float power(float t) {
#ifdef __CUDA_ARCH__
  float value;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(t));
  return value;
#else
  return exp2f(t);
#endif
}
SWEEP_BOTH double power(double t) { return exp(t); }

SWEEP_BOTH float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
SWEEP_BOTH double multiply_add(double a, double b, double c) { return fma(a, b, c); }

template <class T>
struct Base;
template <>
struct Base<float> {
  static constexpr double per_nat = log2_e, nats = ln_2;
};
template <>
struct Base<double> {
  static constexpr double per_nat = 1, nats = 1;
};

/* k and q. */
template <class T>
struct Fold {
  T slope, shift;
};
template <class T>
SWEEP_BOTH Fold<T> fold(double scale, double offset) {
  return {T(scale * Base<T>::per_nat), T(offset * Base<T>::per_nat)};
}
template <class T>
SWEEP_BOTH T exponential(Fold<T> k, T s) {
  return power(multiply_add(s, k.slope, -k.shift));
}
/* l = s S, in nats. */
template <class T>
SWEEP_BOTH double logit(Fold<T> k, T s) {
  return double(k.slope) * double(s) * Base<T>::nats;
}

/* m: the largest multiple of ln 2 up to max(0, |s| |u| |v| - 70). A bound that is not finite gives 0: what made it so is
 * in the sums anyway, and the other rows keep theirs. */
SWEEP_BOTH double exponent_offset(double scale, double image_norm, double text_norm) {
  double over = fabs(scale) * image_norm * text_norm - 70;
  return over > 0 && over < 1e300 ? floor(over * log2_e) * ln_2 : 0;
}

/* A sum of exponentials, sum base^max. Maxima are compared, never mixed, with NaN, which therefore ends in the sum. */
template <class T>
struct Pair {
  T max, sum;
};
template <class T>
SWEEP_BOTH Pair<T> no_pair() {
  return {T(-INFINITY), T(0)};
}
template <class T>
SWEEP_BOTH void add(Pair<T> &pair, T slope, T s) {
  T t = slope * s;
  if (t > pair.max) {
    pair.sum *= power(pair.max - t);
    pair.max = t;
  }
  /* One rounding: t itself is off by up to half a unit in the last place of a large number. */
  if (t != T(-INFINITY)) pair.sum += power(multiply_add(s, slope, -pair.max));
}
template <class T>
SWEEP_BOTH Pair<T> merge(Pair<T> a, Pair<T> b) {
  T max = a.max > b.max ? a.max : b.max;
  T left = a.max == max ? a.sum : a.sum * power(a.max - max);
  T right = b.max == max ? b.sum : b.sum * power(b.max - max);
  return {max, left + right};
}
/* The same number, its maximum in nats. */
template <class T>
SWEEP_BOTH Pair<double> in_nats(Pair<T> pair) {
  return {double(pair.max) * Base<T>::nats, double(pair.sum)};
}

/* A logarithm as the sum of two T: float alone loses 4e-5 at 1000 nats. */
template <class T>
struct Split {
  T high, low;
};
template <class T>
SWEEP_BOTH Split<T> split(double nats) {
  double bits = nats * Base<T>::per_nat;
  T high = T(bits);
  /* An infinite logarithm has no rest: inf - inf would be NaN. */
  return {high, isinf(bits) ? T(0) : T(bits - double(high))};
}
template <class T>
SWEEP_BOTH T probability(T slope, T s, Split<T> lse) {
  return power(multiply_add(s, slope, -lse.high) - lse.low);
}

/* ln(1 + x) for 0 <= x <= 1: interpolated at Chebyshev's nodes, relative error 1.3e-7 with float rounding. */
SWEEP_BOTH float log1p_unit(float x) {
  float p = -0.00317605701f;
  p = multiply_add(p, x, 0.0195425265f);
  p = multiply_add(p, x, -0.0563736111f);
  p = multiply_add(p, x, 0.105436236f);
  p = multiply_add(p, x, -0.152696669f);
  p = multiply_add(p, x, 0.196632743f);
  p = multiply_add(p, x, -0.249516159f);
  p = multiply_add(p, x, 0.333297104f);
  p = multiply_add(p, x, -0.499998927f);
  return multiply_add(p * x, x, x);
}
SWEEP_BOTH double log1p_unit(double x) { return log1p(x); }
SWEEP_BOTH float reciprocal(float x) {
#ifdef __CUDA_ARCH__
  float value;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(x));
  return value;
#else
  return 1 / x;
#endif
}
SWEEP_BOTH double reciprocal(double x) { return 1 / x; }
SWEEP_BOTH float magnitude(float x) { return fabsf(x); }
SWEEP_BOTH double magnitude(double x) { return fabs(x); }

/* softplus and sigmoid of x share e^-|x|, which keeps NaN where a comparison would drop it. */
template <class T>
struct Soft {
  T plus, sigmoid;
};
template <class T>
SWEEP_BOTH Soft<T> soft(T x) {
  T decay = power(-magnitude(x) * T(Base<T>::per_nat));
  T share = reciprocal(T(1) + decay);
  return {(x > T(0) ? x : T(0)) + log1p_unit(decay), x >= T(0) ? share : decay * share};
}

/* Sigmoid loss of one entry: loss = softplus(-z x), slope = -z sigmoid(-z x), x = s S + bias. */
template <class T>
struct Entry {
  T loss, slope;
};
template <class T>
SWEEP_BOTH Entry<T> sigmoid_entry(T scale, T bias, T s, bool positive) {
  T x = multiply_add(s, scale, bias);
  Soft<T> value = soft(positive ? -x : x);
  return {value.plus, positive ? -value.sigmoid : value.sigmoid};
}

/* One side of InfoNCE for one entry; `log_sum` = ln r. */
struct Side {
  double loss, slope, lse, inverse;
  bool unsound;
};
SWEEP_BOTH Side side_entry(double log_sum, double diagonal, double offset, double n) {
  Side side;
  Soft<double> value = soft(log_sum - diagonal);
  side.loss = value.plus;
  side.slope = value.sigmoid;
  side.lse = diagonal + value.plus;
  /* As libtorch's softmax of an infinite logit: NaN throughout. */
  if (!(side.lse < INFINITY)) side.loss = side.slope = side.lse = NAN;
  side.inverse = exp(offset - side.lse);
  /* R e^-m < n 2^-80, turned around: 1/R e^m > 2^80 / n. Written so that NaN is unsound too. */
  bool large = side.inverse * n <= 1208925819614629174706176.0;
  side.unsound = !(large && isfinite(side.lse) && isfinite(side.loss));
  return side;
}

/* 2^14 G within the range of float16: never infinite, NaN stays. */
SWEEP_BOTH float scaled_gradient(float g) {
  float value = g * 16384.0f;
  return value > 65504.0f ? 65504.0f : value < -65504.0f ? -65504.0f : value;
}
/* The same of a number that is 2^14 G already, and not negative. */
SWEEP_BOTH float capped(float value) {
#ifdef __CUDA_ARCH__
  float least;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(least) : "f"(value), "f"(65504.0f));
  return least;
#else
  return value > 65504.0f ? 65504.0f : value;
#endif
}

}  // namespace sweep
#endif
