//! What a fit is given: one row a job and metric, and which rows no law can be fitted to.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::law::{Axis, Input};

/// How C was counted. Two conventions are never mixed in one fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Convention {
    /// Forward GMACs a pair (LayerNorm counted) x samples seen, as Cherti et al. 2022.
    GmacsSamples,
    /// 3 x 2 x forward MACs a pair x samples seen, FLOPs.
    TrainFlops,
    /// 6 x parameters x samples seen, FLOPs.
    SixNd,
}

impl Convention {
    /// All of them.
    pub const ALL: [Convention; 3] = [Convention::GmacsSamples, Convention::TrainFlops, Convention::SixNd];

    /// As in SQL and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Convention::GmacsSamples => "gmacs_samples",
            Convention::TrainFlops => "train_flops",
            Convention::SixNd => "six_nd",
        }
    }

    /// Unit, for axes.
    pub fn unit(self) -> &'static str {
        match self {
            Convention::GmacsSamples => "GMACs per pair × samples seen",
            Convention::TrainFlops => "training FLOPs",
            Convention::SixNd => "6ND FLOPs",
        }
    }
}

impl fmt::Display for Convention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Convention {
    type Err = String;

    fn from_str(text: &str) -> Result<Convention, String> {
        Convention::ALL
            .into_iter()
            .find(|convention| convention.as_str() == text)
            .ok_or_else(|| "allowed are gmacs_samples, train_flops and six_nd".to_owned())
    }
}

/// What the error of a metric can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// 1 - accuracy or recall: above 0, at most 1.
    Fraction,
    /// A loss in nats: above 0.
    Loss,
}

impl Response {
    /// By the metric's name, as the SQL view `observation` does.
    pub fn of_metric(metric: &str) -> Response {
        if metric.starts_with("loss") { Response::Loss } else { Response::Fraction }
    }

    /// The error that a value stands for.
    pub fn error_of(self, value: f64) -> f64 {
        match self {
            Response::Fraction => 1.0 - value,
            Response::Loss => value,
        }
    }
}

/// One measured job. NaN stands for an axis that the row does not have.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Observation {
    /// Which job, 64 hex digits for jobs of ours. Resampling is by job.
    pub job_key: String,
    /// Model, or family of models: what one leaves out to see whether a law holds beyond its data.
    pub model: String,
    /// N, parameters.
    pub parameters: f64,
    /// D, samples seen.
    pub samples_seen: f64,
    /// U, unique samples.
    pub unique_samples: f64,
    /// C, in the unit of `convention`.
    pub compute: f64,
    /// A loss of the same job on other data, for laws that take it.
    pub proxy_loss: f64,
    /// How C was counted.
    pub convention: Convention,
    /// E: 1 - accuracy, or a loss in nats.
    pub error: f64,
    /// Of E, over the test items.
    pub standard_error: Option<f64>,
    /// The error that guessing gives.
    pub chance_error: Option<f64>,
    /// Test items behind E.
    pub count: Option<f64>,
    /// What the job cost.
    pub gpu_hours: Option<f64>,
}

impl Observation {
    /// A job of N parameters and D samples, each seen once, with its error: C is 6ND, models are told apart by
    /// N, and nothing else is known.
    pub fn of(job_key: String, parameters: f64, samples_seen: f64, error: f64) -> Observation {
        Observation {
            job_key,
            model: format!("N = {parameters:e}"),
            parameters,
            samples_seen,
            unique_samples: samples_seen,
            compute: 6.0 * parameters * samples_seen,
            proxy_loss: f64::NAN,
            convention: Convention::SixNd,
            error,
            standard_error: None,
            chance_error: None,
            count: None,
            gpu_hours: None,
        }
    }

    /// Where a law is evaluated.
    pub fn input(&self) -> Input {
        Input {
            ln_c: self.compute.ln(),
            ln_n: self.parameters.ln(),
            ln_d: self.samples_seen.ln(),
            ln_u: self.unique_samples.ln(),
            ln_l: self.proxy_loss.ln(),
        }
    }

    /// The value on one axis.
    pub fn on(&self, axis: Axis) -> f64 {
        match axis {
            Axis::C => self.compute,
            Axis::N => self.parameters,
            Axis::D => self.samples_seen,
            Axis::U => self.unique_samples,
            Axis::L => self.proxy_loss,
        }
    }

    /// Whether E is not told apart from guessing: within two standard errors of it, or worse.
    pub fn is_near_chance(&self) -> bool {
        self.chance_error.is_some_and(|chance| self.error + 2.0 * self.standard_error.unwrap_or(0.0) >= chance)
    }
}

/// A row left out of a fit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Exclusion {
    /// The row's job.
    pub job_key: String,
    /// Why.
    pub reason: Reason,
}

/// Why a row is left out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "reason", content = "value", rename_all = "snake_case")]
pub enum Reason {
    /// The row has no positive number on an axis that the law or the selection needs.
    Axis(Axis, String64),
    /// E is not a number.
    ErrorNotFinite(String64),
    /// E is zero or less, which has no logarithm.
    ErrorNotPositive(String64),
    /// E is above 1 where it is a fraction.
    ErrorAboveOne(String64),
    /// E is not below the error of guessing, where the law or the space ends.
    AtCeiling(String64),
    /// The same job, compute and error again.
    Duplicate,
}

/// A number that JSON may have no form for: written as text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct String64(pub f64);

impl Serialize for String64 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Axis(axis, value) => write!(f, "{} {} is not a positive number", axis.describe(), value.0),
            Reason::ErrorNotFinite(value) => write!(f, "error {} is not a number", value.0),
            Reason::ErrorNotPositive(value) => write!(f, "error {} has no logarithm", value.0),
            Reason::ErrorAboveOne(value) => write!(f, "error {} is above 1", value.0),
            Reason::AtCeiling(value) => {
                write!(f, "error {} is not below that of guessing, where the fit ends", value.0)
            }
            Reason::Duplicate => f.write_str("the same row again"),
        }
    }
}

/// Splits rows into those that can be fitted, sorted by job key, C, D and E, and those left out. `axes` are those that
/// the law and the selection need.
pub(super) fn usable(rows: &[Observation], response: Response, axes: &[Axis]) -> (Vec<Observation>, Vec<Exclusion>) {
    let mut seen = HashSet::new();
    let (mut kept, mut excluded) = (Vec::new(), Vec::new());
    for row in rows {
        let off = axes.iter().find(|&&axis| !(row.on(axis).is_finite() && row.on(axis) > 0.0));
        let identity = (row.job_key.clone(), row.compute.to_bits(), row.samples_seen.to_bits(), row.error.to_bits());
        let problem = if let Some(&axis) = off {
            Some(Reason::Axis(axis, String64(row.on(axis))))
        } else if !row.error.is_finite() {
            Some(Reason::ErrorNotFinite(String64(row.error)))
        } else if row.error <= 0.0 {
            Some(Reason::ErrorNotPositive(String64(row.error)))
        } else if response == Response::Fraction && row.error > 1.0 {
            Some(Reason::ErrorAboveOne(String64(row.error)))
        } else if !seen.insert(identity) {
            Some(Reason::Duplicate)
        } else {
            None
        };
        match problem {
            Some(reason) => excluded.push(Exclusion { job_key: row.job_key.clone(), reason }),
            None => kept.push(row.clone()),
        }
    }
    kept.sort_by(|a, b| {
        a.job_key
            .cmp(&b.job_key)
            .then(a.compute.total_cmp(&b.compute))
            .then(a.samples_seen.total_cmp(&b.samples_seen))
            .then(a.error.total_cmp(&b.error))
    });
    excluded.sort_by(|a, b| a.job_key.cmp(&b.job_key));
    (kept, excluded)
}

/// Leaves out rows at or above the error of guessing.
pub(super) fn below(ceiling: f64, rows: Vec<Observation>, excluded: &mut Vec<Exclusion>) -> Vec<Observation> {
    let (kept, out): (Vec<Observation>, Vec<Observation>) = rows.into_iter().partition(|row| row.error < ceiling);
    excluded.extend(
        out.into_iter().map(|row| Exclusion { job_key: row.job_key, reason: Reason::AtCeiling(String64(row.error)) }),
    );
    kept
}
