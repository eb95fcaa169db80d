/* Products of the layers of a tower on a CPU: with AVX-512 by oneDNN's batch-reduce kernels, which do up to twice the work that ATen's
 * `linear` gets from MKL on processors that are not Intel's; with AVX2 alone by those of avx2.h.
 *
 * X (m, k), W (n, k), Y (m, n), row-major and without gaps. Sums are float32 and their order does not depend on the number
 * of threads. `half`: factors are rounded to bfloat16 on their way into the cache; nothing is stored in it.
 */
#pragma once
#include <cstdint>

namespace sweep {

/* Whether this processor has them. */
bool layers_available();

/* Y = X W^T + b; b (n) may be null. */
void layer_forward(int64_t m, int64_t n, int64_t k, const float *x, const float *w, const float *b, float *y, bool half);

/* dX = dY W. */
void layer_inputs(int64_t m, int64_t n, int64_t k, const float *dy, const float *w, float *dx, bool half);

/* dW = dY^T X, and db, the sum of dY's rows, if it is not null. */
void layer_weights(int64_t m, int64_t n, int64_t k, const float *dy, const float *x, float *dw, float *db, bool half);

} // namespace sweep
