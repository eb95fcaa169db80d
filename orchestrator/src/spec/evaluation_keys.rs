//! Keys of an evaluation.

use protocol::EvaluationTask;

use super::keys::Need::{Default, Optional, Required};
use super::keys::{COUNT_MAX, Key, Kind, Range, key};

const TASKS: [&str; 5] = [
    EvaluationTask::ALL[0].name(),
    EvaluationTask::ALL[1].name(),
    EvaluationTask::ALL[2].name(),
    EvaluationTask::ALL[3].name(),
    EvaluationTask::ALL[4].name(),
];

/// Keys of an evaluation that speak of its linear probe alone.
pub(super) const PROBE: [&str; 7] =
    ["validation", "shots", "choose", "probe_lr", "probe_epochs", "probe_batch", "probe_seed"];

/// Keys of an evaluation that speak of its fine-tuning alone.
pub(super) const FINE_TUNING: [&str; 10] = [
    "ft_head",
    "ft_steps",
    "ft_warmup",
    "ft_lr",
    "ft_layer_decay",
    "ft_weight_decay",
    "ft_grad_clip_norm",
    "ft_batch",
    "ft_augmentation",
    "ft_seed",
];

pub(super) static EVALUATION: &[Key] = &[
    key("name", Kind::Name, Optional, "Name to store results under; else the pool's"),
    key("pool", Kind::Text, Required, "Folder of held-out WebDataset shards"),
    key(
        "split",
        Kind::Name,
        Optional,
        "Folder below `pool` that has them, of a data set in CLIP_benchmark's layout: `test`",
    ),
    key("tasks", Kind::OneOrMore(&Kind::Choice(&TASKS)), Required, "What to measure"),
    key(
        "templates",
        Kind::List(&Kind::Text),
        Default("[]"),
        "Prompts of zero-shot classification, `{}` for the class; else the pool's",
    ),
    key(
        "at_samples",
        Kind::List(&Kind::Amount),
        Default("[]"),
        "Samples seen at which to measure too; the end always is",
    ),
    key(
        "evaluate",
        Kind::Choice(&["training", "every_checkpoint"]),
        Default("training"),
        "Who measures: the job that trains; or one of its own for each checkpoint, while training goes on",
    ),
    key(
        "train",
        Kind::Text,
        Optional,
        "Linear probe, fine-tuning: folder of shards with classes to train on; needed for the task",
    ),
    key("validation", Kind::Text, Optional, "Linear probe: shards to choose its settings on; else a fifth of `train`"),
    key(
        "shots",
        Kind::OneOrMore(&Kind::Shots),
        Default("all"),
        "Linear probe: images of each class to train on, `all`, or `vtab1k`: 1,000 whatever their classes; one probe each",
    ),
    key(
        "choose",
        Kind::Choice(&["validation", "test"]),
        Default("validation"),
        "Linear probe: what its settings are chosen on; `test` is the way of the 2022 study, and gains by the choice",
    ),
    key(
        "probe_lr",
        Kind::OneOrMore(&Kind::Number(Range::positive())),
        Default("[0.1, 0.01, 0.001]"),
        "Linear probe: peak learning rates to choose from",
    ),
    key(
        "probe_epochs",
        Kind::OneOrMore(&Kind::Count { min: 1, max: 100_000 }),
        Default("[10, 20, 40]"),
        "Linear probe: epochs to choose from",
    ),
    key("probe_batch", Kind::Count { min: 1, max: 1_000_000 }, Default("256"), "Linear probe: images a step"),
    key(
        "probe_seed",
        Kind::Count { min: 0, max: COUNT_MAX },
        Default("0"),
        "Linear probe: seed of its first weights, its order and its choice of shots",
    ),
    key(
        "ft_head",
        Kind::Choice(&["zeroshot", "linear"]),
        Default("zeroshot"),
        "Fine-tuning: what gives classes, the prompts' embeddings as they are or a layer that begins as they and is trained",
    ),
    key("ft_steps", Kind::Count { min: 1, max: 100_000_000 }, Default("2000"), "Fine-tuning: steps"),
    key(
        "ft_warmup",
        Kind::Count { min: 0, max: 100_000_000 },
        Optional,
        "Fine-tuning: steps over which the learning rate rises; else a tenth of all. A cosine to 0 follows",
    ),
    key("ft_lr", Kind::Number(Range::positive()), Default("1e-5"), "Fine-tuning: peak learning rate"),
    key(
        "ft_layer_decay",
        Kind::Number(Range::positive()),
        Default("1"),
        "Fine-tuning: factor on the learning rate, once for each layer above; 1 gives all layers the same",
    ),
    key(
        "ft_weight_decay",
        Kind::Number(Range { min: 0.0, min_allowed: true, below: f64::INFINITY }),
        Default("0.1"),
        "Fine-tuning: AdamW weight decay, on matrices only",
    ),
    key("ft_grad_clip_norm", Kind::Number(Range::positive()), Default("1"), "Fine-tuning: largest gradient norm"),
    key("ft_batch", Kind::Count { min: 1, max: 1_000_000 }, Default("128"), "Fine-tuning: images a step"),
    key(
        "ft_augmentation",
        Kind::Choice(&["none", "random_resized_crop", "flip_shift"]),
        Default("random_resized_crop"),
        "Fine-tuning: random change of a training image",
    ),
    key("ft_seed", Kind::Count { min: 0, max: COUNT_MAX }, Default("0"), "Fine-tuning: seed of order and augmentation"),
];
