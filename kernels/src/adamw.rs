//! A step of AdamW over lists of tensors.

use std::ffi::c_void;

use tch::Tensor;

use crate::ffi::{self, pointer};

/// Numbers of a step, as `torch.optim.AdamW` has them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWNumbers {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first and of the second moment.
    pub betas: [f64; 2],
    /// Decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).
    pub weight_decay: f64,
    /// What keeps a division from one by 0.
    pub eps: f64,
    /// Steps taken, this one too.
    pub steps: u64,
}

/// Takes a step in place with [weights, gradients, first moments, second moments], lists of one length whose tensors
/// are contiguous and agree in shape, type and device; none shares memory with another. On a GPU it is a few launches,
/// and nothing waits for them. With `clip` (shape (), float32) gradients are multiplied with it first, in place.
///
/// # Panics
/// If lists or tensors disagree, or the device fails.
pub fn adamw(lists: &[Vec<Tensor>; 4], numbers: AdamWNumbers, clip: Option<&Tensor>) {
    let count = lists[0].len();
    assert!(lists.iter().all(|list| list.len() == count), "a gradient and two moments for each of the weights");
    let [weights, gradients, first, second] =
        lists.each_ref().map(|list| list.iter().map(pointer).collect::<Vec<*const c_void>>());
    let AdamWNumbers { lr, betas: [b1, b2], weight_decay, eps, steps } = numbers;
    let numbers = [lr, b1, b2, weight_decay, eps, steps as f64];
    let clip = clip.map_or(std::ptr::null(), pointer);
    // SAFETY: pointers to tensors and numbers that outlive the call.
    #[expect(unsafe_code, reason = "a call into csrc/")]
    let code = unsafe {
        ffi::sweep_adamw(
            weights.as_ptr(),
            gradients.as_ptr(),
            first.as_ptr(),
            second.as_ptr(),
            i64::try_from(count).unwrap_or(i64::MAX),
            &raw const numbers,
            clip,
        )
    };
    assert!(code == 0, "{}", ffi::last_error());
}
