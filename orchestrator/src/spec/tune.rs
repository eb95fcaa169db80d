//! `tune`: a ladder of learning rates for each model, from which one is chosen before the cells are planned.

use super::Spec;
use super::cells::Cell;
use super::check::Once;
use super::error::Path;
use super::keys::Need::{Default, Optional};
use super::keys::{Key, Kind, Range, key};

pub(super) static TUNE: &[Key] = &[
    key(
        "lr_factors",
        Kind::OneOrMore(&Kind::Number(Range::positive())),
        Default("[0.25, 0.5, 1, 2, 4]"),
        "Learning rates to try for each model, as factors on what the recipe gives it; at least two",
    ),
    key(
        "evaluation",
        Kind::Text,
        Optional,
        "Entry of `evaluations` that decides, by its `name`, or its `pool` where it has none; else the only one",
    ),
    key(
        "metric",
        Kind::Text,
        Default("loss@1024"),
        "Metric that decides: the least of a loss (`loss...`), the most of any other",
    ),
    key(
        "seeds",
        Kind::Count { min: 1, max: 100 },
        Default("1"),
        "Jobs for each learning rate, which differ in their seed: from two on, noise is told from a better one",
    ),
];

/// Of a factor from the one below it: nearer ones could round to the same learning rate.
const STEP_MIN: f64 = 1.01;

/// Behind a sweep's name, the name of its ladder.
const SUFFIX: &str = "-tune";
/// Characters of a name.
const NAME_MAX: usize = 64;

/// How to choose learning rates.
#[derive(Debug, Clone, PartialEq)]
pub struct Tune {
    /// On the recipe's learning rate, ascending.
    pub factors: Vec<f64>,
    /// Who decides, as written.
    pub evaluation: Option<String>,
    /// By which metric.
    pub metric: String,
    /// Jobs of a rung.
    pub seeds: u64,
}

impl Tune {
    /// Name of the ladder of this sweep.
    pub fn ladder_name(sweep: &str) -> String {
        format!("{sweep}{SUFFIX}")
    }

    /// Whether less is better.
    pub fn lower_is_better(&self) -> bool {
        self.metric.starts_with("loss")
    }

    /// Which entry of `evaluations` decides.
    pub fn evaluation_index(&self, spec: &Spec) -> Option<usize> {
        match &self.evaluation {
            None => (spec.evaluations.len() == 1).then_some(0),
            Some(name) => spec.evaluations.iter().position(|entry| entry.label() == name),
        }
    }
}

/// Contradictions.
pub(super) fn check(cells: &[Cell], spec: &Spec, once: &mut Once) {
    let Some(tune) = &spec.tune else { return };
    let at = |key: &str| Path::keys(&["tune", key]);
    if spec.name.len() + SUFFIX.len() > NAME_MAX {
        let message = format!("the ladder of `{}` would have a name of more than {NAME_MAX} characters", spec.name);
        let label =
            format!("at most {} with `tune`, whose sweep is called so with `{SUFFIX}`", NAME_MAX - SUFFIX.len());
        once.at(Path::keys(&["name"]), message, label);
    }
    if tune.factors.len() < 2 {
        once.at(at("lr_factors"), "a ladder of one rung leaves nothing to choose".to_owned(), "at least two factors");
    }
    let mut pairs = tune.factors.iter().zip(tune.factors.iter().skip(1));
    if let Some((lower, upper)) = pairs.find(|(lower, upper)| *upper / *lower < STEP_MIN) {
        let message = format!("{lower} and {upper} are the same learning rate, as good as");
        once.at(at("lr_factors"), message, "factors at least 1 % apart");
    }
    if cells.iter().all(Cell::measures_only) {
        let message = "no job trains here, so there is no learning rate to tune".to_owned();
        once.at(Path::keys(&["tune"]), message, "leave it out");
    }
    let names = || {
        let names = spec.evaluations.iter().map(|entry| format!("`{}`", entry.label()));
        names.collect::<Vec<_>>().join(", ")
    };
    let Some(index) = tune.evaluation_index(spec) else {
        match &tune.evaluation {
            _ if spec.evaluations.is_empty() => {
                let message = "nothing is measured that could decide between learning rates".to_owned();
                once.at(Path::keys(&["tune"]), message, "add `evaluations`");
            }
            Some(name) => {
                let message = format!("`evaluations` has no entry `{name}`");
                once.at(at("evaluation"), message, format!("one of {}", names()));
            }
            None => {
                let message = "several evaluations could decide between learning rates".to_owned();
                once.at(Path::keys(&["tune"]), message, format!("add `evaluation:` with one of {}", names()));
            }
        }
        return;
    };
    let entry = &spec.evaluations[index];
    let name = entry.label();
    if entry.every_checkpoint {
        let message = format!("`{name}` is measured beside training, and a ladder is decided by what its jobs measure");
        let label = "leave `evaluate: every_checkpoint` out of that entry, or let another one decide";
        once.at(Path::keys(&["evaluations"]).index(index).key("evaluate"), message, label);
    }
    if tune.lower_is_better() && !entry.tasks.contains(&protocol::EvaluationTask::ContrastiveLoss) {
        let message =
            format!("`{name}` is not measured by `{}`, which is to decide between learning rates", tune.metric);
        let label = "add `contrastive_loss` to its tasks, or name another metric: `tune.metric`";
        once.at(Path::keys(&["evaluations"]).index(index).key("tasks"), message, label);
    }
}
