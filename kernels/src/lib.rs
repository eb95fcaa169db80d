//! Contrastive losses of image-text training: exact values and gradients without ever storing B x B beyond a budget.
//!
//! [`reference`](mod@reference) is the formula in plain Rust and float64, the truth that everything is held against.
//! [`comm`](mod@comm), a crate of its own, lets ranks share a batch. With the feature `torch`, `clip_loss` and
//! `siglip_loss` take tensors; `csrc/` does the work, and serves Python alike (`python/`). What it computes, how, and
//! how fast: `README.md`.

pub mod reference;

pub use comm;

#[cfg(feature = "torch")]
mod adamw;
#[cfg(feature = "torch")]
mod backward;
#[cfg(feature = "torch")]
mod branch;
#[cfg(feature = "torch")]
mod ffi;
#[cfg(feature = "torch")]
mod group;
#[cfg(feature = "torch")]
mod linear;
#[cfg(feature = "torch")]
mod loss;
#[cfg(feature = "torch")]
mod memory;
#[cfg(feature = "torch")]
mod recompute;
#[cfg(feature = "torch")]
mod stream;

#[cfg(feature = "torch")]
pub use adamw::{AdamWNumbers, adamw};
#[cfg(feature = "torch")]
pub use backward::backward;
#[cfg(feature = "torch")]
pub use branch::{Activation, Attending, BranchLayers, attention_branch, branch_available, mlp_branch};
#[cfg(feature = "torch")]
pub use group::{buffer, buffer_mut};
#[cfg(feature = "torch")]
pub use linear::linear;
#[cfg(feature = "torch")]
pub use loss::{
    Compute, Gradients, LossError, Options, Wanted, clip_gradients, clip_loss, siglip_gradients, siglip_loss,
};
#[cfg(feature = "torch")]
pub use memory::{peak_device_bytes, pinned, reset_peak_device_bytes};
#[cfg(feature = "torch")]
pub use recompute::recompute;
#[cfg(feature = "torch")]
pub use stream::{Mark, record_use, use_side_stream};
