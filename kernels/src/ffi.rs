//! `csrc/torch/binding.h`, word for word. Nothing else in this crate names C.

#![expect(unsafe_code, reason = "declarations of C, and calls of it")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;

/// An `at::Tensor *`, which is what `tch::Tensor` points to.
pub(crate) type TensorPointer = *mut c_void;

/// `sweep_inputs`.
#[repr(C)]
pub(crate) struct Inputs {
    pub(crate) images: *const c_void,
    pub(crate) texts: *const c_void,
    pub(crate) scale: *const c_void,
    pub(crate) bias: *const c_void,
    pub(crate) ids: *const c_void,
    pub(crate) label_smoothing: f64,
    pub(crate) compute: i32,
    pub(crate) check_finite: i32,
    pub(crate) budget_bytes: i64,
}

/// `sweep_take`.
pub(crate) type Take = extern "C" fn(*mut c_void, i64, *const c_void) -> c_int;

/// `sweep_run`.
pub(crate) type Run = extern "C" fn(*mut c_void, *const *const c_void, i64) -> TensorPointer;

type Move = extern "C" fn(*mut c_void, *const c_void, *mut c_void, *const i64) -> c_int;
type Reduce = extern "C" fn(*mut c_void, *mut c_void, i32) -> c_int;

/// `sweep_group`.
#[repr(C)]
pub(crate) struct Group {
    pub(crate) rank: i64,
    pub(crate) world: i64,
    pub(crate) this: *mut c_void,
    pub(crate) gather_rows: Move,
    pub(crate) scatter_rows: Move,
    pub(crate) all_reduce: Reduce,
}

unsafe extern "C" {
    fn sweep_last_error() -> *const c_char;
    fn sweep_stream(tensor: *const c_void) -> *mut c_void;
    pub(crate) fn sweep_loss(inputs: *const Inputs, out: *mut TensorPointer) -> c_int;
    pub(crate) fn sweep_gradients(
        inputs: *const Inputs,
        group: *const Group,
        wanted: i32,
        out: *mut TensorPointer,
    ) -> c_int;
    pub(crate) fn sweep_backward(
        loss: *const c_void,
        leaves: *const *const c_void,
        count: i64,
        take: Take,
        this: *mut c_void,
    ) -> c_int;
    pub(crate) fn sweep_recompute(
        inputs: *const *const c_void,
        count: i64,
        run: Run,
        drop: extern "C" fn(*mut c_void),
        this: *mut c_void,
        out: *mut TensorPointer,
    ) -> c_int;
    pub(crate) fn sweep_adamw(
        weights: *const *const c_void,
        gradients: *const *const c_void,
        first: *const *const c_void,
        second: *const *const c_void,
        count: i64,
        numbers: *const [f64; 6],
        clip: *const c_void,
    ) -> c_int;
    pub(crate) fn sweep_peak_bytes(of: *const c_void, out: *mut i64) -> c_int;
    pub(crate) fn sweep_reset_peak_bytes(of: *const c_void) -> c_int;
    pub(crate) fn sweep_pinned(x: *const c_void, out: *mut TensorPointer) -> c_int;
    pub(crate) fn sweep_use_side_stream(of: *const c_void) -> c_int;
    pub(crate) fn sweep_mark(of: *const c_void, out: *mut *mut c_void) -> c_int;
    pub(crate) fn sweep_wait(mark: *const c_void) -> c_int;
    pub(crate) fn sweep_record_use(x: *const c_void) -> c_int;
    pub(crate) fn sweep_free_mark(mark: *mut c_void);
    pub(crate) fn sweep_linear(
        x: *const c_void,
        weight: *const c_void,
        bias: *const c_void,
        half: i32,
        out: *mut TensorPointer,
    ) -> c_int;
    pub(crate) fn sweep_branch_available(x: *const c_void) -> c_int;
    pub(crate) fn sweep_attention_branch(
        x: *const c_void,
        layers: *const [*const c_void; 6],
        eps: f64,
        sequences: *const [i64; 2],
        groups: i64,
        pooled: *const c_void,
        heads: i64,
        causal: i32,
        half: i32,
        out: *mut TensorPointer,
    ) -> c_int;
    pub(crate) fn sweep_mlp_branch(
        x: *const c_void,
        layers: *const [*const c_void; 6],
        eps: f64,
        activation: i32,
        half: i32,
        out: *mut TensorPointer,
    ) -> c_int;
}

/// Words of the error that this thread's last call ended with.
pub(crate) fn last_error() -> String {
    // SAFETY: the library returns a string that ends with 0 and lives until this thread's next call.
    unsafe { CStr::from_ptr(sweep_last_error()) }.to_string_lossy().into_owned()
}

/// What tch's tensor points to.
pub(crate) fn pointer(tensor: &tch::Tensor) -> *const c_void {
    tensor.as_ptr().cast()
}

/// A tensor that csrc/ gave away, if it did.
pub(crate) fn owned(pointer: TensorPointer) -> Option<tch::Tensor> {
    // SAFETY: csrc/ makes each with `new at::Tensor` and keeps no pointer to it.
    (!pointer.is_null()).then(|| unsafe { tch::Tensor::from_ptr(pointer.cast()) })
}

/// A tensor of C++ for the length of a call.
pub(crate) fn borrowed(pointer: *const c_void) -> ManuallyDrop<tch::Tensor> {
    // SAFETY: a live at::Tensor that csrc/ lends; it is not dropped here.
    ManuallyDrop::new(unsafe { tch::Tensor::from_ptr(pointer.cast_mut().cast()) })
}

/// Gives a tensor to csrc/, which deletes it.
pub(crate) fn given_away(tensor: &tch::Tensor) -> TensorPointer {
    // SAFETY: a handle of its own, which no Rust value drops.
    ManuallyDrop::new(tensor.shallow_clone()).as_ptr().cast_mut().cast()
}

/// The current stream of a tensor's device (a `cudaStream_t`); null on the CPU.
pub(crate) fn stream(tensor: *const c_void) -> *mut c_void {
    // SAFETY: callers pass a live at::Tensor.
    unsafe { sweep_stream(tensor) }
}
