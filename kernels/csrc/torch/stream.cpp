#include "stream.h"
#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace sweep {
namespace {
/* CUDA's own header would want its library at link time. */
c10::impl::VirtualGuardImpl guard() { return c10::impl::VirtualGuardImpl(at::kCUDA); }
} // namespace

void *stream_of(const at::Device &device) {
  return device.is_cuda() ? guard().getStreamNativeHandle(guard().getStream(device)) : nullptr;
}

void use_side_stream(const at::Device &device) {
  if (device.is_cuda()) guard().exchangeStream(guard().getStreamFromGlobalPool(device));
}

std::unique_ptr<c10::Event> mark_of(const at::Device &device) {
  if (!device.is_cuda()) return nullptr;
  auto mark = std::make_unique<c10::Event>(at::kCUDA);
  mark->record(guard().getStream(device));
  return mark;
}

void wait_for(const c10::Event &mark) { mark.block(guard().getStream(mark.device())); }

void record_use(const at::Tensor &x) {
  if (x.is_cuda()) x.record_stream(guard().getStream(x.device()));
}

} // namespace sweep
