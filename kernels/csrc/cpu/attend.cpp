#include "attend.h"
#include "products.h"
#include "rows.h"
#include "sweep.h"
#include <cmath>

namespace sweep {
namespace {

int64_t padded(int64_t n) { return blocks(n, LANES) * LANES; }

} // namespace

Attention::Attention(int64_t longest, int64_t d, bool causal_)
    : head(d), causal(causal_), strips(use_avx2_products()), factor(float(1.0 / std::sqrt(double(d)))) {
  const int64_t square = longest * padded(longest);
  factors = room<float>(std::max(d * padded(longest), longest * padded(d)));
  weights = room<float>(square), slopes = room<float>(square), turned = room<float>(square);
}

Attention::Factor Attention::rows(int64_t n, int64_t m, const float *b, int64_t ld) {
  if (!strips) return {b, ld};
  pack_strips(n, m, b, ld, factors.get());
  return {factors.get(), STRIP * n};
}

Attention::Factor Attention::columns(int64_t n, int64_t m, const float *transposed, int64_t ld) {
  float *const to = factors.get();
  if (!strips) {
    transpose(m, n, transposed, ld, to, padded(m));
    return {to, padded(m)};
  }
  for (int64_t j = 0; j < m; j += STRIP) {
    const int64_t wide = std::min(STRIP, m - j);
    float *const strip = to + j * n;
    if (wide < STRIP) std::fill_n(strip, STRIP * n, 0.0f);
    transpose(wide, n, transposed + j * ld, ld, strip, STRIP);
  }
  return {to, STRIP * n};
}

void Attention::multiply(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, Factor b, float *c, int64_t ldc) const {
  if (strips) return avx2_product(m, n, k, a, lda, b.values, b.ld, c, ldc, false);
  brgemm(m, n, k, lda, b.ld, ldc, false, a, b.values, c, false);
}

void Attention::forward(int64_t t, const float *q, const float *k, const float *v, int64_t ld, float *o, int64_t ld_out) {
  const int64_t ldw = padded(t);
  multiply(t, t, head, q, ld, columns(head, t, k, ld), weights.get(), ldw);
  softmax(t, causal, factor, weights.get(), ldw);
  multiply(t, head, t, weights.get(), ldw, rows(t, head, v, ld), o, ld_out);
}

/* Weights and slopes are those of keys by queries, P^T and dS^T: so the products for dv and dk take them as they are. */
void Attention::backward(int64_t t, const float *q, const float *k, const float *v, int64_t ld, const float *down, int64_t ld_out,
                         float *dq, float *dk, float *dv) {
  const int64_t ldw = padded(t);
  multiply(t, t, head, k, ld, columns(head, t, q, ld), weights.get(), ldw);
  multiply(t, t, head, v, ld, columns(head, t, down, ld_out), slopes.get(), ldw);
  softmax_backward(t, causal, factor, weights.get(), slopes.get(), ldw);
  multiply(t, head, t, weights.get(), ldw, rows(t, head, down, ld_out), dv, ld);
  multiply(t, head, t, slopes.get(), ldw, rows(t, head, q, ld), dk, ld);
  transpose(t, t, slopes.get(), ldw, turned.get(), ldw);
  multiply(t, head, t, turned.get(), ldw, rows(t, head, k, ld), dq, ld);
}

} // namespace sweep
