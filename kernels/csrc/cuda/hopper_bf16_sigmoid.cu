/* Sigmoid loss and gradient on Hopper, bfloat16 features. */
#include "hopper.cuh"

int sweep::hopper_bf16_sigmoid(const HopperCall &call) { return run_sigmoid<cutlass::bfloat16_t, true>(call); }
