//! Order of work on a GPU's streams; on a CPU there are none, and nothing here does anything.

#![expect(unsafe_code, reason = "calls into csrc/")]

use std::ffi::c_void;
use std::ptr;

use tch::Tensor;

use crate::ffi::{self, pointer};

/// What the current stream of a device was given until a moment.
#[derive(Debug)]
pub struct Mark(*mut c_void);

// SAFETY: a `c10::Event`, which any thread may wait for.
unsafe impl Send for Mark {}

impl Mark {
    /// Of the device of a tensor, and this moment.
    ///
    /// # Panics
    /// If the device fails.
    pub fn now(of: &Tensor) -> Mark {
        let mut mark = ptr::null_mut();
        // SAFETY: a live tensor; on success `mark` is ours.
        let code = unsafe { ffi::sweep_mark(pointer(of), &raw mut mark) };
        check(code);
        Mark(mark)
    }

    /// Has what the calling thread's current stream is given from now on begin after it.
    ///
    /// # Panics
    /// If the device fails.
    pub fn wait(&self) {
        if !self.0.is_null() {
            // SAFETY: a mark of ours.
            check(unsafe { ffi::sweep_wait(self.0) });
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // SAFETY: ours, or null, and used no more.
        unsafe { ffi::sweep_free_mark(self.0) };
    }
}

/// Makes another stream of a tensor's device the calling thread's current one.
///
/// # Panics
/// If the device fails.
pub fn use_side_stream(of: &Tensor) {
    // SAFETY: a live tensor.
    check(unsafe { ffi::sweep_use_side_stream(pointer(of)) });
}

/// Says that the calling thread's current stream uses a tensor that was made on another: its memory is given out again
/// when that is done, and not before.
///
/// # Panics
/// If the device fails.
pub fn record_use(of: &Tensor) {
    // SAFETY: a live tensor.
    check(unsafe { ffi::sweep_record_use(pointer(of)) });
}

fn check(code: i32) {
    assert!(code == 0, "{}", ffi::last_error());
}
