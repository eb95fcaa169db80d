//! [`Spec`](crate::spec::Spec) to [`Plan`]: pure. Same spec and same inputs, same jobs.
//!
//! [`plan`] expands the grid, sizes models, counts samples, costs jobs and names each by its content. What it needs
//! from outside (pools, model files, the runner's version) comes in as [`Inputs`]; [`inputs`] is the one module here
//! that looks.

mod accepts;
pub mod canonical;

pub mod memory;
mod memory_limit;

mod measuring;

mod companions;

pub mod inputs;

mod pool;

pub mod model_file;

pub mod runner;

mod weights;

mod preprocess;
mod rollback;

mod evaluations;

mod expand;

mod rules;

mod shared;

mod choice;

mod tune;

mod slurm;

mod machine;

mod trunks;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::{
    Compute, DataSource, EvaluationPlan, JobSpec, ModelSize, NamedModel, PoolManifest, Recipe, RunnerIdentity, Weights,
};

pub use crate::spec::is_secret;
pub use choice::{Chosen, NoiseOf, Open, RungResult, Unchosen, choose};
pub use companions::{Companions, KeptCheckpoints, checkpoints_of, kept_checkpoints};
pub use expand::{Inputs, OPEN_CLIP_CONFIG, job_key, plan};
pub use inputs::{LoadError, Measured, Placement, gathered, load_spec, look, read_spec};
pub use measuring::{measuring_job, measuring_plan, planned_evaluations};
pub use memory_limit::MemoryLimit;
pub use pool::has_class_names;
pub use preprocess::{of_run as preprocess_of_run, recipe_keys};
pub use runner::RunnerError;
pub use slurm::{NodeRequest, Origin, Site, SlurmOptions, SlurmOrigins, slurm_options};
pub use tune::{Group, Ladder, Rung};
pub use weights::{WeightsInfo, file_of, preprocess_of, weights_of};

/// Jobs of a sweep, in the order they are to start: cheapest first.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name of the sweep.
    pub name: String,
    /// What the sweep is to answer.
    pub question: String,
    /// The YAML as written.
    pub spec_source: String,
    /// Pools that jobs train on or are measured on.
    pub pools: Vec<PoolInfo>,
    /// Jobs.
    pub jobs: Vec<PlannedJob>,
    /// How far to go.
    pub limits: Limits,
    /// Where attempts run.
    pub backend: BackendChoice,
    /// The runner's executable, as resolved.
    pub runner_path: std::path::PathBuf,
    /// Devices the runner can use here, best first.
    pub runner_devices: Vec<String>,
    /// Whether it takes one job after another (`RUNNER serve`).
    pub runner_serves: bool,
    /// Folder that relative paths of the spec start from.
    pub base_dir: std::path::PathBuf,
    /// What measures each checkpoint apart from training, if anything does.
    pub companions: Option<Companions>,
    /// Fields of the recipe that rules give, with the rules as written.
    pub rules: BTreeMap<&'static str, Vec<String>>,
    /// What chooses the learning rates of its models, if anything does.
    pub tune: Option<Ladder>,
}

/// One job before it runs.
#[derive(Debug, Clone)]
pub struct PlannedJob {
    /// sha256 of the canonical JSON of `spec.identity()`, 64 hex digits.
    pub job_key: String,
    /// What to train.
    pub spec: PlannedSpec,
    /// N and forward compute.
    pub size: ModelSize,
    /// C in every convention.
    pub compute: Compute,
    /// U.
    pub unique_samples: u64,
    /// Estimated peak memory, bytes.
    pub memory_bytes: u64,
    /// Estimated seconds on one slot, where a throughput is known.
    pub secs: Option<f64>,
    /// The job whose last checkpoint it goes on from.
    pub parent: Option<Parent>,
}

/// The job that another one goes on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Its key.
    pub job_key: String,
    /// Its samples seen: where the other one begins.
    pub samples_seen: u64,
}

impl PlannedJob {
    /// Samples that it trains on itself, without those of its parent.
    pub fn own_samples(&self) -> u64 {
        self.spec.samples_seen - self.parent.as_ref().map_or(0, |parent| parent.samples_seen)
    }

    /// Which share of its compute that is: 1 where it has no parent.
    pub fn own_share(&self) -> f64 {
        if self.parent.is_none() { 1.0 } else { self.own_samples() as f64 / self.spec.samples_seen as f64 }
    }
}

/// A [`JobSpec`] that shares with other jobs of its sweep what they have in common: a plan may hold 100,000.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedSpec {
    /// Who trains.
    pub runner: Arc<RunnerIdentity>,
    /// Architecture.
    pub model: Arc<NamedModel>,
    /// Weights to start from.
    pub init: Option<Weights>,
    /// Pairs to train on.
    pub data: Arc<DataSource>,
    /// U.
    pub data_size: u64,
    /// How many of them may be missing, where the spec says.
    pub skipped_max: Option<u64>,
    /// D.
    pub samples_seen: u64,
    /// Seed.
    pub seed: u64,
    /// How to train.
    pub recipe: Arc<Recipe>,
    /// What to measure.
    pub evaluations: Arc<Vec<EvaluationPlan>>,
}

impl PlannedSpec {
    /// All of it, with paths as the spec wrote them.
    pub fn to_job_spec(&self) -> JobSpec {
        JobSpec {
            runner: RunnerIdentity::clone(&self.runner),
            model: NamedModel::clone(&self.model),
            init: self.init.clone(),
            data: DataSource::clone(&self.data),
            data_size: self.data_size,
            skipped_max: self.skipped_max,
            samples_seen: self.samples_seen,
            seed: self.seed,
            recipe: Recipe::clone(&self.recipe),
            evaluations: self.evaluations.to_vec(),
        }
    }

    /// Whether nothing is trained: see [`JobSpec::measures_only`].
    pub fn measures_only(&self) -> bool {
        self.samples_seen == 0
    }

    /// Optimiser steps: see [`JobSpec::steps`].
    pub fn steps(&self) -> u64 {
        self.samples_seen / self.recipe.global_batch
    }
}

/// A pool as found on disk.
#[derive(Debug, Clone)]
pub struct PoolInfo {
    /// Name, folder as written in the spec, digest.
    pub source: protocol::DataSource,
    /// Pairs.
    pub samples: u64,
    /// Samples that are not used, by what is wrong with them. Images that can't be decoded are found when training.
    pub skipped: BTreeMap<String, u64>,
    /// Shards that hold something else than when the pool was read before.
    pub changed: Vec<String>,
    /// `manifest.json`, where there is one.
    pub manifest: Option<PoolManifest>,
}

/// How far a sweep may go.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Attempts at one time; `None`: as many as the backend has slots.
    pub parallel: Option<usize>,
    /// Retries of a job that failed for a reason that may pass.
    pub retries: u32,
    /// Wall-clock seconds one attempt may take.
    pub time_limit_secs: Option<u64>,
    /// Total `train_flops` the sweep may cost; `plan` and `launch` refuse more.
    pub compute_budget_flops: Option<f64>,
}

/// Where attempts run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendChoice {
    /// This machine.
    Local(LocalOptions),
    /// A Slurm cluster.
    Slurm(Box<SlurmOptions>),
}

/// Slots of the local backend.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalOptions {
    /// Processes of a job; 0 and 1: one.
    pub ranks: usize,
    /// Slots; `None`: one a GPU, else one a two cores... the backend decides.
    pub slots: Option<usize>,
    /// Threads a slot; `None`: cores over slots.
    pub threads_per_slot: Option<usize>,
    /// Seconds for which a worker goes on to the next job; 0: a worker a job.
    pub work_secs: u64,
    /// Whether workers reach no database.
    pub spool_only: bool,
}
