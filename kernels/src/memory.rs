//! Memory of a GPU, as libtorch's allocator counts it, and memory that a GPU reads by itself.

#![expect(unsafe_code, reason = "calls into csrc/")]

use tch::Tensor;

use crate::ffi::{self, pointer};

/// The most bytes that tensors had at once on a tensor's device since the process began, or since
/// [`reset_peak_device_bytes`]; `None` on a CPU.
///
/// # Panics
/// If the device fails.
pub fn peak_device_bytes(of: &Tensor) -> Option<u64> {
    let mut bytes = -1;
    // SAFETY: a live tensor, and a place for a number.
    let code = unsafe { ffi::sweep_peak_bytes(pointer(of), &raw mut bytes) };
    assert!(code == 0, "{}", ffi::last_error());
    u64::try_from(bytes).ok()
}

/// Forgets the largest so far.
///
/// # Panics
/// If the device fails.
pub fn reset_peak_device_bytes(of: &Tensor) {
    // SAFETY: a live tensor.
    let code = unsafe { ffi::sweep_reset_peak_bytes(pointer(of)) };
    assert!(code == 0, "{}", ffi::last_error());
}

/// The same numbers in pinned memory of this machine. It goes back to libtorch, which gives it out again once what a
/// GPU was to copy from it has been copied.
///
/// # Panics
/// If there is no GPU, or no memory.
pub fn pinned(x: &Tensor) -> Tensor {
    let mut out = std::ptr::null_mut();
    // SAFETY: a live tensor, and a place for one.
    let code = unsafe { ffi::sweep_pinned(pointer(x), &raw mut out) };
    assert!(code == 0, "{}", ffi::last_error());
    ffi::owned(out).expect("a tensor")
}
