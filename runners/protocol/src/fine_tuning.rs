//! Fine-tuning: the image tower trained further on images with classes, and measured on others.

use serde::{Deserialize, Serialize};

use crate::{Augmentation, DataSource};

/// What the image tower is fine-tuned on, and how: AdamW, warm-up and a cosine to 0, cross-entropy over the classes.
/// The text tower stays as it is. Every field has a value here; defaults are the planner's business.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FineTuningPlan {
    /// Images with classes.
    pub train: DataSource,
    /// What turns embeddings into classes.
    pub head: Head,
    /// Optimiser steps.
    pub steps: u64,
    /// Of these, steps over which the learning rate rises linearly to `lr`.
    pub warmup_steps: u64,
    /// Images a step.
    pub batch_size: u64,
    /// Peak learning rate of the head and what stands before it.
    pub lr: f64,
    /// What the learning rate of each layer is multiplied with once for each layer above it; 1: all have the same.
    pub layer_decay: f64,
    /// AdamW decoupled weight decay, on matrices only.
    pub weight_decay: f64,
    /// Largest gradient norm, over all that is trained.
    pub grad_clip_norm: f64,
    /// What happens to a training image.
    pub augmentation: Augmentation,
    /// Seed of order and augmentation.
    pub seed: u64,
}

/// What turns embeddings into classes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Head {
    /// The classes' text embeddings times the logit scale, as they are: what was learnt fits back into the model.
    #[default]
    Zeroshot,
    /// A linear layer that begins as them, without a bias, and is trained too.
    Linear,
}
