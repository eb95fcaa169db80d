/* Sigmoid loss and gradient on Hopper, float16 features. */
#include "hopper.cuh"

int sweep::hopper_fp16_sigmoid(const HopperCall &call) { return run_sigmoid<cutlass::half_t, true>(call); }
