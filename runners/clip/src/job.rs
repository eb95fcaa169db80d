//! Reads `job.json` and refuses what can't work, before anything is built. Knows no tensor.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use protocol::{Description, Job, Loss, ModelConfig, ModelProblem, OnSpike, PROTOCOL_VERSION, Schedule};

/// Name of this runner in job specs.
pub const NAME: &str = "clip";

/// Version of this runner in job specs: grows when the same job would give another result.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why a job can't be started.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The file can't be read.
    #[error("cannot read the job `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no job.
    #[error("`{}` is not a job of protocol {PROTOCOL_VERSION}", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What serde said.
        source: serde_json::Error,
    },
    /// Another protocol.
    #[error(
        "the job speaks protocol {found}, this runner {PROTOCOL_VERSION}: use the `sweep` and `clip-runner` of one build"
    )]
    Protocol {
        /// What the job says.
        found: serde_json::Value,
    },
    /// Another runner or version.
    #[error("the job was planned for runner {planned}, this is {NAME} {VERSION}: plan it again")]
    Runner {
        /// Name and version.
        planned: String,
    },
    /// A model that can't be trained.
    #[error("the model can't be trained: {}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Model {
        /// Each with its field.
        problems: Vec<ModelProblem>,
    },
    /// A number out of range.
    #[error("`{field}` is {found}, but {allowed}")]
    Value {
        /// Path in the job's spec.
        field: &'static str,
        /// What it says.
        found: String,
        /// What would do.
        allowed: String,
    },
}

/// Answer to `clip-runner describe`.
pub fn describe(devices: Vec<String>) -> Description {
    Description {
        name: NAME.into(),
        version: VERSION.into(),
        protocol: PROTOCOL_VERSION,
        reads_data: true,
        devices,
        serve: true,
        ranks: true,
        init: true,
        branches: true,
        rolls_back: true,
        accepts: BTreeMap::new(),
    }
}

/// Reads a job and checks it.
pub fn read(path: &Path) -> Result<Job, JobError> {
    let text = std::fs::read(path).map_err(|source| JobError::Read { path: path.to_owned(), source })?;
    let parse_error = |source| JobError::Parse { path: path.to_owned(), source };
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(parse_error)?;
    // The version first: under another one, other fields are no mistake.
    let found = value.get("protocol").cloned().unwrap_or_default();
    if found != PROTOCOL_VERSION {
        return Err(JobError::Protocol { found });
    }
    let job: Job = serde_json::from_slice(&text).map_err(parse_error)?;
    check(&job)?;
    Ok(job)
}

fn check(job: &Job) -> Result<(), JobError> {
    let spec = &job.spec;
    if spec.runner.name != NAME || spec.runner.version != VERSION {
        let planned = format!("{} {}", spec.runner.name, spec.runner.version);
        return Err(JobError::Runner { planned });
    }
    let batch = spec.recipe.global_batch;
    require("recipe.global_batch", batch > 0, batch, || "must be at least 1".into())?;
    let ranks = job.ranks.as_ref().map_or(1, |ranks| ranks.world_size);
    let some_for_each = ranks > 0 && ranks as u64 <= batch;
    require("ranks.world_size", some_for_each, ranks, || format!("must be 1 to the global batch, {batch}"))?;
    let parts = spec.recipe.accum_freq;
    let equal = parts > 0 && batch.is_multiple_of(parts);
    require("recipe.accum_freq", equal, parts, || format!("must divide the global batch, {batch}"))?;
    let whole = spec.samples_seen.is_multiple_of(batch);
    require("samples_seen", whole, spec.samples_seen, || format!("must be a multiple of the global batch, {batch}"))?;
    let something = spec.init.is_some() || !spec.measures_only();
    require("samples_seen", something, 0, || "must be above 0 where there is no `init` to measure".into())?;
    let size = spec.data_size;
    require("data_size", (1..=u64::from(u32::MAX)).contains(&size), size, || "must be 1 to 4,294,967,295".into())?;
    let cooldown = spec.recipe.cooldown_samples;
    let used = (spec.recipe.schedule == Schedule::ConstantCooldown) == (cooldown > 0);
    require("recipe.cooldown_samples", used, cooldown, || {
        "must be above 0 with the schedule constant_cooldown, and 0 with others".into()
    })?;
    let with_bias = spec.recipe.loss != Loss::Siglip || spec.model.config.init_logit_bias.is_some();
    require("recipe.loss", with_bias, "siglip", || "needs a model with `init_logit_bias`, -10 at first".into())?;
    let [b1, b2] = spec.recipe.betas;
    let betas = [b1, b2].iter().all(|beta| (0.0..1.0).contains(beta));
    require("recipe.betas", betas, format!("{b1}, {b2}"), || "both must be at least 0 and below 1".into())?;
    let clip = spec.recipe.grad_clip_norm;
    let positive = clip.is_none_or(|norm| norm > 0.0);
    require("recipe.grad_clip_norm", positive, clip.unwrap_or_default(), || "must be above 0".into())?;
    let every = spec.recipe.checkpoint_every_samples;
    let positive = every.is_none_or(|every| every > 0);
    require("recipe.checkpoint_every_samples", positive, every.unwrap_or_default(), || "must be above 0".into())?;
    let can_go_back = spec.recipe.on_spike == OnSpike::GoOn || every.is_some();
    require("recipe.on_spike", can_go_back, "rollback", || "needs `checkpoint_every_samples`".into())?;
    let extra: Vec<&str> = spec.recipe.extra.keys().map(String::as_str).collect();
    require("recipe.extra", extra.is_empty(), extra.join(", "), || "clip-runner takes no extra settings".into())?;
    check_model(&spec.model.config)
}

/// What the planner asked as well ([`ModelConfig::check_trained_by_clip`]): a job may come from elsewhere.
fn check_model(config: &ModelConfig) -> Result<(), JobError> {
    let mut problems = config.check();
    if problems.is_empty() {
        problems = config.check_trained_by_clip();
    }
    if problems.is_empty() { Ok(()) } else { Err(JobError::Model { problems }) }
}

fn require(
    field: &'static str,
    holds: bool,
    found: impl std::fmt::Display,
    allowed: impl FnOnce() -> String,
) -> Result<(), JobError> {
    if holds { Ok(()) } else { Err(JobError::Value { field, found: found.to_string(), allowed: allowed() }) }
}
