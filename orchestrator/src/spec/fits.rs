//! Laws that a spec names: `sweep launch` fits them when the last result is there.

use super::build::{Section, count, text};
use super::keys::Need::{Default, Optional, Required};
use super::keys::{COUNT_MAX, Key, Kind, key};
use crate::fit::{Convention, LawName, Objective, Points, RESAMPLES};

/// A law to fit: what `sweep fit` has as options, with its defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct FitAsked {
    /// `DATASET/METRIC`.
    pub metric: String,
    /// The form.
    pub law: LawName,
    /// Which points it goes through.
    pub points: Points,
    /// What is minimised.
    pub objective: Objective,
    /// Convention of compute; else the first that most rows have.
    pub compute: Option<Convention>,
    /// SQL condition on the view `observation`.
    pub condition: Option<String>,
    /// Every measured checkpoint instead of the end of each job.
    pub checkpoints: bool,
    /// `DATASET/METRIC` of a loss, for laws that take one.
    pub proxy: Option<String>,
    /// Resamples behind the intervals.
    pub resamples: usize,
    /// Seed of the resamples and of random starts.
    pub seed: u64,
}

/// `DATASET/METRIC`.
pub(super) const METRIC: Kind =
    Kind::Checked(metric, "a data set and a metric, such as `emoji-val/image_retrieval_recall@5`");

pub(super) static FITS: &[Key] = &[
    key("metric", METRIC, Required, "What to fit: DATASET/METRIC"),
    key("law", Kind::Checked(reads::<LawName>, "a law that `sweep laws` lists"), Default("power"), "The form"),
    key(
        "points",
        Kind::Checked(reads::<Points>, "`all`, `pareto`, `hull`, `last` or `bins:K`"),
        Default("all"),
        "Which points the law goes through",
    ),
    key(
        "objective",
        Kind::Checked(
            reads::<Objective>,
            "`ls-log`, `ls`, `ls-logit`, `huber:DELTA`, `lad` or `asymmetric:DELTA:OVER`",
        ),
        Default("ls-log"),
        "What is minimised",
    ),
    key(
        "compute",
        Kind::Choice(&["gmacs_samples", "train_flops", "six_nd"]),
        Optional,
        "Convention of compute; else the first that most rows have",
    ),
    key("where", Kind::Text, Optional, "SQL condition on the view `observation`; else all rows"),
    key(
        "rows",
        Kind::Choice(&["final", "checkpoints"]),
        Default("final"),
        "The end of each job, or every measured checkpoint",
    ),
    key("proxy", METRIC, Optional, "A loss of the same jobs, for laws that take one"),
    key("resamples", Kind::Count { min: 0, max: 100_000 }, Default("1000"), "Resamples behind the intervals"),
    key("seed", Kind::Count { min: 0, max: COUNT_MAX }, Default("0"), "Seed of the resamples and of random starts"),
];

fn reads<T: std::str::FromStr>(text: &str) -> Result<(), String>
where
    T::Err: std::fmt::Display,
{
    text.parse::<T>().map(drop).map_err(|error| error.to_string())
}

fn metric(text: &str) -> Result<(), String> {
    let parts = text.split_once('/').filter(|(dataset, metric)| !dataset.is_empty() && !metric.is_empty());
    parts.map(drop).ok_or_else(|| "name the data set too, with `/` between them".to_owned())
}

/// A section whose texts were checked.
pub(super) fn build(mut section: Section) -> FitAsked {
    let mut read = |key: &str| text(section.remove(key));
    FitAsked {
        metric: read("metric").expect("required"),
        law: read("law").and_then(|word| word.parse().ok()).unwrap_or(LawName::Power(crate::fit::Axis::C)),
        points: read("points").and_then(|word| word.parse().ok()).unwrap_or(Points::All),
        objective: read("objective").and_then(|word| word.parse().ok()).unwrap_or(Objective::LS_LOG),
        compute: read("compute").and_then(|word| word.parse().ok()),
        condition: read("where"),
        checkpoints: read("rows").as_deref() == Some("checkpoints"),
        proxy: read("proxy"),
        resamples: count(section.remove("resamples")).map_or(RESAMPLES, |count| count as usize),
        seed: count(section.remove("seed")).unwrap_or(0),
    }
}
