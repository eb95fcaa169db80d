//! The binary as `sweep-worker` runs it: a job file in, events and an exit code out, on a small pool of drawn pairs.

mod branching;
mod devices;
mod harness;
mod probing;
mod ranks;
mod refusals;
mod serving;
mod spiking;
mod training;
mod tuning;
mod weights;
