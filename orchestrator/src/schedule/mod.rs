//! The scheduler: a pure state machine ([`step`](Scheduler::step)) and the one Tokio [`driver`] that performs what it
//! decides.

pub mod driver;

mod policy;
mod scheduler;

pub use policy::{Policy, QUIET_SECS, SILENT_SECS, STALE_SECS};
pub use scheduler::{Action, AttemptPhase, AttemptView, Input, JobPhase, JobView, Scheduler};

#[cfg(test)]
mod decisions;

#[cfg(test)]
mod simulation;
