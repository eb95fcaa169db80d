#include "memory.h"
#include <c10/core/CachingDeviceAllocator.h>

namespace sweep {

int64_t peak_bytes(const at::Device &device) {
  if (device.is_cpu()) return -1;
  const auto stats = c10::getDeviceAllocator(device.type())->getDeviceStats(device.index());
  return stats.allocated_bytes[size_t(c10::CachingAllocator::StatType::AGGREGATE)].peak;
}

void reset_peak_bytes(const at::Device &device) {
  if (!device.is_cpu()) c10::getDeviceAllocator(device.type())->resetPeakStats(device.index());
}

/* With a device it would warn at each call. */
at::Tensor pinned(const at::Tensor &x) { return x.pin_memory(); }

} // namespace sweep
