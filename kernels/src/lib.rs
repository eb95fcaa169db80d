//! Contrastive losses: the plain-Rust reference that every kernel is held against, and how ranks exchange what a loss
//! over a batch shared among them needs.

pub mod comm;
pub mod reference;
