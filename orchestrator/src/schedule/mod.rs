//! The scheduler: a pure state machine and the one Tokio driver that performs what it decides.
