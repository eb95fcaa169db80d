/* What libtorch's allocator of a device says of it. */
#pragma once
#include <ATen/core/Tensor.h>

namespace sweep {

/* The most bytes that tensors had at once on a device since the process began, or since the last reset; -1 on the CPU. */
int64_t peak_bytes(const at::Device &device);
void reset_peak_bytes(const at::Device &device);

/* The same in main memory that a GPU reads by itself. */
at::Tensor pinned(const at::Tensor &x);

} // namespace sweep
