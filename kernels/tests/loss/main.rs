//! The losses on tensors, held against the float64 reference on every device of this machine.
#![cfg(feature = "torch")]

#[path = "../again/mod.rs"]
mod again;
mod autograd;
mod backward;
mod bits;
mod grid;
mod huge;
mod plain;
mod ranks;
mod refused;
mod support;
mod tensors;
