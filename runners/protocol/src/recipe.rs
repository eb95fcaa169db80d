//! How a job is trained.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Keep;

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
    /// Samples before the end over which the learning rate falls linearly to 0, with [`Schedule::ConstantCooldown`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cooldown_samples: u64,
    /// Arithmetic.
    pub precision: Precision,
    /// The contrastive loss, and who computes it.
    #[serde(default, skip_serializing_if = "Loss::is_default")]
    pub loss: Loss,
    /// Parts that the towers take a global batch in, one after another; the loss is still that of the whole batch.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub accum_freq: u64,
    /// Whether blocks keep their inputs alone for the backward pass, which computes the rest again: for memory. No part
    /// of a job's identity.
    #[serde(default, skip_serializing_if = "is_false")]
    pub grad_checkpointing: bool,
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
    /// What follows a loss spike.
    #[serde(default, skip_serializing_if = "OnSpike::is_default")]
    pub on_spike: OnSpike,
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
            cooldown_samples: 0,
            precision: Precision::Fp32,
            loss: Loss::default(),
            accum_freq: 1,
            grad_checkpointing: false,
            augmentation: Augmentation::None,
            alpha: Alpha::default(),
            preprocess: Preprocess::default(),
            grad_clip_norm: None,
            on_spike: OnSpike::GoOn,
            checkpoint_every_samples: None,
            keep_checkpoints: None,
            extra: BTreeMap::new(),
        }
    }

    /// Steps of a training over which the learning rate rises: whole batches, not more than it has.
    pub fn warmup_steps(&self, steps: u64) -> u64 {
        self.warmup_samples.div_ceil(self.global_batch).min(steps)
    }

    /// Steps at the end of a training over which the learning rate falls: whole batches, not more than it has.
    pub fn cooldown_steps(&self, steps: u64) -> u64 {
        self.cooldown_samples.div_ceil(self.global_batch).min(steps)
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
    /// Stays at `lr`, then falls linearly to 0 over the last `cooldown_samples` (OpenCLIP's `const-cooldown`).
    /// Trainings of several lengths are the same up to their cooldowns, which [`crate::JobSpec::trunk`] says.
    ConstantCooldown,
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

/// The contrastive loss, and who computes it. The numbers of `fused` and `reference` agree to rounding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// InfoNCE (Radford et al. 2021, figure 3) by the project's kernels: logits stay in cache, or within a memory
    /// budget.
    #[default]
    Fused,
    /// InfoNCE as written, by the library's operators: all logits at once.
    Reference,
    /// The pairwise sigmoid loss (Zhai et al. 2023, "Sigmoid loss for language image pre-training", section 3.1) by the
    /// project's kernels. The model has a `logit_bias`.
    Siglip,
}

impl Loss {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_default(&self) -> bool {
        *self == Loss::default()
    }
}

/// What follows a loss spike, as the runner defines it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnSpike {
    /// Nothing: it is counted.
    #[default]
    GoOn,
    /// Training goes back to the last checkpoint of `checkpoint_every_samples`, and on with the data behind the spike.
    Rollback,
}

impl OnSpike {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_default(&self) -> bool {
        *self == OnSpike::default()
    }
}

fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
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
