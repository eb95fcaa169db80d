/* float32 products for processors without AVX-512, where oneDNN's batch-reduce kernels reach a third of what the processor
 * can do: C (m, n) (+)= A (m, k) B (k, n), A and C row-major, B in strips of 16 columns, each (k, 16), the last one padded.
 *
 * Six rows by sixteen columns of C are kept in twelve registers; a strip of B stays in the first-level cache.
 */
#pragma once
#include <cstdint>

namespace sweep {

constexpr int64_t STRIP = 16;
inline int64_t whole_strips(int64_t n) { return (n + STRIP - 1) / STRIP * STRIP; }

/* Whether they are used here: by instruction set, never by a measurement, so that a machine always gives the same bits. */
bool use_avx2_products();

/* `stride` floats lie between the beginnings of two strips: 16 k', where B is a slice of k rows of k'. */
void avx2_product(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t stride, float *c,
                  int64_t ldc, bool add);

/* B (k, n), row-major with rows `ldb` apart, as strips at `to`, which has room for k whole_strips(n) numbers. */
void pack_strips(int64_t k, int64_t n, const float *b, int64_t ldb, float *to);

} // namespace sweep
