//! What a job's result would do if the job were run again: seed noise, measured on replicates, and the noise of a
//! finite evaluation.
//!
//! `Var(ln y) = v_seed(y or N) + v_eval`, `v_eval = (standard error / y)^2 = (1 - y) / (y count)` for a fraction y over
//! `count` test items (binomial). `v_seed` is the pooled variance within groups of replicates less the mean `v_eval`
//! there, not below zero: replicates' spread holds both.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::objective::Space;
use crate::observation::{Observation, Response};

/// Groups of replicates from which on the variance may depend on something.
const GROUPS_FOR_TREND: usize = 6;
/// Likelihood ratio from which on it does: chi-squared of one degree of freedom, 5 %.
const TREND_THRESHOLD: f64 = 3.841;

/// How rows are weighted in a fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weighting {
    /// All the same.
    #[default]
    Equal,
    /// By 1 / variance of the noise model, mean 1.
    Noise,
}

impl Weighting {
    /// As on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Weighting::Equal => "equal",
            Weighting::Noise => "noise",
        }
    }
}

impl fmt::Display for Weighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Weighting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl FromStr for Weighting {
    type Err = String;

    fn from_str(text: &str) -> Result<Weighting, String> {
        match text {
            "equal" => Ok(Weighting::Equal),
            "noise" => Ok(Weighting::Noise),
            _ => Err("allowed are equal and noise".to_owned()),
        }
    }
}

/// What the seed variance may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrendOn {
    /// ln y.
    Response,
    /// ln N.
    Parameters,
}

/// `ln v_seed = ln(pooled) + slope * (z - centre)`, z as `on` says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Trend {
    /// What z is.
    pub on: TrendOn,
    /// Of ln variance.
    pub slope: f64,
    /// z at which the variance is the model's `seed_variance`.
    pub centre: f64,
}

/// Variance of ln y between runs of the same job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NoiseModel {
    /// Of seeds; `None` without replicates.
    pub seed_variance: Option<f64>,
    /// Whether it depends on something.
    pub trend: Option<Trend>,
    /// Groups of replicates behind it.
    pub groups: usize,
    /// Degrees of freedom behind it: replicates less groups.
    pub degrees: usize,
    /// Rows whose evaluation noise is known.
    pub evaluated: usize,
    /// Of so many rows.
    pub rows: usize,
    /// Whether y is a fraction, whose noise is binomial.
    pub response: Response,
}

/// One group of replicates.
struct Group {
    variance: f64,
    degrees: f64,
    ln_y: f64,
    ln_n: f64,
    evaluation: f64,
}

impl NoiseModel {
    /// Learns the model. Replicates are rows equal in N, D, U and C of different jobs.
    pub fn of(observations: &[Observation], response: Response) -> NoiseModel {
        let groups = groups(observations, response);
        let degrees: f64 = groups.iter().map(|group| group.degrees).sum();
        let mean = |of: fn(&Group) -> f64| groups.iter().map(|group| group.degrees * of(group)).sum::<f64>() / degrees;
        let pooled = mean(|group| group.variance);
        let evaluation = mean(|group| group.evaluation);
        let mut model = NoiseModel {
            seed_variance: (!groups.is_empty()).then(|| (pooled - evaluation).max(0.0)),
            trend: None,
            groups: groups.len(),
            degrees: degrees as usize,
            evaluated: observations.iter().filter(|row| evaluation_variance(row, response).is_some()).count(),
            rows: observations.len(),
            response,
        };
        if groups.len() >= GROUPS_FOR_TREND && pooled > evaluation {
            let candidates = [
                (TrendOn::Response, groups.iter().map(|group| group.ln_y).collect::<Vec<f64>>()),
                (TrendOn::Parameters, groups.iter().map(|group| group.ln_n).collect()),
            ];
            let best = candidates
                .into_iter()
                .filter_map(|(on, z)| trend(&groups, &z).map(|(level, slope, gain)| (on, z, level, slope, gain)))
                .max_by(|a, b| a.4.total_cmp(&b.4));
            if let Some((on, z, level, slope, _)) = best {
                let centre = z.iter().sum::<f64>() / z.len() as f64;
                model.seed_variance = Some((level.exp() - evaluation).max(0.0));
                model.trend = Some(Trend { on, slope, centre });
            }
        }
        model
    }

    /// Seed variance of ln y at a place.
    pub fn seed_variance_at(&self, ln_y: f64, ln_n: f64) -> Option<f64> {
        let level = self.seed_variance?;
        let z = self.trend.map_or(0.0, |trend| {
            let at = match trend.on {
                TrendOn::Response => ln_y,
                TrendOn::Parameters => ln_n,
            };
            // Beyond the replicates a line in the logarithm soon promises too much or too little.
            if at.is_finite() { (trend.slope * (at - trend.centre)).clamp(-3.0, 3.0) } else { 0.0 }
        });
        Some(level * z.exp())
    }

    /// Variance of ln y of a row; `None` where neither part is known.
    pub fn variance(&self, row: &Observation) -> Option<f64> {
        self.variance_or(row, None)
    }

    /// The same with `otherwise` where the row's evaluation noise is not known.
    fn variance_or(&self, row: &Observation, otherwise: Option<f64>) -> Option<f64> {
        let seed = self.seed_variance_at(row.error.ln(), row.parameters.ln());
        let evaluation = evaluation_variance(row, self.response).or(otherwise);
        match (seed, evaluation) {
            (None, None) => None,
            _ => {
                Some(seed.unwrap_or(0.0) + evaluation.unwrap_or(0.0)).filter(|total| total.is_finite() && *total > 0.0)
            }
        }
    }

    /// Weights of the rows of a fit whose residuals are taken in `space`: 1 / variance there, mean 1. A row whose
    /// evaluation noise is not known counts with the largest that is. `None` where the variance of some row is not
    /// known.
    pub fn weights(&self, observations: &[Observation], space: Space) -> Option<Vec<f64>> {
        let known = observations.iter().filter_map(|row| evaluation_variance(row, self.response));
        let worst = known.fold(None, |worst: Option<f64>, one| Some(worst.map_or(one, |worst| worst.max(one))));
        let inverse: Option<Vec<f64>> = observations
            .iter()
            .map(|row| {
                let (_, slope, _) = space.at(row.error.ln());
                self.variance_or(row, worst)
                    .map(|variance| 1.0 / (variance * slope * slope))
                    .filter(|w| w.is_finite() && *w > 0.0)
            })
            .collect();
        let inverse = inverse?;
        let mean = inverse.iter().sum::<f64>() / inverse.len() as f64;
        (mean.is_finite() && mean > 0.0).then(|| inverse.iter().map(|weight| weight / mean).collect())
    }
}

impl fmt::Display for NoiseModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seed_variance {
            Some(variance) => write!(
                f,
                "seed noise {:.2} % of y, from {} group{} of replicates ({} degrees of freedom)",
                100.0 * variance.sqrt(),
                self.groups,
                if self.groups == 1 { "" } else { "s" },
                self.degrees
            )?,
            None => f.write_str("no replicates: seed noise is not known")?,
        }
        match self.trend {
            Some(Trend { on: TrendOn::Response, slope, .. }) => write!(f, ", variance as y^{slope:.2}")?,
            Some(Trend { on: TrendOn::Parameters, slope, .. }) => write!(f, ", variance as N^{slope:.2}")?,
            None => {}
        }
        match self.evaluated {
            0 => f.write_str("; evaluation noise is not known"),
            n if n == self.rows => f.write_str("; evaluation noise of every row"),
            n => write!(f, "; evaluation noise of {n} of {} rows", self.rows),
        }
    }
}

/// Variance of ln y that a finite evaluation gives: from the standard error, or binomial from the count.
pub(crate) fn evaluation_variance(row: &Observation, response: Response) -> Option<f64> {
    let y = row.error;
    let from_error = row.standard_error.filter(|error| *error > 0.0).map(|error| (error / y).powi(2));
    let from_count = || match response {
        Response::Fraction => binomial_variance(y, row.count?),
        Response::Loss => None,
    };
    from_error.or_else(from_count).filter(|variance| variance.is_finite())
}

/// Of ln y, y a share of `count` items.
pub fn binomial_variance(y: f64, count: f64) -> Option<f64> {
    let variance = (1.0 - y) / (y * count);
    (variance.is_finite() && variance > 0.0).then_some(variance)
}

fn groups(observations: &[Observation], response: Response) -> Vec<Group> {
    let mut cells: BTreeMap<[u64; 4], BTreeMap<&str, Vec<&Observation>>> = BTreeMap::new();
    for row in observations.iter().filter(|row| row.error > 0.0 && row.error.is_finite()) {
        let cell = [row.parameters, row.samples_seen, row.unique_samples, row.compute].map(f64::to_bits);
        cells.entry(cell).or_default().entry(&row.job_key).or_default().push(row);
    }
    let group = |jobs: BTreeMap<&str, Vec<&Observation>>| {
        let rows: Vec<&Observation> = jobs.into_values().map(|rows| rows[0]).collect();
        let count = rows.len() as f64;
        let mean = rows.iter().map(|row| row.error.ln()).sum::<f64>() / count;
        let squares: f64 = rows.iter().map(|row| (row.error.ln() - mean).powi(2)).sum();
        let evaluation = rows.iter().map(|row| evaluation_variance(row, response).unwrap_or(0.0)).sum::<f64>() / count;
        (rows.len() > 1).then(|| Group {
            variance: squares / (count - 1.0),
            degrees: count - 1.0,
            ln_y: mean,
            ln_n: rows[0].parameters.ln(),
            evaluation,
        })
    };
    cells.into_values().filter_map(group).collect()
}

/// Maximum likelihood of `ln v = level + slope (z - mean z)` where `degrees * variance / v` is chi-squared: level,
/// slope and twice the gain in log likelihood over slope 0, if that is beyond chance.
fn trend(groups: &[Group], z: &[f64]) -> Option<(f64, f64, f64)> {
    let centre = z.iter().sum::<f64>() / z.len() as f64;
    let z: Vec<f64> = z.iter().map(|z| z - centre).collect();
    let degrees: f64 = groups.iter().map(|group| group.degrees).sum();
    let pooled = groups.iter().map(|group| group.degrees * group.variance).sum::<f64>() / degrees;
    if !(z.iter().all(|z| z.is_finite()) && z.iter().any(|z| z.abs() > 1e-9) && pooled > 0.0) {
        return None;
    }
    let deviance = |level: f64, slope: f64| -> f64 {
        let each = |(group, z): (&Group, &f64)| {
            let ln_v = level + slope * z;
            group.degrees * (ln_v + group.variance * (-ln_v).exp())
        };
        groups.iter().zip(&z).map(each).sum()
    };
    let (mut level, mut slope) = (pooled.ln(), 0.0);
    let flat = deviance(level, slope);
    for _ in 0..50 {
        // Fisher scoring.
        let (mut a, mut b, mut aa, mut ab, mut bb) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (group, z) in groups.iter().zip(&z) {
            let excess = group.degrees * (group.variance * (-(level + slope * z)).exp() - 1.0);
            a += excess;
            b += excess * z;
            aa += group.degrees;
            ab += group.degrees * z;
            bb += group.degrees * z * z;
        }
        let determinant = aa * bb - ab * ab;
        let (mut up, mut along) = ((a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant);
        let here = deviance(level, slope);
        while deviance(level + up, slope + along) > here && along.abs() + up.abs() > 1e-12 {
            (up, along) = (0.5 * up, 0.5 * along);
        }
        level += up;
        slope += along;
        if up.abs() + along.abs() < 1e-10 {
            break;
        }
    }
    let gain = flat - deviance(level, slope);
    (gain > TREND_THRESHOLD && slope.is_finite()).then_some((level, slope, gain))
}
