/* InfoNCE's gradient on Hopper, float16 features. */
#include "hopper.cuh"

int sweep::hopper_fp16_gradient(const HopperCall &call) { return run_gradient<cutlass::half_t>(call); }
