/* On load, hands this library's tables to the main one, which has asked for them by loading this library. */
#include "../panel.h"

/* In libsweep_kernels.so. */
extern "C" void sweep_register_cuda(const struct sweep_panel_kernels *panels, const struct sweep_fused_kernels *fused);

namespace {
struct Registration {
  Registration() { sweep_register_cuda(sweep_cuda_kernels(), sweep_hopper_kernels()); }
} registration;
}  // namespace
