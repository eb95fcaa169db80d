//! `sweep`: plan, run and analyse scaling-law studies of contrastive language-image training.
//!
//! Modules in reading order. Each may use those above it and none below (asserted by `tests/it/tidy.rs`):
//! [`files`] writes them whole, [`events`] judges what runners say, [`spec`] reads YAML, [`plan`] expands it into jobs,
//! [`backend`] starts workers, [`store`] owns all SQL, [`worker`] is what `sweep-worker` does, [`schedule`] decides and
//! drives, [`dataset`] moves results in and out of data frames, [`import`] reads what others published, [`fit`] turns
//! them into laws, [`report`] draws them, [`serve`] shows them while they come, [`cli`] talks to people.

pub mod files;

pub mod events;

pub mod spec;

pub mod plan;

pub mod backend;

pub mod store;

pub mod worker;

pub mod schedule;

pub mod dataset;

pub mod import;

pub use fit;

pub mod report;

pub mod serve;

pub mod cli;
