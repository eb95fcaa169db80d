/* float16 for the emulation. */
#ifndef SWEEP_EMULATE_CUDA_FP16_H
#define SWEEP_EMULATE_CUDA_FP16_H
using __half = _Float16;
inline __half __float2half_rn(float x) { return static_cast<__half>(x); }
#endif
