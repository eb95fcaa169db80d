//! Layers of a tower on tensors.

use std::ptr;

use tch::Tensor;

use crate::ffi::{self, TensorPointer, owned, pointer};

/// x Wᵀ + b with autograd: x (.., k), W (n, k), b (n), all float32, to float32 (.., n).
///
/// On a CPU with AVX-512 by oneDNN's batch-reduce products, with AVX2 alone by our own; elsewhere it is libtorch's
/// `linear`. `half`: factors of products are rounded to bfloat16, sums are float32 (by libtorch's `linear` they are
/// bfloat16 as well). There is no second derivative.
///
/// # Panics
/// As tch's own functions do: if shapes do not fit, or memory ends.
#[expect(unsafe_code, reason = "a call into csrc/")]
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, half: bool) -> Tensor {
    let mut out: TensorPointer = ptr::null_mut();
    let bias = bias.map_or(ptr::null(), pointer);
    // SAFETY: pointers to tensors that outlive the call; on success `out` is a tensor of ours.
    let code = unsafe { ffi::sweep_linear(pointer(x), pointer(weight), bias, half.into(), &raw mut out) };
    match owned(out) {
        Some(y) if code == 0 => y,
        _ => panic!("{}", ffi::last_error()),
    }
}
