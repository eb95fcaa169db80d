//! A backward pass that hands over gradients while it goes on.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tch::Tensor;

use crate::LossError;
use crate::ffi::{self, borrowed, pointer};

type Take<'a> = &'a mut (dyn FnMut(usize, &Tensor) + Send);

/// What a call from `csrc/` comes back to.
struct Taker<'a> {
    take: Take<'a>,
    panic: Option<Box<dyn Any + Send>>,
}

/// Walks `loss`, one number, back to `leaves`, which are distinct, and calls `take(i, gradient)` once for each, when
/// nothing will be added to its gradient any more: long before the walk ends, for the layers near the loss. `take` is
/// called by one thread at a time, which on a GPU is not the caller's. A gradient that it keeps no handle of is
/// freed.
///
/// The graph is gone afterwards, and so are hooks of the leaves. A panic of `take` ends the walk and comes out here.
///
/// # Errors
/// If the loss does not depend on one of the leaves, or libtorch fails (memory).
pub fn backward(loss: &Tensor, leaves: &[&Tensor], take: Take<'_>) -> Result<(), LossError> {
    let leaves: Vec<*const c_void> = leaves.iter().map(|leaf| pointer(leaf)).collect();
    let count = i64::try_from(leaves.len()).unwrap_or(i64::MAX);
    let mut taker = Taker { take, panic: None };
    let this = (&raw mut taker).cast();
    // SAFETY: pointers to tensors, and to a taker that nobody else touches, all of which outlive the call.
    #[expect(unsafe_code, reason = "a call into csrc/")]
    let code = unsafe { ffi::sweep_backward(pointer(loss), leaves.as_ptr(), count, taken, this) };
    match taker.panic {
        Some(panic) => resume_unwind(panic),
        None if code != 0 => Err(LossError::Rejected(ffi::last_error())),
        None => Ok(()),
    }
}

/// No panic may cross into C++.
extern "C" fn taken(this: *mut c_void, leaf: i64, gradient: *const c_void) -> c_int {
    // SAFETY: the taker of `backward`, whose calls come one at a time. What it holds is `Send`.
    #[expect(unsafe_code, reason = "the pointer that `backward` handed out")]
    let taker = unsafe { &mut *this.cast::<Taker<'_>>() };
    let gradient = borrowed(gradient);
    let index = usize::try_from(leaf).unwrap_or(usize::MAX);
    match catch_unwind(AssertUnwindSafe(|| (taker.take)(index, &gradient))) {
        Ok(()) => 0,
        Err(panic) => {
            taker.panic = Some(panic);
            1
        }
    }
}
