/* Sigmoid loss alone on Hopper, bfloat16 features. */
#include "hopper.cuh"

int sweep::hopper_bf16_loss(const HopperCall &call) { return run_sigmoid<cutlass::bfloat16_t, false>(call); }
