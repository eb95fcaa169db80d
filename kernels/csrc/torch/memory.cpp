#include "memory.h"
#include <c10/core/CachingDeviceAllocator.h>

namespace sweep {
namespace {
using Kind = c10::CachingAllocator::StatType;
/* A device of index -1 is the current one, and the first where none was made that. */
c10::DeviceIndex index_of(const at::Device &device) { return std::max<c10::DeviceIndex>(device.index(), 0); }
} // namespace

int64_t peak_bytes(const at::Device &device) {
  if (device.is_cpu()) return -1;
  const auto stats = c10::getDeviceAllocator(device.type())->getDeviceStats(index_of(device));
  return stats.allocated_bytes[size_t(Kind::AGGREGATE)].peak;
}

void reset_peak_bytes(const at::Device &device) {
  if (!device.is_cpu()) c10::getDeviceAllocator(device.type())->resetPeakStats(index_of(device));
}

} // namespace sweep
