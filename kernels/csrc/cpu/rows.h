/* What a block of a transformer does between its products, row by row in vectors of sixteen: LayerNorm, activations, softmax, each with
 * its derivative.
 */
#pragma once
#include <cstdint>

namespace sweep {

/* u = (x - mean x) / sqrt(var x + eps) gamma + beta, all of n numbers; stats: mean x, 1 / sqrt(var x + eps). */
void norm_row(int64_t n, const float *x, const float *gamma, const float *beta, float eps, float *stats, float *u);

/* u again, from stats. */
void norm_row_again(int64_t n, const float *x, const float *gamma, const float *beta, const float *stats, float *u);

/* dx = dy + what du is worth in x. To d_gamma and d_beta theirs are added. */
void norm_row_backward(int64_t n, const float *x, const float *gamma, const float *stats, const float *du, const float *dy, float *dx,
                       float *d_gamma, float *d_beta);

/* sums += x. */
void add_row(int64_t n, const float *x, float *sums);

/* x = a + b: what products are added to. */
void sum_of_rows(int64_t n, const float *a, const float *b, float *x);

enum class Activation { gelu, gelu_tanh, quick_gelu };

/* z += bias; c = act(z). */
void activate(Activation activation, int64_t n, const float *bias, float *z, float *c);

/* c = act(z), d = act'(z) d; sums += d. */
void activate_backward(Activation activation, int64_t n, const float *z, float *c, float *d, float *sums);

/* The same with bfloat16 kept and given: of z + bias, `kept` (or null), and act of that. */
void activate_half(Activation activation, int64_t n, const float *bias, const float *z, uint16_t *kept, uint16_t *c);

/* Of two rows (the second null, or both there): z and dL/dc to act(z) and dL/dz in pairs (first[j], second[j]), and dL/dz by rows. */
void activate_backward_half(Activation activation, int64_t n, const uint16_t *const z[2], const float *const d[2], uint16_t *const dz[2],
                            float *c_pairs, float *dz_pairs, float *sums);

/* z = z + bias as bfloat16 has it, and those bits at `kept`, if it is not null. */
void round_biased_row(int64_t n, const float *bias, float *z, uint16_t *kept);

/* Two rows (the second null, or both there) to pairs (first[j], second[j]) and to rows of bfloat16; sums += both. */
void half_rows(int64_t n, const float *const d[2], uint16_t *const to[2], float *pairs, float *sums);

/* Two rows of bfloat16 to pairs; `second` may be null, for zeros. */
void pair_rows(int64_t n, const uint16_t *first, const uint16_t *second, float *pairs);

/* Each of t rows of s, `ld` apart, to softmax(factor s); causal: in row i what stands behind i is 0. Rows have room for whole vectors. */
void softmax(int64_t t, bool causal, float factor, float *s, int64_t ld);

/* The same for columns, and back: p (t, t) = softmax over rows of each column of factor s, at s; d = factor p (d - sum over rows of
 * p d), from dL/dp at d. causal: in column i what stands below row i counts as 0. */
void softmax_backward(int64_t t, bool causal, float factor, float *s, float *d, int64_t ld);

/* Attention of one query q (heads d) over t tokens, whose keys and values (heads d) are rows `ld` apart: o (heads d). `weights` has room
 * for `heads` rows of t numbers, `ld_weights` apart, a multiple of sixteen. */
void attend_row(int64_t t, int64_t heads, int64_t d, float factor, const float *q, const float *keys, const float *values, int64_t ld,
                float *weights, int64_t ld_weights, float *o);

/* dq, and rows of keys' and values' derivatives, from dL/do; `slopes` as `weights`. */
void attend_row_backward(int64_t t, int64_t heads, int64_t d, float factor, const float *q, const float *keys, const float *values,
                         int64_t ld, const float *down, float *weights, float *slopes, int64_t ld_weights, float *dq, float *d_keys,
                         float *d_values);

/* bfloat16 numbers as float32. */
void widen_row(int64_t n, const uint16_t *from, float *to);

} // namespace sweep
