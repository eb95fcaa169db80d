/* Sigmoid loss alone on Hopper, float16 features. */
#include "hopper.cuh"

int sweep::hopper_fp16_loss(const HopperCall &call) { return run_sigmoid<cutlass::half_t, false>(call); }
