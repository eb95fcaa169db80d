/* Which kernels serve a device. The CUDA ones live in a library of their own, libsweep_kernels_cuda.so, which hands its
 * tables over when it is loaded: so that one binary runs with and without CUDA. */
#include "engine.h"
#include <atomic>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace sweep {
namespace {
std::atomic<const sweep_panel_kernels *> cuda_panel{nullptr};
std::atomic<const sweep_fused_kernels *> cuda_fused{nullptr};
} // namespace

const sweep_panel_kernels &kernels_of(const at::Device &device) {
  if (device.is_cpu()) return *sweep_cpu_kernels();
  const sweep_panel_kernels *table = device.is_cuda() ? cuda_panel.load() : nullptr;
  TORCH_CHECK(table, "the contrastive kernels for ", device, " are not loaded: build them (make -C kernels/csrc cuda) and "
              "load libsweep_kernels_cuda.so, or move the features to the CPU");
  return *table;
}

const sweep_fused_kernels *fused_kernels() { return cuda_fused.load(); }

void *stream_of(const at::Device &device) {
  if (!device.is_cuda()) return nullptr;
  const c10::impl::VirtualGuardImpl guard(at::kCUDA); /* CUDA's own header would want its library at link time */
  return guard.getStreamNativeHandle(guard.getStream(device));
}

void check_code(int code, const char *what) {
  TORCH_CHECK(code == 0, "contrastive kernel `", what, "` failed with the device's error ", code);
}

} // namespace sweep

extern "C" __attribute__((visibility("default"))) void sweep_register_cuda(const sweep_panel_kernels *panel,
                                                                           const sweep_fused_kernels *fused) {
  sweep::cuda_panel.store(panel);
  sweep::cuda_fused.store(fused);
}
