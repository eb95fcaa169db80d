//! YAML to [`Spec`]: what a person asks for. Pure: it knows text and tables, no file, clock or database.
//!
//! [`parse`] goes through the modules in this order: `parse` (YAML to a tree), `read` (the tree against the tables in
//! [`keys`], every mistake of form at once), `build` (the tree to a [`Spec`]), `check` (what fields say to each other,
//! again all at once). `locate` finds the line and column of a mistake. Only `parse` and `locate` know `serde_yaml`.

pub mod keys;

pub mod quantity;

pub mod expression;

mod rule;

mod tune;

mod parse;

mod locate;

mod read;
mod recipe_keys;

mod build;

mod cells;

mod check;

mod backend_keys;
mod edit;
mod error;
mod evaluation_keys;
mod fits;

mod apart;

mod models;

mod aggregates;

mod include;

mod schema;

mod slurm;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use miette::NamedSource;
use protocol::{
    Alpha, Augmentation, Choose, EvaluationTask, Head, Loss, OnSpike, Precision, Preprocess, Schedule, Shots,
};

pub use aggregates::aggregates;
pub use build::RecipeChange;
pub use cells::{CELLS_MAX, Cell, Origin, cells, included, whole_batches};
pub use check::recipe_place;
pub(crate) use check::{model_place, sizes_once_known};
pub use edit::{EditError, with_samples_seen};
pub use error::{Path, Place, Problem, SpecError, Step};
pub use fits::FitAsked;
pub use include::{Added, IncludeError, with_included};
pub use models::{is_model_file, model_names, nearest, shipped, sized_for};
pub use rule::{Quantities, Rule, RuleError, six_digits};
pub use schema::{SCHEMA_ID, schema};
pub use slurm::{SlurmKeys, is_secret, memory_bytes, nearest_site, sites};
pub use tune::Tune;

/// A commented spec to start from: what `sweep init` writes.
pub const TEMPLATE: &str = include_str!("template.yaml");

/// A whole study as asked for, every default filled in. What depends on files (pools, model files, the runner) is the
/// planner's business.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Where it came from, for errors and for the store.
    pub source: Source,
    /// Name of the sweep.
    pub name: String,
    /// What the sweep is to answer; may be empty.
    pub question: String,
    /// Name or path of the runner.
    pub runner: String,
    /// Pool to train on; a runner that reads no data needs none.
    pub data: Option<Data>,
    /// The product of these lists is the grid.
    pub grid: Axes,
    /// Cells beside the product, after [`Spec::exclude`]: each entry is a product too, in which axes left out are the
    /// grid's.
    pub include: Vec<Axes>,
    /// Cells of the product to leave out: those that match every axis an entry names.
    pub exclude: Vec<Axes>,
    /// How to train, where no override says otherwise.
    pub recipe: Recipe,
    /// Fields of the recipe that the spec states, so that errors can point at them.
    pub recipe_stated: Vec<&'static str>,
    /// Changes of the recipe for some cells, in order; later ones win.
    pub overrides: Vec<Override>,
    /// How to choose the learning rates of models, where cells do not have the recipe's own.
    pub tune: Option<Tune>,
    /// What to measure.
    pub evaluations: Vec<Evaluation>,
    /// Laws to fit when the last result is there.
    pub fits: Vec<FitAsked>,
    /// What a report opens with, `DATASET/METRIC`.
    pub headline: Option<String>,
    /// How to measure checkpoints apart from training.
    pub companions: Companions,
    /// Whether the spec says anything of that.
    pub states_companions: bool,
    /// Where attempts run.
    pub backend: Backend,
    /// How far to go.
    pub limits: Limits,
}

impl Spec {
    /// Whether some cell starts from given weights.
    pub fn names_weights(&self) -> bool {
        self.recipe.init.is_some() || self.overrides.iter().any(|change| change.set.sets("init"))
    }

    /// Whether each checkpoint is measured on some data set, and so all are kept.
    pub fn measures_every_checkpoint(&self) -> bool {
        self.evaluations.iter().any(|evaluation| evaluation.every_checkpoint)
    }

    /// Whether it says anything of how images are made ready.
    pub fn states_preprocess(&self) -> bool {
        let keys = ["image_mean", "image_std", "interpolation", "resize_mode"];
        let of_overrides = |key: &&str| self.overrides.iter().any(|change| change.set.sets(key));
        keys.iter().any(|key| self.recipe_stated.contains(key) || of_overrides(key))
    }
}

/// Name and text of a spec. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Source(Arc<NamedSource<String>>);

impl Source {
    /// `name` is shown in errors: a path as the user wrote it.
    pub fn new(name: &str, text: &str) -> Source {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Source(Arc::new(NamedSource::new(name, text.to_owned()).with_language("yaml")))
    }

    /// Path as the user wrote it.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// The YAML.
    pub fn text(&self) -> &str {
        self.0.inner()
    }

    pub(crate) fn shared(&self) -> Arc<NamedSource<String>> {
        Arc::clone(&self.0)
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Source) -> bool {
        self.name() == other.name() && self.text() == other.text()
    }
}

/// The pool to train on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// Folder of shards, as written.
    pub pool: String,
    /// Name to store it under; else the manifest's or the folder's.
    pub name: Option<String>,
}

/// Values on each axis. In [`Spec::include`] and [`Spec::exclude`] an empty list means: not named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Axes {
    /// Names of shipped models, or paths of JSON files.
    pub model: Vec<String>,
    /// Samples to train on, as asked for: the planner rounds up to whole batches.
    pub samples_seen: Vec<u64>,
    /// Unique samples.
    pub data_size: Vec<DataSize>,
    /// Seeds.
    pub seed: Vec<u64>,
}

/// How many unique samples of the pool a job may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataSize {
    /// The first so many in hash order.
    Samples(u64),
    /// The whole pool.
    All,
}

/// A number of samples, or a share of a job's samples seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// So many.
    Samples(u64),
    /// Percent of the samples seen.
    Percent(f64),
}

impl Amount {
    /// In samples of a job that sees `samples_seen`, rounded to the nearest.
    pub fn of(self, samples_seen: u64) -> u64 {
        match self {
            Amount::Samples(samples) => samples,
            Amount::Percent(percent) => (samples_seen as f64 * percent / 100.0).round() as u64,
        }
    }
}

/// How to train.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Samples a step.
    pub global_batch: u64,
    /// Peak learning rate.
    pub lr: f64,
    /// AdamW betas.
    pub betas: [f64; 2],
    /// AdamW epsilon.
    pub eps: f64,
    /// AdamW weight decay.
    pub weight_decay: f64,
    /// Linear rise of the learning rate.
    pub warmup: Amount,
    /// What follows it.
    pub schedule: Schedule,
    /// Fall of the learning rate at the end, with `constant-cooldown` alone; see [`Recipe::cooldown_of`].
    pub cooldown: Option<Amount>,
    /// Arithmetic.
    pub precision: Precision,
    /// Who computes the loss.
    pub loss: Loss,
    /// Parts of a global batch.
    pub accum_freq: u64,
    /// Whether activations are computed again for the backward pass.
    pub grad_checkpointing: bool,
    /// Random change of training images.
    pub augmentation: Augmentation,
    /// What becomes of alpha channels.
    pub alpha: Alpha,
    /// How an image becomes the square of numbers that the model sees.
    pub preprocess: Preprocess,
    /// Side of the images in place of the model's own, pixels.
    pub image_size: Option<u64>,
    /// Tokens of a caption in place of the model's own.
    pub context_length: Option<u64>,
    /// Largest gradient norm.
    pub grad_clip_norm: Option<f64>,
    /// What follows a loss spike.
    pub on_spike: OnSpike,
    /// Distance of checkpoints.
    pub checkpoint_every: Option<Amount>,
    /// Checkpoints that stay on disk.
    pub keep_checkpoints: Option<DataSize>,
    /// Weights to start from, as written.
    pub init: Option<String>,
    /// Numbers for runners of one's own.
    pub extra: std::collections::BTreeMap<String, f64>,
    /// Fields that a rule gives, and what they hold here means nothing: see [`Recipe::resolved`].
    pub rules: std::collections::BTreeMap<&'static str, Arc<Rule>>,
}

/// What the cooldown of `constant-cooldown` is where nobody says.
const COOLDOWN: Amount = Amount::Percent(20.0);

impl Recipe {
    /// Samples over which the learning rate falls at the end of a `constant-cooldown` of so many.
    pub fn cooldown_of(&self, samples_seen: u64) -> u64 {
        self.cooldown.unwrap_or(COOLDOWN).of(samples_seen)
    }
}

/// A change of the recipe for the cells that match.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    /// Which cells: all axes named must match.
    pub cells: Axes,
    /// What is set there.
    pub set: RecipeChange,
}

/// One data set to measure on.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Name to store results under; else the pool's.
    pub name: Option<String>,
    /// Folder of shards, as written.
    pub pool: String,
    /// What to measure.
    pub tasks: Vec<EvaluationTask>,
    /// Prompt templates; empty: the pool's own.
    pub templates: Vec<String>,
    /// Where to measure beside the end.
    pub at_samples: Vec<Amount>,
    /// Whether each checkpoint is measured by a job of its own, and not by the one that trains.
    pub every_checkpoint: bool,
    /// Folder of shards that probes and fine-tuning train on, as written; required for their tasks.
    pub train: Option<String>,
    /// The linear probe, where the spec asks for one or says anything of it.
    pub probe: Option<Probe>,
    /// Fine-tuning, likewise.
    pub fine_tuning: Option<FineTuning>,
}

impl Evaluation {
    /// What a spec and its errors call it.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.pool)
    }
}

/// How checkpoints are measured apart from training.
#[derive(Debug, Clone, PartialEq)]
pub struct Companions {
    /// At one time, in slots of their own.
    pub parallel: usize,
    /// Where; else where training runs.
    pub backend: Option<Backend>,
    /// Who measures; else who trains.
    pub runner: Option<String>,
    /// Whether GPUs of this machine are left alone.
    pub on_cpu: bool,
}

/// How to probe.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Folder of shards to choose its settings on.
    pub validation: Option<String>,
    /// Images to train on; one probe each.
    pub shots: Vec<Shots>,
    /// What settles the choice.
    pub choose: Choose,
    /// Learning rates to choose from.
    pub lr: Vec<f64>,
    /// Epochs to choose from.
    pub epochs: Vec<u64>,
    /// Images a step.
    pub batch_size: u64,
    /// Seed.
    pub seed: u64,
}

/// How to fine-tune: [`protocol::FineTuningPlan`], but for its pool.
#[derive(Debug, Clone, PartialEq)]
pub struct FineTuning {
    /// What gives classes.
    pub head: Head,
    /// Steps.
    pub steps: u64,
    /// Of these, warm-up.
    pub warmup_steps: u64,
    /// Images a step.
    pub batch_size: u64,
    /// Peak learning rate.
    pub lr: f64,
    /// Factor on it for each layer above.
    pub layer_decay: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Largest gradient norm.
    pub grad_clip_norm: f64,
    /// Random change of an image.
    pub augmentation: Augmentation,
    /// Seed.
    pub seed: u64,
}

impl Evaluation {
    /// All folders of shards that it names, with their keys.
    pub fn pools(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let train = self.train.iter().map(|pool| ("train", pool));
        let validation = self.probe.iter().flat_map(|probe| probe.validation.iter().map(|pool| ("validation", pool)));
        std::iter::once(("pool", &self.pool)).chain(train).chain(validation)
    }
}

/// Where attempts run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// This machine.
    Local {
        /// Processes of one job.
        ranks: usize,
        /// Attempts at one time; else the backend decides.
        slots: Option<usize>,
        /// Threads of each; else cores over slots.
        threads_per_slot: Option<usize>,
        /// Seconds for which a worker goes on to the next job; 0: a worker a job.
        work_secs: u64,
        /// Whether workers reach no database.
        spool_only: bool,
        /// Memory that one job may take, as Slurm writes it; else what there is.
        memory: Option<String>,
    },
    /// A Slurm cluster.
    Slurm(Box<SlurmKeys>),
}

/// How far to go.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Attempts at one time, over the backend's slots.
    pub parallel: Option<usize>,
    /// Retries of a job that crashed.
    pub retries: u32,
    /// Seconds one attempt may take.
    pub time_secs: Option<u64>,
    /// Total training FLOPs of the sweep.
    pub compute_flops: Option<f64>,
    /// Pairs of a data size that may turn out unusable; the runner's own limit, 1%, if left out.
    pub skipped: Option<Amount>,
}

/// Reads a spec. On a mistake nothing is returned but the mistakes, all of them as far as they can be told apart.
pub fn parse(source: &Source) -> Result<Spec, SpecError> {
    let tree = parse::tree(source)?;
    let mut problems = Vec::new();
    let value = read::read(&tree, &keys::SPEC, &mut Path::default(), &mut problems);
    if !problems.is_empty() {
        return Err(SpecError::new(source, problems));
    }
    let spec = build::spec(source, value.expect("a tree without problems has a value"));
    let problems = check::check(&spec);
    if problems.is_empty() { Ok(spec) } else { Err(SpecError::new(source, problems)) }
}
