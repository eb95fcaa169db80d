//! `job.json`: everything a runner needs to know.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{FineTuningPlan, NamedModel, OnSpike, ProbePlan, Recipe, Schedule};

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
    /// A checkpoint of another job to go on from, where the job has none of its own: see [`ParentCheckpoint`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentCheckpoint>,
}

/// A checkpoint of another job, the parent, which trains as this one would up to there: the same model, data, seed and
/// learning rates. Going on from it changes no result, only what it costs, so it is no part of a job's identity; a job
/// whose parent's checkpoint is gone or damaged begins at the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParentCheckpoint {
    /// Folder or file, as the runner reported it.
    pub path: PathBuf,
    /// sha256 of its manifest, as the runner reported it.
    pub sha256: String,
    /// Samples seen at it.
    pub samples_seen: u64,
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
    /// How to fine-tune, for [`EvaluationTask::FineTuning`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fine_tuning: Option<FineTuningPlan>,
}

impl EvaluationPlan {
    /// All pools that it reads.
    pub fn sources(&self) -> impl Iterator<Item = &DataSource> {
        let of_probe = self.probe.iter().flat_map(|probe| std::iter::once(&probe.train).chain(&probe.validation));
        let of_fine_tuning = self.fine_tuning.iter().map(|plan| &plan.train);
        std::iter::once(&self.data).chain(of_probe).chain(of_fine_tuning)
    }

    /// The plan with these tasks in place of its own, without what is said of others.
    #[must_use]
    pub fn with_tasks(self, tasks: Vec<EvaluationTask>) -> EvaluationPlan {
        let probe = self.probe.filter(|_| tasks.contains(&EvaluationTask::LinearProbe));
        let fine_tuning = self.fine_tuning.filter(|_| tasks.contains(&EvaluationTask::FineTuning));
        EvaluationPlan { tasks, probe, fine_tuning, ..self }
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
        let of_fine_tuning = self.fine_tuning.iter_mut().map(|plan| &mut plan.train);
        std::iter::once(&mut self.data).chain(of_probe).chain(of_fine_tuning)
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
    /// `lp_acc1`, `lp_acc5` and `lp_mean_per_class_recall`, `@full`, `@5shot` or `@vtab1k`: see [`ProbePlan`].
    LinearProbe,
    /// `ft_acc1`, `ft_acc5` and `ft_mean_per_class_recall`: see [`FineTuningPlan`].
    FineTuning,
}

impl EvaluationTask {
    /// All of them.
    pub const ALL: [EvaluationTask; 5] = [
        EvaluationTask::ZeroshotClassification,
        EvaluationTask::ZeroshotRetrieval,
        EvaluationTask::ContrastiveLoss,
        EvaluationTask::LinearProbe,
        EvaluationTask::FineTuning,
    ];

    /// As in job.json and in specs.
    pub const fn name(self) -> &'static str {
        match self {
            EvaluationTask::ZeroshotClassification => "zeroshot_classification",
            EvaluationTask::ZeroshotRetrieval => "zeroshot_retrieval",
            EvaluationTask::ContrastiveLoss => "contrastive_loss",
            EvaluationTask::LinearProbe => "linear_probe",
            EvaluationTask::FineTuning => "fine_tuning",
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
    /// and number of checkpoints, since a job that was resumed gives the same result (the distance counts where a loss
    /// spike leads back to a checkpoint), and whether activations are computed again: they are the same then. Of a job
    /// that only measures, nothing counts that is for training.
    #[must_use]
    pub fn identity(&self) -> JobSpec {
        let mut identity = self.clone();
        if self.measures_only() {
            identity.forget_training();
        }
        if let Some(init) = &mut identity.init {
            init.path = PathBuf::new();
        }
        // Where a rollback goes back to decides what is trained on.
        if identity.recipe.on_spike == OnSpike::GoOn {
            identity.recipe.checkpoint_every_samples = None;
        }
        identity.recipe.keep_checkpoints = None;
        identity.recipe.grad_checkpointing = false;
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

    /// The training that this one is the end of, with [`Schedule::ConstantCooldown`]: all before the cooldown, which
    /// does not depend on the samples seen. It measures nothing. `None`: there is no such part, or a spike may lead
    /// back across its end.
    #[must_use]
    pub fn trunk(&self) -> Option<JobSpec> {
        let cooldown = self.recipe.cooldown_steps(self.steps());
        let steps = self.steps() - cooldown;
        let is_cut = self.recipe.schedule == Schedule::ConstantCooldown && self.recipe.on_spike == OnSpike::GoOn;
        (is_cut && cooldown > 0 && steps > 0).then(|| JobSpec {
            samples_seen: steps * self.recipe.global_batch,
            recipe: Recipe { schedule: Schedule::Constant, cooldown_samples: 0, ..self.recipe.clone() },
            evaluations: Vec::new(),
            ..self.clone()
        })
    }
}
