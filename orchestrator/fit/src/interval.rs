//! Intervals read off replicates: percentiles, percentiles widened for few jobs, BCa.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::distribution::{normal_cdf, normal_quantile, t_two_sided};

/// Share of what an interval leaves out: 95 % intervals.
pub const ALPHA: f64 = 0.05;

/// A number and its 95 % interval. Where nothing could be resampled the interval is the whole line.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Fitted to all jobs.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Nothing is known of `value`.
    pub fn unknown(value: f64) -> Interval {
        Interval { value, low: f64::NEG_INFINITY, high: f64::INFINITY }
    }

    /// Whether a number lies within, ends included.
    pub fn holds(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }

    /// The same through a growing function.
    #[must_use]
    pub fn map(self, function: impl Fn(f64) -> f64) -> Interval {
        Interval { value: function(self.value), low: function(self.low), high: function(self.high) }
    }

    /// The same without what is impossible.
    #[must_use]
    pub fn within(self, low: f64, high: f64) -> Interval {
        // Not `clamp`, which would panic on NaN bounds.
        self.map(|value| value.max(low).min(high))
    }
}

/// How an interval is read off replicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntervalKind {
    /// The 2.5th and 97.5th percentiles (Efron 1979). Too narrow for few jobs.
    Percentile,
    /// Percentiles `alpha'` and `1 - alpha'` with `alpha' = Phi(-sqrt(n / (n - 1)) t)`, `t` Student's two-sided 5 %
    /// point of n - 1 degrees of freedom, n jobs (Hesterberg 2015, arXiv 1411.5279, section 4.4.2). With n - p in place
    /// of n - 1, p parameters, intervals of laws with many parameters came out too wide (up to 100 % of studies).
    Expanded,
    /// Bias-corrected and accelerated, acceleration by the jackknife over jobs (Efron 1987; Efron and Tibshirani 1993,
    /// equations 14.9 to 14.15).
    Bca,
    /// BCa around the expanded shares.
    ExpandedBca,
}

impl IntervalKind {
    /// All of them.
    pub const ALL: [IntervalKind; 4] =
        [IntervalKind::Percentile, IntervalKind::Expanded, IntervalKind::Bca, IntervalKind::ExpandedBca];

    /// As on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            IntervalKind::Percentile => "percentile",
            IntervalKind::Expanded => "expanded",
            IntervalKind::Bca => "bca",
            IntervalKind::ExpandedBca => "expanded-bca",
        }
    }

    /// Whether it needs the jackknife.
    pub fn is_accelerated(self) -> bool {
        matches!(self, IntervalKind::Bca | IntervalKind::ExpandedBca)
    }
}

impl fmt::Display for IntervalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for IntervalKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl FromStr for IntervalKind {
    type Err = String;

    fn from_str(text: &str) -> Result<IntervalKind, String> {
        IntervalKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| "allowed are percentile, expanded, bca and expanded-bca".to_owned())
    }
}

/// Reads intervals of one kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader {
    kind: IntervalKind,
    /// Normal quantile of the lower end before any correction; `None` where there are no more jobs than parameters.
    z: Option<f64>,
}

impl Reader {
    /// Of a fit of `free` parameters to `jobs` jobs.
    pub(crate) fn new(kind: IntervalKind, jobs: usize, free: usize) -> Reader {
        let z = match kind {
            IntervalKind::Percentile | IntervalKind::Bca => normal_quantile(0.5 * ALPHA),
            IntervalKind::Expanded | IntervalKind::ExpandedBca => {
                let degrees = jobs.saturating_sub(1).max(1);
                -(jobs as f64 / degrees as f64).sqrt() * t_two_sided(ALPHA, degrees)
            }
        };
        Reader { kind, z: (jobs > free).then_some(z) }
    }

    /// The interval around `value`. `jackknife`: the number with each job left out, used by BCa alone. NaN replicates
    /// do not count. An interval that would miss the value is stretched to it; of no more jobs than parameters it is
    /// the whole line.
    pub(crate) fn read(&self, value: f64, mut replicates: Vec<f64>, jackknife: &[f64]) -> Interval {
        let Some(z) = self.z else { return Interval::unknown(value) };
        replicates.retain(|replicate| !replicate.is_nan());
        replicates.sort_by(f64::total_cmp);
        let (below, above) = match self.kind {
            IntervalKind::Percentile | IntervalKind::Expanded => (normal_cdf(z), normal_cdf(-z)),
            IntervalKind::Bca | IntervalKind::ExpandedBca => accelerated(z, value, &replicates, jackknife),
        };
        match (percentile(&replicates, below), percentile(&replicates, above)) {
            (Some(low), Some(high)) => Interval { value, low: low.min(value), high: high.max(value) },
            _ => Interval::unknown(value),
        }
    }
}

/// Percentiles as they are, of draws whose spread is right already.
pub(crate) fn plain(value: f64, draws: impl Iterator<Item = f64>) -> Interval {
    Reader { kind: IntervalKind::Percentile, z: Some(normal_quantile(0.5 * ALPHA)) }.read(value, draws.collect(), &[])
}

/// Shares that BCa reads at; the uncorrected ones, of `z`, where it has no answer.
fn accelerated(z: f64, value: f64, sorted: &[f64], jackknife: &[f64]) -> (f64, f64) {
    let below = sorted.partition_point(|replicate| *replicate < value) as f64;
    let equal = sorted.partition_point(|replicate| *replicate <= value) as f64 - below;
    let bias = normal_quantile((below + 0.5 * equal) / sorted.len() as f64);
    // Without a job whose absence leaves nothing to fit.
    let jackknife: Vec<f64> = jackknife.iter().copied().filter(|value| !value.is_nan()).collect();
    let mean = jackknife.iter().sum::<f64>() / jackknife.len() as f64;
    let (mut squares, mut cubes) = (0.0, 0.0);
    for left_out in &jackknife {
        squares += (mean - left_out).powi(2);
        cubes += (mean - left_out).powi(3);
    }
    let acceleration = if squares > 0.0 { cubes / (6.0 * squares.powf(1.5)) } else { 0.0 };
    let share = |z: f64| normal_cdf(bias + (bias + z) / (1.0 - acceleration * (bias + z)));
    let (low, high) = (share(z), share(-z));
    if low.is_finite() && high.is_finite() && low < high { (low, high) } else { (normal_cdf(z), normal_cdf(-z)) }
}

/// Linear interpolation between order statistics, as numpy's default; `None` of nothing.
pub fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let at = share.clamp(0.0, 1.0) * (sorted.len().checked_sub(1)? as f64);
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    // Two infinities of one sign have no difference.
    if below.total_cmp(&above).is_eq() { Some(below) } else { Some(below + (above - below) * at.fract()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_interval_holds_its_estimate(
            value in -2.0..2.0f64,
            replicates in proptest::collection::vec(-1.0..1.0f64, 0..50),
            jackknife in proptest::collection::vec(-1.0..1.0f64, 0..20),
            free in 0usize..9,
        ) {
            for kind in IntervalKind::ALL {
                let interval = Reader::new(kind, jackknife.len(), free).read(value, replicates.clone(), &jackknife);
                prop_assert!(interval.holds(value), "{kind}: {interval:?}");
            }
        }

        #[test]
        fn expanding_widens(replicates in proptest::collection::vec(-1.0..1.0f64, 2..50), jobs in 3usize..60) {
            let of = |kind| Reader::new(kind, jobs, 2).read(0.0, replicates.clone(), &[]);
            let (narrow, wide) = (of(IntervalKind::Percentile), of(IntervalKind::Expanded));
            prop_assert!(wide.low <= narrow.low && wide.high >= narrow.high);
        }
    }

    #[test]
    fn numbers_that_are_none_do_not_count() {
        let reader = Reader::new(IntervalKind::Percentile, 9, 2);
        assert_eq!(reader.read(0.5, vec![f64::NAN], &[]), Interval::unknown(0.5));
        assert_eq!(reader.read(0.5, vec![f64::NAN, 0.5, 0.5], &[]), Interval { value: 0.5, low: 0.5, high: 0.5 });
    }

    #[test]
    fn bca_corrects_the_bias_of_replicates() {
        // More than half of the replicates lie above the estimate: so may the estimate lie above the truth.
        let replicates: Vec<f64> = (0..1000).map(|i| f64::from(i) / 1000.0).collect();
        let of = |kind| Reader::new(kind, 15, 1).read(0.4, replicates.clone(), &[0.39, 0.4, 0.41]);
        let (plain, bca) = (of(IntervalKind::Percentile), of(IntervalKind::Bca));
        assert!(bca.low < plain.low && bca.high < plain.high, "{plain:?} {bca:?}");
    }
}
