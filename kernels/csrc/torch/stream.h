/* Work beside the current stream of a device. On a CPU, which has no streams, all of it does nothing. */
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <memory>

namespace sweep {

/* The current stream of a device: null on the CPU. */
void *stream_of(const at::Device &device);
/* Makes another stream the calling thread's current one. */
void use_side_stream(const at::Device &device);
/* What the current stream was given until now; null on the CPU. */
std::unique_ptr<c10::Event> mark_of(const at::Device &device);
/* What the current stream is given from now on begins after what was marked. */
void wait_for(const c10::Event &mark);
/* x, which was made on another stream, is used by the current one: its memory is not given out again before that is done. */
void record_use(const at::Tensor &x);

} // namespace sweep
