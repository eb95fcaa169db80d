#include "rows.h"
#include "sweep.h"
#include <algorithm>

namespace sweep {
namespace {

#define SWEEP_BODY __attribute__((always_inline))

/* body(j, count) for each vector; `count` is a constant but for the last. */
template <typename F> SWEEP_INLINE void each(int64_t n, F body) {
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES) body(j, int64_t(LANES));
  if (j < n) body(j, n - j);
}

/* The first n lanes of v, zeros after them. */
SWEEP_INLINE floats first(floats v, int64_t n) {
  if (n == LANES) return v;
  floats kept = {};
  std::memcpy(&kept, &v, size_t(n) * 4);
  return kept;
}

using eight = float __attribute__((vector_size(32)));
using four = float __attribute__((vector_size(16)));

/* Halves of v put together by `join`, and theirs, down to one number. */
template <typename F> SWEEP_INLINE float folded(floats v, F join) {
  const eight h = join(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7), __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
  const four q = join(__builtin_shufflevector(h, h, 0, 1, 2, 3), __builtin_shufflevector(h, h, 4, 5, 6, 7));
  const four p = join(q, __builtin_shufflevector(q, q, 2, 3, 2, 3));
  return join(p, __builtin_shufflevector(p, p, 1, 1, 1, 1))[0];
}
SWEEP_INLINE float total(floats v) {
  return folded(v, [](auto a, auto b) SWEEP_BODY { return a + b; });
}
SWEEP_INLINE float largest_of(floats v) {
  return folded(v, [](auto a, auto b) SWEEP_BODY { return a > b ? a : b; });
}

SWEEP_INLINE floats where(decltype(floats{} < floats{}) yes, floats a, floats b) { return yes ? a : b; }
SWEEP_INLINE floats most(floats a, floats b) { return where(a > b, a, b); }
/* 1 / x of normal numbers below 2^126, to about a rounding: three steps of Newton's from a first guess by the exponent's bits, in half the time that
 * AVX-512 takes to divide. */
SWEEP_INLINE floats reciprocal(floats x) {
  floats y = (floats)(0x7ef311c3u - (words)x);
  y = y * (2.0f - x * y);
  y = y * (2.0f - x * y);
  return y * (2.0f - x * y);
}

SWEEP_INLINE floats exp_of(floats x) { return exp2_of(x * float(LOG2E)); }
/* sigmoid(x) and 1 - sigmoid(x), each with its own digits. */
SWEEP_INLINE void sigmoid_of(floats x, floats &sigmoid, floats &rest) {
  const floats e = exp_of(-most(x, floats{} - 85.0f));
  sigmoid = reciprocal(1.0f + e);
  rest = e * sigmoid;
}

/* Phi, the normal distribution's, and its density phi. Phi(-|x|) = exp(-x^2/2) t q(t), t = 1 / (1 + 0.3275911 |x| / sqrt 2); q, of degree
 * 9, was fitted to it on [0, 17] by relative error (8e-9; Abramowitz & Stegun 7.1.26 has the form). */
SWEEP_INLINE void normal_of(floats x, floats &probability, floats &density) {
  const floats size = where(x < 0.0f, -x, x);
  const floats t = reciprocal(1.0f + 0.2316418882663604f * size), e = exp_of(-0.5f * x * x);
  floats q = t * 0.02668917925715382f - 0.14950437657859442f;
  q = q * t + 0.2920835131956709f;
  q = q * t - 0.25077275838667185f;
  q = q * t + 0.22590369697977788f;
  q = q * t - 0.011599290658438038f;
  q = q * t + 0.09815752833201057f;
  q = q * t + 0.08388105424488851f;
  q = q * t + 0.09276485548491908f;
  q = q * t + 0.09239659415660188f;
  const floats tail = e * t * q;
  probability = where(x < 0.0f, tail, 1.0f - tail);
  density = e * 0.3989422804014327f;
}

/* act(z) and act'(z). */
template <Activation ACTIVATION> SWEEP_INLINE void activation_of(floats z, floats &value, floats &slope) {
  if constexpr (ACTIVATION == Activation::gelu) {
    floats probability, density;
    normal_of(z, probability, density);
    value = z * probability;
    slope = probability + z * density;
  } else if constexpr (ACTIVATION == Activation::gelu_tanh) {
    /* 0.5 z (1 + tanh w) = z sigmoid(2 w), w = sqrt(2 / pi) (z + 0.044715 z^3). */
    constexpr float SCALE = 1.5957691216057308f;
    const floats square = z * z;
    floats sigmoid, rest;
    sigmoid_of(SCALE * z * (1.0f + 0.044715f * square), sigmoid, rest);
    value = z * sigmoid;
    slope = sigmoid + value * rest * SCALE * (1.0f + 0.134145f * square);
  } else {
    floats sigmoid, rest;
    sigmoid_of(1.702f * z, sigmoid, rest);
    value = z * sigmoid;
    slope = sigmoid + 1.702f * value * rest;
  }
}

SWEEP_INLINE words bits_at(const uint16_t *x, int64_t n) {
  halves bits = {};
  std::memcpy(&bits, x, size_t(n) * 2);
  return __builtin_convertvector(bits, words);
}
SWEEP_INLINE void store_bits(uint16_t *x, words bits, int64_t n) {
  const halves narrow = halves_of(bits);
  std::memcpy(x, &narrow, size_t(n) * 2);
}
SWEEP_INLINE floats widened(words bits) { return (floats)(bits << 16); }

/* BODY(A) for the activation that is asked for, a constant. */
#define SWEEP_EACH_ACTIVATION(activation, BODY)                                                                        \
  switch (activation) {                                                                                                \
  case Activation::gelu: BODY(Activation::gelu) break;                                                                 \
  case Activation::gelu_tanh: BODY(Activation::gelu_tanh) break;                                                       \
  case Activation::quick_gelu: BODY(Activation::quick_gelu) break;                                                     \
  }

template <Activation A> SWEEP_INLINE void forward_row(int64_t n, const float *bias, float *z, float *c) {
  each(n, [&](int64_t j, int64_t count) SWEEP_BODY {
    const floats in = load(z + j, count) + load(bias + j, count);
    floats value, slope;
    activation_of<A>(in, value, slope);
    store(z + j, in, count);
    store(c + j, value, count);
  });
}

template <Activation A> SWEEP_INLINE void backward_row(int64_t n, const float *z, float *c, float *d, float *sums) {
  each(n, [&](int64_t j, int64_t count) SWEEP_BODY {
    floats value, slope;
    activation_of<A>(load(z + j, count), value, slope);
    const floats down = load(d + j, count) * slope;
    store(c + j, value, count);
    store(d + j, down, count);
    store(sums + j, load(sums + j, count) + down, count);
  });
}

template <Activation A> SWEEP_INLINE void forward_half(int64_t n, const float *bias, const float *z, uint16_t *kept, uint16_t *c) {
  each(n, [&](int64_t j, int64_t count) SWEEP_BODY {
    const words in = bfloat16_of(load(z + j, count) + load(bias + j, count));
    floats value, slope;
    activation_of<A>(widened(in), value, slope);
    if (kept) store_bits(kept + j, in, count);
    store_bits(c + j, bfloat16_of(value), count);
  });
}

template <Activation A>
SWEEP_INLINE void backward_half(int64_t n, const uint16_t *const z[2], const float *const d[2], uint16_t *const dz[2], float *c_pairs,
                                float *dz_pairs, float *sums) {
  const bool both = d[1];
  each(n, [&](int64_t j, int64_t count) SWEEP_BODY {
    floats value, slope;
    activation_of<A>(widened(bits_at(z[0] + j, count)), value, slope);
    const floats down = load(d[0] + j, count) * slope;
    floats of_both = down;
    words c = bfloat16_of(value), pair = bfloat16_of(down);
    store_bits(dz[0] + j, pair, count);
    if (both) {
      activation_of<A>(widened(bits_at(z[1] + j, count)), value, slope);
      const floats second = load(d[1] + j, count) * slope;
      const words bits = bfloat16_of(second);
      of_both += second;
      c |= bfloat16_of(value) << 16;
      pair |= bits << 16;
      store_bits(dz[1] + j, bits, count);
    }
    store(c_pairs + j, (floats)c, count);
    store(dz_pairs + j, (floats)pair, count);
    store(sums + j, load(sums + j, count) + of_both, count);
  });
}

SWEEP_INLINE words lanes_from(int64_t j) {
  return words{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + uint32_t(j);
}

/* The first n of t numbers to 2^(scale s) over its sum, the rest to 0. */
SWEEP_INLINE void softmax_row(int64_t n, int64_t t, float scale, float *s) {
  const floats never = floats{} - INFINITY;
  const uint32_t end = uint32_t(n);
  floats largest = never;
  for (int64_t j = 0; j < n; j += LANES) largest = most(largest, where(lanes_from(j) < end, load(s + j), never));
  const float top = largest_of(largest);
  floats sums = {};
  for (int64_t j = 0; j < n; j += LANES) {
    const floats e = where(lanes_from(j) < end, exp2_of((load(s + j) - top) * scale), floats{});
    sums += e;
    store(s + j, e);
  }
  const float share = 1.0f / total(sums);
  int64_t j = 0;
  for (; j < n; j += LANES) store(s + j, load(s + j) * share);
  for (; j < t; j += LANES) store(s + j, floats{});
}

} // namespace

SWEEP_CLONES void norm_row(int64_t n, const float *x, const float *gamma, const float *beta, float eps, float *stats, float *u) {
  floats sums = {};
  each(n, [&](int64_t j, int64_t count) SWEEP_BODY { sums += load(x + j, count); });
  const float mean = total(sums) / float(n);
  floats squares = {};
  each(n, [&](int64_t j, int64_t count) SWEEP_BODY {
    const floats off = first(load(x + j, count) - mean, count);
    squares += off * off;
  });
  const float scale = float(1.0 / std::sqrt(double(total(squares)) / double(n) + double(eps)));
  stats[0] = mean, stats[1] = scale;
  each(n, [&](int64_t j, int64_t count) SWEEP_BODY {
    store(u + j, (load(x + j, count) - mean) * scale * load(gamma + j, count) + load(beta + j, count), count);
  });
}

SWEEP_CLONES void norm_row_again(int64_t n, const float *x, const float *gamma, const float *beta, const float *stats, float *u) {
  const float mean = stats[0], scale = stats[1];
  each(n, [&](int64_t j, int64_t count) SWEEP_BODY {
    store(u + j, (load(x + j, count) - mean) * scale * load(gamma + j, count) + load(beta + j, count), count);
  });
}

SWEEP_CLONES void norm_row_backward(int64_t n, const float *x, const float *gamma, const float *stats, const float *du, const float *dy,
                                    float *dx, float *d_gamma, float *d_beta) {
  const float mean = stats[0], scale = stats[1];
  floats sums = {}, along = {};
  each(n, [&](int64_t j, int64_t count) SWEEP_BODY {
    const floats off = (load(x + j, count) - mean) * scale, down = load(du + j, count), g = down * load(gamma + j, count);
    sums += g;
    along += g * off;
    store(d_gamma + j, load(d_gamma + j, count) + down * off, count);
    store(d_beta + j, load(d_beta + j, count) + down, count);
  });
  const float of_g = total(sums) / float(n), of_along = total(along) / float(n);
  each(n, [&](int64_t j, int64_t count) SWEEP_BODY {
    const floats off = (load(x + j, count) - mean) * scale, g = load(du + j, count) * load(gamma + j, count);
    store(dx + j, load(dy + j, count) + scale * (g - of_g - off * of_along), count);
  });
}

SWEEP_CLONES void add_row(int64_t n, const float *x, float *sums) {
  each(n, [&](int64_t j, int64_t count) SWEEP_BODY { store(sums + j, load(sums + j, count) + load(x + j, count), count); });
}

SWEEP_CLONES void sum_of_rows(int64_t n, const float *a, const float *b, float *x) {
  each(n, [&](int64_t j, int64_t count) SWEEP_BODY { store(x + j, load(a + j, count) + load(b + j, count), count); });
}

SWEEP_CLONES void activate(Activation activation, int64_t n, const float *bias, float *z, float *c) {
#define BODY(A) forward_row<A>(n, bias, z, c);
  SWEEP_EACH_ACTIVATION(activation, BODY)
#undef BODY
}

SWEEP_CLONES void activate_backward(Activation activation, int64_t n, const float *z, float *c, float *d, float *sums) {
#define BODY(A) backward_row<A>(n, z, c, d, sums);
  SWEEP_EACH_ACTIVATION(activation, BODY)
#undef BODY
}

SWEEP_CLONES void activate_half(Activation activation, int64_t n, const float *bias, const float *z, uint16_t *kept, uint16_t *c) {
#define BODY(A) forward_half<A>(n, bias, z, kept, c);
  SWEEP_EACH_ACTIVATION(activation, BODY)
#undef BODY
}

SWEEP_CLONES void activate_backward_half(Activation activation, int64_t n, const uint16_t *const z[2], const float *const d[2],
                                         uint16_t *const dz[2], float *c_pairs, float *dz_pairs, float *sums) {
#define BODY(A) backward_half<A>(n, z, d, dz, c_pairs, dz_pairs, sums);
  SWEEP_EACH_ACTIVATION(activation, BODY)
#undef BODY
}

SWEEP_CLONES void round_biased_row(int64_t n, const float *bias, float *z, uint16_t *kept) {
  each(n, [&](int64_t j, int64_t count) SWEEP_BODY {
    const words bits = bfloat16_of(load(z + j, count) + load(bias + j, count));
    if (kept) store_bits(kept + j, bits, count);
    store(z + j, widened(bits), count);
  });
}

SWEEP_CLONES void half_rows(int64_t n, const float *const d[2], uint16_t *const to[2], float *pairs, float *sums) {
  const bool both = d[1];
  each(n, [&](int64_t j, int64_t count) SWEEP_BODY {
    floats of_both = load(d[0] + j, count);
    words pair = bfloat16_of(of_both);
    store_bits(to[0] + j, pair, count);
    if (both) {
      const floats second = load(d[1] + j, count);
      const words bits = bfloat16_of(second);
      of_both += second;
      store_bits(to[1] + j, bits, count);
      pair |= bits << 16;
    }
    store(pairs + j, (floats)pair, count);
    store(sums + j, load(sums + j, count) + of_both, count);
  });
}

SWEEP_CLONES void pair_rows(int64_t n, const uint16_t *first, const uint16_t *second, float *pairs) {
  each(n, [&](int64_t j, int64_t count) SWEEP_BODY {
    words pair = bits_at(first + j, count);
    if (second) pair |= bits_at(second + j, count) << 16;
    store(pairs + j, (floats)pair, count);
  });
}

namespace {

SWEEP_INLINE float dot(int64_t n, const float *a, const float *b) {
  floats sums = {};
  each(n, [&](int64_t j, int64_t count) SWEEP_BODY { sums += load(a + j, count) * load(b + j, count); });
  return total(sums);
}

/* to += factor x. */
SWEEP_INLINE void add_scaled(int64_t n, float factor, const float *x, float *to) {
  each(n, [&](int64_t j, int64_t count) SWEEP_BODY { store(to + j, load(to + j, count) + factor * load(x + j, count), count); });
}

/* weights (heads, t): softmax of factor q k. */
SWEEP_INLINE void weigh(int64_t t, int64_t heads, int64_t d, float factor, const float *q, const float *keys, int64_t ld, float *weights,
                        int64_t ld_weights) {
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t j = 0; j < t; ++j) weights[h * ld_weights + j] = dot(d, q + h * d, keys + j * ld + h * d);
    softmax_row(t, t, factor * float(LOG2E), weights + h * ld_weights);
  }
}

} // namespace

SWEEP_CLONES void attend_row(int64_t t, int64_t heads, int64_t d, float factor, const float *q, const float *keys, const float *values,
                             int64_t ld, float *weights, int64_t ld_weights, float *o) {
  weigh(t, heads, d, factor, q, keys, ld, weights, ld_weights);
  for (int64_t h = 0; h < heads; ++h, o += d) {
    for (int64_t i = 0; i < d; ++i) o[i] = 0.0f;
    for (int64_t j = 0; j < t; ++j) add_scaled(d, weights[h * ld_weights + j], values + j * ld + h * d, o);
  }
}

SWEEP_CLONES void attend_row_backward(int64_t t, int64_t heads, int64_t d, float factor, const float *q, const float *keys,
                                      const float *values, int64_t ld, const float *down, float *weights, float *slopes,
                                      int64_t ld_weights, float *dq, float *d_keys, float *d_values) {
  weigh(t, heads, d, factor, q, keys, ld, weights, ld_weights);
  for (int64_t h = 0; h < heads; ++h) {
    const int64_t at = h * d;
    const float *const w = weights + h * ld_weights;
    float *const s = slopes + h * ld_weights;
    float along = 0;
    for (int64_t j = 0; j < t; ++j) {
      s[j] = dot(d, down + at, values + j * ld + at);
      along += w[j] * s[j];
    }
    for (int64_t i = at; i < at + d; ++i) dq[i] = 0.0f;
    for (int64_t j = 0; j < t; ++j) {
      const float slope = factor * w[j] * (s[j] - along), weight = w[j];
      add_scaled(d, slope, keys + j * ld + at, dq + at);
      each(d, [&](int64_t i, int64_t count) SWEEP_BODY {
        store(d_keys + j * ld + at + i, slope * load(q + at + i, count), count);
        store(d_values + j * ld + at + i, weight * load(down + at + i, count), count);
      });
    }
  }
}

SWEEP_CLONES void softmax(int64_t t, bool causal, float factor, float *s, int64_t ld) {
  for (int64_t i = 0; i < t; ++i) softmax_row(causal ? i + 1 : t, t, factor * float(LOG2E), s + i * ld);
}

SWEEP_CLONES void softmax_backward(int64_t t, bool causal, float factor, float *s, float *d, int64_t ld) {
  const floats never = floats{} - INFINITY;
  const float scale = factor * float(LOG2E);
  for (int64_t j = 0; j < t; j += LANES) {
    const words column = lanes_from(j);
    const int64_t end = causal ? std::min(t, j + LANES) : t; /* below it no column of these sees a row */
    floats top = never;
    for (int64_t i = 0; i < end; ++i) {
      const floats v = load(s + i * ld + j);
      top = most(top, causal ? where(column < uint32_t(i), never, v) : v);
    }
    floats sums = {}, along = {};
    for (int64_t i = 0; i < end; ++i) {
      floats e = exp2_of((load(s + i * ld + j) - top) * scale);
      if (causal) e = where(column < uint32_t(i), floats{}, e);
      sums += e;
      along += e * load(d + i * ld + j);
      store(s + i * ld + j, e);
    }
    const floats share = 1.0f / sums;
    along *= share;
    for (int64_t i = 0; i < end; ++i) {
      const floats p = load(s + i * ld + j) * share;
      store(s + i * ld + j, p);
      store(d + i * ld + j, factor * p * (load(d + i * ld + j) - along));
    }
    for (int64_t i = end; i < t; ++i) store(s + i * ld + j, floats{}), store(d + i * ld + j, floats{});
  }
}

SWEEP_CLONES void widen_row(int64_t n, const uint16_t *from, float *to) {
  each(n, [&](int64_t j, int64_t count) SWEEP_BODY { store(to + j, widened(bits_at(from + j, count)), count); });
}

} // namespace sweep
