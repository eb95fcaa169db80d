//! `job.json`: everything a runner needs to know.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Keep, NamedModel, ProbePlan};

/// One attempt at a job, as written to `job.json` by `sweep-worker`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// [`crate::PROTOCOL_VERSION`].
    pub protocol: u32,
    /// Hash of `spec`: the job's name everywhere (64 hex digits).
    pub job_key: String,
    /// Grows by one with every attempt that claims the job; a checkpoint of a higher fence than one's own is not one's
    /// own.
    pub fence: i64,
    /// What to train and measure.
    pub spec: JobSpec,
    /// Folder of this attempt: scratch and logs.
    pub attempt_dir: PathBuf,
    /// Folder of the job's checkpoints, shared by all its attempts.
    pub checkpoint_dir: PathBuf,
    /// Root that relative paths of `spec` start from (the folder `sweep` was started in).
    pub base_dir: PathBuf,
    /// Where to run.
    pub resources: Resources,
    /// The processes that train it together, one a rank; left out: one process does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<Ranks>,
}

/// Everything that changes the result of a job, and nothing that does not. Its canonical JSON is hashed into the job
/// key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// Who trains: two versions of a runner make two jobs.
    pub runner: RunnerIdentity,
    /// Architecture, by name and in full.
    pub model: NamedModel,
    /// Weights that it starts from; left out: random ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Weights>,
    /// Image-text pairs to train on.
    pub data: DataSource,
    /// Unique samples U the job may see: the first U of the pool in hash order.
    pub data_size: u64,
    /// How many of them may be missing because their images can't be decoded; a job that lacks more fails. Left out: 1%
    /// of `data_size`. No part of a job's identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_max: Option<u64>,
    /// Samples D to train on, repeats counted. A whole number of global batches; 0, with `init`: nothing is trained,
    /// and the weights are measured as they are.
    pub samples_seen: u64,
    /// Seed of initialisation, order and augmentation.
    pub seed: u64,
    /// How to train.
    pub recipe: Recipe,
    /// What to measure, in order.
    pub evaluations: Vec<EvaluationPlan>,
}

/// Name and version of a runner, as [`crate::Description`] gives them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunnerIdentity {
    /// For example `clip`.
    pub name: String,
    /// Grows when the same job would give another result.
    pub version: String,
}

/// A pool on disk. The digest, not the path, is part of a job's identity: see [`JobSpec::identity`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSource {
    /// Name of the pool.
    pub pool: String,
    /// Folder of WebDataset shards, as the spec wrote it.
    pub path: PathBuf,
    /// sha256 of what the pool holds (the crate `shards`), 64 hex digits.
    pub digest: String,
}

/// A file of weights. The digest, not the path, is part of a job's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// The file, as the spec wrote it, or inside the folder that it wrote.
    pub path: PathBuf,
    /// sha256 of its bytes, 64 hex digits.
    pub sha256: String,
}

/// Names of a folder's weights that [`Weights::path`] may end in, the first that is there: those that open_clip 3.3.0
/// looks for in a `local-dir:`, in its order.
pub const WEIGHT_FILES: [&str; 8] = [
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
];

/// How to train. Every field has a value here; defaults are the planner's business.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Samples a step, over all devices.
    pub global_batch: u64,
    /// Peak learning rate.
    pub lr: f64,
    /// AdamW betas.
    pub betas: [f64; 2],
    /// AdamW epsilon.
    pub eps: f64,
    /// AdamW decoupled weight decay, on matrices only.
    pub weight_decay: f64,
    /// Samples over which the learning rate rises linearly from 0 to `lr`.
    pub warmup_samples: u64,
    /// What follows the warm-up.
    pub schedule: Schedule,
    /// Arithmetic.
    pub precision: Precision,
    /// Who computes InfoNCE.
    #[serde(default, skip_serializing_if = "Loss::is_default")]
    pub loss: Loss,
    /// Parts that the towers take a global batch in, one after another; the loss is still that of the whole batch.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub accum_freq: u64,
    /// What happens to a training image.
    pub augmentation: Augmentation,
    /// What becomes of the alpha channel of any image.
    #[serde(default, skip_serializing_if = "Alpha::is_default")]
    pub alpha: Alpha,
    /// How an image becomes the square of numbers that the model sees.
    #[serde(default, skip_serializing_if = "Preprocess::is_default")]
    pub preprocess: Preprocess,
    /// Largest gradient norm, if clipped.
    pub grad_clip_norm: Option<f64>,
    /// A checkpoint every so many samples (and one at the end and on request).
    pub checkpoint_every_samples: Option<u64>,
    /// Checkpoints that stay on disk; left out: as the runner has it, at least the newest. No part of a job's identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_checkpoints: Option<Keep>,
    /// Anything a foreign runner needs beside this; `clip-runner` takes none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, f64>,
}

impl Recipe {
    /// That of a job which only measures: what it says of training counts for nothing.
    #[must_use]
    pub fn of_nothing() -> Recipe {
        Recipe {
            global_batch: 1,
            lr: 0.0,
            betas: [0.0; 2],
            eps: 0.0,
            weight_decay: 0.0,
            warmup_samples: 0,
            schedule: Schedule::Constant,
            precision: Precision::Fp32,
            loss: Loss::default(),
            accum_freq: 1,
            augmentation: Augmentation::None,
            alpha: Alpha::default(),
            preprocess: Preprocess::default(),
            grad_clip_norm: None,
            checkpoint_every_samples: None,
            keep_checkpoints: None,
            extra: BTreeMap::new(),
        }
    }
}

/// Learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Half a cosine down to 0 at the last step.
    Cosine,
    /// Stays at `lr`.
    Constant,
}

/// Arithmetic of the forward and backward pass. Master weights and optimiser state are fp32 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    Fp32,
    /// bfloat16 matrix products, as `amp_bf16` in OpenCLIP.
    AmpBf16,
}

/// Who computes the loss and its gradients. The numbers agree to rounding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// The project's kernels: logits stay in cache, or within a memory budget.
    #[default]
    Fused,
    /// The formula as written, by the library's operators: all logits at once.
    Reference,
}

impl Loss {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_default(&self) -> bool {
        *self == Loss::default()
    }
}

fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_one(number: &u64) -> bool {
    *number == 1
}

/// Random change of a training image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Augmentation {
    /// The image as it is, resized.
    None,
    /// Crop of 90 to 100 % of the area, resized (OpenCLIP's default, scale 0.9 to 1.0).
    RandomResizedCrop,
    /// Horizontal flip with probability 1/2 and a shift of up to a tenth of the side: for drawings.
    FlipShift,
}

/// What becomes of an image's alpha channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alpha {
    /// It is left out, and the colours under it are seen whatever they are: OpenCLIP's way (Pillow's `convert("RGB")`).
    #[default]
    Drop,
    /// The picture is laid on white paper: for drawings.
    White,
}

/// How an image becomes the square of numbers that a model sees: `preprocess_cfg` of OpenCLIP's configurations. A
/// random crop is stretched to the square by bicubic interpolation whatever is said here, as there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preprocess {
    /// Subtracted from red, green and blue, which are 0 to 1.
    pub mean: [f64; 3],
    /// What they are divided by then.
    pub std: [f64; 3],
    /// Of resizing.
    pub interpolation: Interpolation,
    /// What becomes of pictures that are not square.
    pub resize_mode: ResizeMode,
}

impl Default for Preprocess {
    /// OpenAI's (`open_clip/constants.py`), which are OpenCLIP's defaults.
    fn default() -> Self {
        Preprocess {
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_58, 0.275_777_11],
            interpolation: Interpolation::default(),
            resize_mode: ResizeMode::default(),
        }
    }
}

impl Preprocess {
    fn is_default(&self) -> bool {
        *self == Preprocess::default()
    }
}

/// Weights of the pixels that one is made of, wider when shrinking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Keys's cubic, a = -0.5.
    #[default]
    Bicubic,
    /// A triangle.
    Bilinear,
}

/// How a picture of any shape becomes a square.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeMode {
    /// The shorter side is resized to the square's, and the centre is kept.
    #[default]
    Shortest,
    /// The longer side is, and the rest is black.
    Longest,
    /// Each side by itself: the picture is stretched.
    Squash,
}

impl Alpha {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_default(&self) -> bool {
        *self == Alpha::default()
    }
}

/// One data set to measure on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationPlan {
    /// Name under which results are stored, for example `fluent-emoji-flat`.
    pub dataset: String,
    /// Held-out pairs.
    pub data: DataSource,
    /// What to measure, in order.
    pub tasks: Vec<EvaluationTask>,
    /// Prompt templates for zero-shot classification, `{}` standing for the class name. Empty: those of the pool.
    pub templates: Vec<String>,
    /// Samples seen after which to measure, ascending; the end of training is always measured too.
    pub at_samples: Vec<u64>,
    /// How to probe, for [`EvaluationTask::LinearProbe`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbePlan>,
}

impl EvaluationPlan {
    /// All pools that it reads.
    pub fn sources(&self) -> impl Iterator<Item = &DataSource> {
        let of_probe = self.probe.iter().flat_map(|probe| std::iter::once(&probe.train).chain(&probe.validation));
        std::iter::once(&self.data).chain(of_probe)
    }

    /// What of it changes a number: its pools by their digests, not by name and folder.
    #[must_use]
    pub fn identity(&self) -> EvaluationPlan {
        let mut identity = self.clone();
        for source in identity.sources_mut() {
            source.path = PathBuf::new();
            source.pool.clear();
        }
        identity
    }

    /// All pools that it reads.
    pub fn sources_mut(&mut self) -> impl Iterator<Item = &mut DataSource> {
        let of_probe =
            self.probe.iter_mut().flat_map(|probe| std::iter::once(&mut probe.train).chain(&mut probe.validation));
        std::iter::once(&mut self.data).chain(of_probe)
    }
}

/// A kind of measurement. Definitions as in CLIP_benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvaluationTask {
    /// `acc1`, `acc5`, `mean_per_class_recall`.
    ZeroshotClassification,
    /// `image_retrieval_recall@k` and `text_retrieval_recall@k`, k = 1, 5, 10.
    ZeroshotRetrieval,
    /// `loss@1024`: InfoNCE over blocks of exactly 1,024 pairs, so that it compares across batch sizes.
    ContrastiveLoss,
    /// `lp_acc1`, `lp_acc5` and `lp_mean_per_class_recall`, `@full` or `@5shot`: see [`ProbePlan`].
    LinearProbe,
}

impl EvaluationTask {
    /// All of them.
    pub const ALL: [EvaluationTask; 4] = [
        EvaluationTask::ZeroshotClassification,
        EvaluationTask::ZeroshotRetrieval,
        EvaluationTask::ContrastiveLoss,
        EvaluationTask::LinearProbe,
    ];

    /// As in job.json and in specs.
    pub const fn name(self) -> &'static str {
        match self {
            EvaluationTask::ZeroshotClassification => "zeroshot_classification",
            EvaluationTask::ZeroshotRetrieval => "zeroshot_retrieval",
            EvaluationTask::ContrastiveLoss => "contrastive_loss",
            EvaluationTask::LinearProbe => "linear_probe",
        }
    }

    /// The task of that name.
    pub fn named(name: &str) -> Option<EvaluationTask> {
        EvaluationTask::ALL.into_iter().find(|task| task.name() == name)
    }
}

/// Where an attempt runs. Changes no result on one CPU device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// `cpu`, `cuda` or `cuda:1`.
    pub device: String,
    /// Threads for arithmetic.
    pub threads: usize,
}

/// What all processes of a job that has several know alike. Which of them a process is, is in its environment (`RANK`,
/// `LOCAL_RANK`), beside the same under the names of torch's launchers. Changes no result but by rounding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ranks {
    /// Processes, 2 or more; ranks count from 0.
    pub world_size: usize,
    /// Host of rank 0, where the others find it.
    pub master_addr: String,
    /// A port there that was free when the attempt began; rank 0 is the one to listen.
    pub master_port: u16,
}

impl JobSpec {
    /// The spec as hashed: names and paths of pools are left out, since the digest
    /// already says what the data are, and so are the distance
    /// and number of checkpoints, since a job that was resumed gives the same result. Of a job that only measures,
    /// nothing counts that is for training.
    #[must_use]
    pub fn identity(&self) -> JobSpec {
        let mut identity = self.clone();
        if self.measures_only() {
            identity.forget_training();
        }
        if let Some(init) = &mut identity.init {
            init.path = PathBuf::new();
        }
        identity.recipe.checkpoint_every_samples = None;
        identity.recipe.keep_checkpoints = None;
        identity.data.path = PathBuf::new();
        identity.data.pool.clear();
        identity.skipped_max = None;
        // The hash of a tokenizer's file says what it is.
        if identity.model.config.text_cfg.tokenizer_sha256.is_some() {
            identity.model.config.text_cfg.hf_tokenizer_name = None;
        }
        identity.evaluations = identity.evaluations.iter().map(EvaluationPlan::identity).collect();
        identity
    }

    fn forget_training(&mut self) {
        let Recipe { precision, alpha, preprocess, extra, .. } = self.recipe.clone();
        self.recipe = Recipe { precision, alpha, preprocess, extra, ..Recipe::of_nothing() };
        self.data.digest.clear();
        (self.data_size, self.seed) = (0, 0);
        for evaluation in &mut self.evaluations {
            evaluation.at_samples.clear();
        }
    }

    /// Whether nothing is trained: the weights of `init` are measured.
    pub fn measures_only(&self) -> bool {
        self.samples_seen == 0
    }

    /// How many pairs of `data_size` may be missing: see [`JobSpec::skipped_max`].
    pub fn most_skipped(&self) -> u64 {
        self.skipped_max.unwrap_or(self.data_size / 100)
    }

    /// Optimiser steps: samples seen over the global batch.
    pub fn steps(&self) -> u64 {
        self.samples_seen / self.recipe.global_batch
    }
}
