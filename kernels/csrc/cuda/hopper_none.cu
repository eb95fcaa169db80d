/* Stands in for the Hopper kernels in a library built without CUTLASS: there are none. */
#include "../panel.h"

extern "C" __attribute__((visibility("default"))) const struct sweep_fused_kernels *sweep_hopper_kernels(void) {
  return nullptr;
}
