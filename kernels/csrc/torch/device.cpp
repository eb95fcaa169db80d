/* Which kernels serve a device. The CUDA ones live in a library of their own, libsweep_kernels_cuda.so, which hands its
 * tables over when it is loaded, at the first CUDA tensor: so one binary runs with and without CUDA. */
#include "engine.h"
#include <atomic>
#include <dlfcn.h>
#include <string>

extern "C" __attribute__((visibility("default"))) void sweep_register_cuda(const sweep_panel_kernels *,
                                                                           const sweep_fused_kernels *);

namespace sweep {
namespace {
std::atomic<const sweep_panel_kernels *> cuda_panel{nullptr};
std::atomic<const sweep_fused_kernels *> cuda_fused{nullptr};

/* Loads the CUDA library that lies beside this one; words if it can't. */
std::string load_cuda() {
  Dl_info self;
  if (!dladdr(reinterpret_cast<void *>(&sweep_register_cuda), &self)) return "this library can't find itself";
  std::string path = self.dli_fname;
  dlopen(path.c_str(), RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL); /* Python loads privately; the other library looks for us */
  path.replace(path.find_last_of('/') + 1, std::string::npos, "libsweep_kernels_cuda.so");
  return dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) ? "" : dlerror();
}
} // namespace

const sweep_panel_kernels &kernels_of(const at::Device &device) {
  if (device.is_cpu()) return *sweep_cpu_kernels();
  TORCH_CHECK(device.is_cuda(), "there are no contrastive kernels for ", device, "; move the features to the CPU or CUDA");
  static const std::string failure = load_cuda();
  const sweep_panel_kernels *table = cuda_panel.load();
  TORCH_CHECK(table, "the contrastive kernels for ", device, " are not there: ", failure, "; build them with `make -C "
              "kernels/csrc cuda`, keep libsweep_kernels_cuda.so beside libsweep_kernels.so, or move the features to the CPU");
  return *table;
}

const sweep_fused_kernels *fused_kernels() { return cuda_fused.load(); }

void check_code(int code, const char *what) {
  TORCH_CHECK(code == 0, "contrastive kernel `", what, "` failed with the device's error ", code);
}

} // namespace sweep

extern "C" void sweep_register_cuda(const sweep_panel_kernels *panel, const sweep_fused_kernels *fused) {
  sweep::cuda_panel.store(panel);
  sweep::cuda_fused.store(fused);
}
