//! Running sweeps: real processes, real database, made-up losses.
//!
//! The oracle of every fault is the same: each job is done by exactly one finished attempt, and curves and results
//! equal those of a run that nothing happened to.

mod adopted;
mod bench;
mod checkpoint;
mod companions;
mod evaluate;
mod events;
mod faults;
mod fits;
mod grafana;
mod half_open;
mod history;
mod hostile;
mod local_ranks;
mod memory;
mod pilots;
mod plain;
mod says;
mod scale;
mod serve;
mod slurm;
mod spooled;
mod stops;
mod top;
mod torture;
mod trunks;
mod tune;
