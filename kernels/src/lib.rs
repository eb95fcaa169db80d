//! Contrastive losses: the plain-Rust reference that every kernel is held against.

pub mod reference;
