//! Keys of an evaluation.

use protocol::EvaluationTask;

use super::keys::Need::{Default, Optional, Required};
use super::keys::{COUNT_MAX, Key, Kind, Range, key};

const TASKS: [&str; 4] = [
    EvaluationTask::ALL[0].name(),
    EvaluationTask::ALL[1].name(),
    EvaluationTask::ALL[2].name(),
    EvaluationTask::ALL[3].name(),
];

/// Keys of an evaluation that speak of its linear probe.
pub(super) const PROBE: [&str; 8] =
    ["train", "validation", "shots", "choose", "probe_lr", "probe_epochs", "probe_batch", "probe_seed"];

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
        "Linear probe: folder of shards with classes to train it on; needed for the task",
    ),
    key("validation", Kind::Text, Optional, "Linear probe: shards to choose its settings on; else a fifth of `train`"),
    key(
        "shots",
        Kind::OneOrMore(&Kind::DataSize),
        Default("all"),
        "Linear probe: images of each class to train on, or `all`; one probe each",
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
];
