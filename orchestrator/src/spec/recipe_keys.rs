//! Keys of the recipe.

use super::keys::Need::{Default, Optional, Required};
use super::keys::{Key, Kind, Range, SAMPLES, key};
use super::rule::{RULE, RULE_WHOLE};

const NOT_NEGATIVE: Kind = Kind::Number(Range { min: 0.0, min_allowed: true, below: f64::INFINITY });

/// The recipe. Defaults are OpenCLIP's for ViT models, but for the warm-up (there 10,000 steps) and precision (there
/// amp_bf16).
pub(super) static RECIPE: &[Key] = &[
    key(
        "global_batch",
        Kind::Ruled(&SAMPLES, RULE_WHOLE),
        Required,
        "Samples a step, over all devices; also the number of contrasts",
    ),
    key(
        "lr",
        Kind::Ruled(&NOT_NEGATIVE, RULE),
        Default("5e-4"),
        "Peak learning rate; 0 trains nothing, which tells what a model measures untrained",
    ),
    key(
        "betas",
        Kind::Tuple(&Kind::Number(Range { min: 0.0, min_allowed: true, below: 1.0 }), 2),
        Default("[0.9, 0.98]"),
        "AdamW betas",
    ),
    key("eps", Kind::Number(Range::positive()), Default("1e-6"), "AdamW epsilon"),
    key("weight_decay", Kind::Ruled(&NOT_NEGATIVE, RULE), Default("0.2"), "AdamW weight decay, on matrices only"),
    key(
        "warmup",
        Kind::Ruled(&Kind::Amount, RULE_WHOLE),
        Default("10%"),
        "Linear rise of the learning rate: samples, or a share of the samples seen",
    ),
    key(
        "schedule",
        Kind::Choice(&["cosine", "constant", "constant-cooldown"]),
        Default("cosine"),
        "Learning rate after the warm-up; with `constant-cooldown`, cells that differ in samples seen share a trunk",
    ),
    key(
        "cooldown",
        Kind::Amount,
        Optional,
        "Linear fall of the learning rate at the end of `constant-cooldown`: samples, or a share; else 20 %",
    ),
    key(
        "precision",
        Kind::Choice(&["fp32", "amp_bf16"]),
        Default("fp32"),
        "Arithmetic of the forward and backward pass",
    ),
    key(
        "loss",
        Kind::Choice(&["fused", "reference", "siglip"]),
        Default("fused"),
        "InfoNCE by fused kernels, or by the library's operators with all logits at once; or the sigmoid loss, fused",
    ),
    key(
        "accum_freq",
        Kind::Count { min: 1, max: 1_000_000 },
        Default("1"),
        "Parts that the towers take a global batch in, to save memory; the loss is still that of the whole batch",
    ),
    key(
        "grad_checkpointing",
        Kind::Flag,
        Default("false"),
        "Whether blocks compute their activations again for the backward pass, to save memory; the result is the same",
    ),
    key(
        "augmentation",
        Kind::Choice(&["none", "random_resized_crop", "flip_shift"]),
        Default("random_resized_crop"),
        "Random change of a training image",
    ),
    key(
        "alpha",
        Kind::Choice(&["drop", "white"]),
        Default("drop"),
        "What becomes of an image's alpha channel: left out, or the picture is laid on white",
    ),
    key(
        "image_mean",
        Kind::Tuple(&Kind::Number(Range { min: 0.0, min_allowed: true, below: f64::INFINITY }), 3),
        Default("[0.48145466, 0.4578275, 0.40821073]"),
        "Subtracted from red, green and blue, which are 0 to 1",
    ),
    key(
        "image_std",
        Kind::Tuple(&Kind::Number(Range::positive()), 3),
        Default("[0.26862954, 0.26130258, 0.27577711]"),
        "What red, green and blue are divided by then",
    ),
    key(
        "interpolation",
        Kind::Choice(&["bicubic", "bilinear"]),
        Default("bicubic"),
        "Of resizing; random crops are bicubic always, as OpenCLIP's are",
    ),
    key(
        "resize_mode",
        Kind::Choice(&["shortest", "longest", "squash"]),
        Default("shortest"),
        "Pictures that are not square: their centre, all of them on black, or stretched; random crops are stretched",
    ),
    key(
        "image_size",
        Kind::Count { min: 1, max: 8_192 },
        Optional,
        "Side of the images in place of the model's own, pixels",
    ),
    key(
        "context_length",
        Kind::Count { min: 3, max: 65_536 },
        Optional,
        "Tokens a caption in place of the model's own",
    ),
    key(
        "grad_clip_norm",
        Kind::Number(Range::positive()),
        Optional,
        "Largest gradient norm; else gradients are not clipped",
    ),
    key(
        "on_spike",
        Kind::Choice(&["go_on", "rollback"]),
        Default("go_on"),
        "After a loss spike: nothing, or back to the last checkpoint and on with the data behind it",
    ),
    key(
        "checkpoint_every",
        Kind::Amount,
        Optional,
        "Distance of checkpoints; there is always one at the end, and one on a stop unless `on_spike` is `rollback`",
    ),
    key(
        "keep_checkpoints",
        Kind::CountOrAll { max: 1_000_000 },
        Optional,
        "Checkpoints of a job that stay on disk, the newest first; else 2, or `all` where each is measured",
    ),
    key(
        "init",
        Kind::Text,
        Optional,
        "Weights to start from: a file of open_clip's, or a folder as its `local-dir:` has it; else random ones",
    ),
    key("extra", Kind::Numbers, Optional, "Numbers for a runner of your own"),
];
