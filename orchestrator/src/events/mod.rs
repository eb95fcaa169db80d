//! What counts of what a runner says: one set of rules for workers, launchers, imports and `sweep runner check`. Pure.
//!
//! [`read_line`] says what a line is; [`Attempt`] whether it can stand after those before it; [`complete`] whether a
//! job that says that it has finished has measured what was planned. `runners/protocol/README.md` says the same to
//! those who write runners.

mod bounds;
pub mod complete;
mod fields;
mod json;
mod line;
mod possible;
mod rules;
#[cfg(test)]
mod tests;

pub use bounds::{problem, short_text};
pub use line::{Reading, quote, read_line};
pub use possible::Range;
pub use rules::{Attempt, Taken, diverged, kind_of};
