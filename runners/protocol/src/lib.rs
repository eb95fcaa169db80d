//! What a runner is told, what it says back, and the closed forms that planner, runner and SQL share.
//!
//! A runner is any program that answers two calls, and a third if it likes:
//!
//! - `RUNNER describe` prints one [`Description`] as JSON;
//! - `RUNNER run --job job.json` reads a [`Job`], trains, and writes one [`Event`] a line to standard output. Words for
//!   people go to standard error. It leaves with an [`exit`] code;
//! - `RUNNER serve`, if its description says so, does the same for one [`ServeRequest`] a line of standard input, until
//!   that ends.
//!
//! This crate depends on serde alone, so that every side can use it: it neither parses YAML nor knows a database, a
//! tensor or a clock. `README.md` beside it shows the JSON.

mod event;
pub mod exit;
mod fine_tuning;
mod job;
mod keep;
mod manifest;
mod model;
mod probe;
mod recipe;
mod shipped;

pub use event::{DataUsed, Description, Event, FailureKind, Measurement, ServeRequest};
pub use fine_tuning::{FineTuningPlan, Head};
pub use job::{
    DataSource, EvaluationPlan, EvaluationTask, Job, JobSpec, ParentCheckpoint, Ranks, Resources, RunnerIdentity,
    WEIGHT_FILES, Weights,
};
pub use keep::{All, Keep};
pub use manifest::{HASH_ORDER_DOC, PoolManifest, ShardEntry, SourceEntry};
pub use model::{
    Approximate, Clean, Compute, GeluSettings, ImagePool, Layers, ModelConfig, ModelProblem, ModelSize, NamedModel,
    NormSettings, TextConfig, TextPool, TextProjection, TokenizerSettings, VOCABULARY_MAX, VOCABULARY_MIN,
    VisionConfig,
};
pub use probe::{Choose, ProbePlan, Shots};
pub use recipe::{
    Alpha, Augmentation, Interpolation, Loss, OnSpike, Precision, Preprocess, Recipe, ResizeMode, Schedule,
};
pub use shipped::{MODEL_ALIASES, SHIPPED_MODELS, shipped_model};

/// Version of the JSON described here. A runner that speaks another one is refused before anything starts.
pub const PROTOCOL_VERSION: u32 = 1;
