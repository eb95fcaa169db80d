/* InfoNCE's gradient on Hopper, bfloat16 features. */
#include "hopper.cuh"

int sweep::hopper_bf16_gradient(const HopperCall &call) { return run_gradient<cutlass::bfloat16_t>(call); }
