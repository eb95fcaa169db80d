/* bfloat16 for the emulation: to nearest, ties to even, NaN stays NaN. */
#ifndef SWEEP_EMULATE_CUDA_BF16_H
#define SWEEP_EMULATE_CUDA_BF16_H
#include <stdint.h>
#include <string.h>
struct __nv_bfloat16 {
  uint16_t bits;
};
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if (x != x) return {0x7fff};
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
#endif
