/* Memory of a device as libtorch's allocator counts it, and memory of this machine that a device reads by itself. */
#pragma once
#include <ATen/core/Tensor.h>

namespace sweep {

/* The most bytes that tensors had at once on a device since the process began, or since the last reset; -1 on the CPU. */
int64_t peak_bytes(const at::Device &device);
void reset_peak_bytes(const at::Device &device);

/* The same numbers in main memory that a GPU reads by itself. */
at::Tensor pinned(const at::Tensor &x);

} // namespace sweep
