/* Attention of one head within one sequence, float32 on a CPU: o = softmax(q k^T / sqrt d) v, and its derivative.
 *
 * t tokens of d numbers, rows `ld` (of q, k, v and what is theirs) or `ld_out` (of o) apart. Sequences are short enough for t x t
 * numbers to stay in the cache; all rows of weights are there at once.
 */
#pragma once
#include <cstdint>
#include <memory>

namespace sweep {

class Attention {
public:
  Attention(int64_t longest, int64_t d, bool causal);

  void forward(int64_t t, const float *q, const float *k, const float *v, int64_t ld, float *o, int64_t ld_out);

  /* dq, dk, dv from dL/do at `down`. */
  void backward(int64_t t, const float *q, const float *k, const float *v, int64_t ld, const float *down, int64_t ld_out, float *dq,
                float *dk, float *dv);

private:
  struct Factor {
    const float *values;
    int64_t ld; /* of rows, or from strip to strip */
  };
  /* B (n, m) of a product, from its rows, and from those of its transpose (m, n). */
  Factor rows(int64_t n, int64_t m, const float *b, int64_t ld);
  Factor columns(int64_t n, int64_t m, const float *transposed, int64_t ld);
  /* C (m, n) = A (m, k) B. */
  void multiply(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, Factor b, float *c, int64_t ldc) const;

  int64_t head; /* d */
  bool causal, strips;
  float factor; /* 1 / sqrt d */
  std::unique_ptr<float[]> factors, weights, slopes, turned;
};

} // namespace sweep
