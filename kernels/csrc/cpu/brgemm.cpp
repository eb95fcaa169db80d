#include "brgemm.h"
#include "sweep.h"

namespace sweep {
namespace {

SWEEP_INLINE floats pair(floats low, floats high) { return (floats)(bfloat16_of(low) | bfloat16_of(high) << 16); }

} // namespace

SWEEP_CLONES void bfloat16_row(const float *from, int64_t n, uint16_t *to) {
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES) {
    const halves bits = halves_of(bfloat16_of(load(from + j)));
    std::memcpy(to + j, &bits, sizeof bits);
  }
  if (j < n) {
    const halves bits = halves_of(bfloat16_of(load(from + j, n - j)));
    std::memcpy(to + j, &bits, size_t(n - j) * 2);
  }
}

SWEEP_CLONES void bfloat16_pairs(const float *first, const float *second, int64_t n, float *to) {
  int64_t j = 0;
  if (second)
    for (; j + LANES <= n; j += LANES) store(to + j, pair(load(first + j), load(second + j)));
  else
    for (; j + LANES <= n; j += LANES) store(to + j, pair(load(first + j), floats{}));
  if (j < n) store(to + j, pair(load(first + j, n - j), second ? load(second + j, n - j) : floats{}), n - j);
}

} // namespace sweep
