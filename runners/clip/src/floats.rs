//! The numbers of a tensor in main memory, as slices.

use tch::{Device, Kind, Tensor};

/// To be read.
///
/// # Panics
/// If they are not contiguous float32 in main memory.
#[expect(unsafe_code, reason = "libtorch gives its memory as a pointer only")]
pub(crate) fn floats(tensor: &Tensor) -> &[f32] {
    check(tensor);
    // SAFETY: checked above, and alive as long as the tensor is borrowed. Nothing writes to gradients and buffers of
    // ours while this borrow lasts.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) }
}

/// To be changed.
///
/// # Panics
/// As [`floats`].
#[expect(unsafe_code, reason = "libtorch gives its memory as a pointer only")]
pub(crate) fn floats_mut(tensor: &mut Tensor) -> &mut [f32] {
    check(tensor);
    // SAFETY: as in `floats`. Others share the memory, and nobody looks at it meanwhile: leaves, the parameters'
    // buffer, between backward and forward; a batch's inputs and what a graph kept of them, before `Batches::reuse`.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

fn check(tensor: &Tensor) {
    assert!(tensor.is_contiguous() && tensor.kind() == Kind::Float && tensor.device() == Device::Cpu);
}
