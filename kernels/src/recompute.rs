//! Activation checkpointing: a part of a forward pass that is computed again on the way back.

#![expect(unsafe_code, reason = "a call into csrc/, and calls from there")]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{ptr, slice};

use tch::Tensor;

use crate::ffi::{self, TensorPointer, borrowed, given_away, owned, pointer};

/// What autograd keeps until the way back.
type Run = Box<dyn Fn(&[Tensor]) -> Tensor + Send>;

/// run(inputs) with autograd, which keeps `inputs` alone: on the way back `run` computes the same once more (Chen et
/// al. 2016, "Training deep nets with sublinear memory cost"). Gradients are those of a plain call, to the bit.
///
/// `run` gives the same whenever it is called, draws no random numbers, and uses no tensor beside its inputs that wants
/// a gradient: it would have none. On a GPU another thread calls it on the way back. There is no second derivative.
///
/// # Panics
/// If `run` does, or libtorch fails (memory). If it does on the way back, that fails.
pub fn recompute(inputs: &[&Tensor], run: impl Fn(&[Tensor]) -> Tensor + Send + 'static) -> Tensor {
    let pointers: Vec<*const c_void> = inputs.iter().map(|input| pointer(input)).collect();
    let count = i64::try_from(pointers.len()).expect("a list in memory");
    let run: Run = Box::new(run);
    let this = Box::into_raw(Box::new(run)).cast();
    let mut out: TensorPointer = ptr::null_mut();
    // SAFETY: pointers to tensors that outlive the call, and a closure that is `dropped` once; on success `out` is a
    // tensor of ours.
    let code = unsafe { ffi::sweep_recompute(pointers.as_ptr(), count, called, dropped, this, &raw mut out) };
    match owned(out) {
        Some(y) if code == 0 => y,
        _ => panic!("{}", ffi::last_error()),
    }
}

/// No panic may cross into C++: its words are on standard error, and null says that there was one.
extern "C" fn called(this: *mut c_void, inputs: *const *const c_void, count: i64) -> TensorPointer {
    // SAFETY: the closure of `recompute`, whose calls come one at a time, and as many pointers to tensors as it says.
    let (run, inputs) = unsafe {
        let count = usize::try_from(count).unwrap_or(0);
        (&*this.cast::<Run>(), slice::from_raw_parts(inputs, count))
    };
    let own = |input: &*const c_void| borrowed(*input).shallow_clone();
    let y = catch_unwind(AssertUnwindSafe(|| run(&inputs.iter().map(own).collect::<Vec<Tensor>>())));
    y.map_or(ptr::null_mut(), |y| given_away(&y))
}

extern "C" fn dropped(this: *mut c_void) {
    // SAFETY: what `recompute` made, dropped once.
    drop(unsafe { Box::from_raw(this.cast::<Run>()) });
}
