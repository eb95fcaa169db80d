//! The losses on tensors, held against the float64 reference on every device of this machine.
#![cfg(feature = "torch")]

mod grid;
mod support;
