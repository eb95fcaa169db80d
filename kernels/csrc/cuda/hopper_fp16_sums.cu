/* Sums of exponentials on Hopper, float16 features. */
#include "hopper.cuh"

int sweep::hopper_fp16_sums(const HopperCall &call) { return run_sums<cutlass::half_t>(call); }
