/* Sums of exponentials on Hopper, bfloat16 features. */
#include "hopper.cuh"

int sweep::hopper_bf16_sums(const HopperCall &call) { return run_sums<cutlass::bfloat16_t>(call); }
