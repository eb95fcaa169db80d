//! Which observations a law goes through.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::extent;

/// A named policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Points {
    /// Every observation.
    All,
    /// Those that no other beats in both C and E, at their true C.
    Pareto,
    /// The 2022 study's rule: the lowest E in each of K equal-width bins of log10 C, at the bin's *centre*, not at the
    /// winner's C. Bins cover [min, max + 0.1]; empty ones are dropped. (LAION-AI/scaling-laws-openclip, figures.ipynb,
    /// cell 4; K = 5.)
    Bins(usize),
}

impl fmt::Display for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Points::All => f.write_str("all"),
            Points::Pareto => f.write_str("pareto"),
            Points::Bins(bins) => write!(f, "bins:{bins}"),
        }
    }
}

impl Serialize for Points {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Points {
    type Err = String;

    fn from_str(text: &str) -> Result<Points, String> {
        match text {
            "all" => Ok(Points::All),
            "pareto" => Ok(Points::Pareto),
            _ => text
                .strip_prefix("bins:")
                .and_then(|bins| bins.parse().ok())
                .filter(|bins| (super::POINTS_MIN..=100).contains(bins))
                .map(Points::Bins)
                .ok_or_else(|| {
                    "allowed are all, pareto and bins:K with K from 3 to 100, for example bins:5".to_owned()
                }),
        }
    }
}

/// One point that a law goes through.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// C; of a bin, its centre.
    pub compute: f64,
    /// E.
    pub error: f64,
    /// Which observation it is.
    pub observation: usize,
}

/// Selects from pairs (C, E), all positive and finite. Points come in ascending C.
pub fn select(points: Points, pairs: &[(f64, f64)]) -> Vec<Point> {
    match points {
        Points::All => in_order(pairs),
        Points::Pareto => {
            let mut selected: Vec<Point> = Vec::new();
            for point in in_order(pairs) {
                // Equal in both is not beaten: a job drawn twice in a resample counts twice.
                let beaten = selected.last().is_some_and(|best| {
                    (point.compute, point.error) != (best.compute, best.error) && point.error >= best.error
                });
                if !beaten {
                    selected.push(point);
                }
            }
            selected
        }
        Points::Bins(bins) => lowest_per_bin(bins, pairs),
    }
}

/// Ascending in C, then in E.
fn in_order(pairs: &[(f64, f64)]) -> Vec<Point> {
    let mut points: Vec<Point> = pairs
        .iter()
        .enumerate()
        .map(|(observation, &(compute, error))| Point { compute, error, observation })
        .collect();
    points.sort_by(|a, b| a.compute.total_cmp(&b.compute).then(a.error.total_cmp(&b.error)));
    points
}

fn lowest_per_bin(bins: usize, pairs: &[(f64, f64)]) -> Vec<Point> {
    let (low, high) = extent(pairs.iter().map(|pair| pair.0.log10()));
    let width = (high + 0.1 - low) / bins as f64;
    let mut lowest: Vec<Option<Point>> = vec![None; bins];
    for (observation, &(compute, error)) in pairs.iter().enumerate() {
        let bin = (((compute.log10() - low) / width) as usize).min(bins - 1);
        if lowest[bin].is_none_or(|best| error < best.error) {
            let centre = low + (bin as f64 + 0.5) * width;
            lowest[bin] = Some(Point { compute: 10f64.powf(centre), error, observation });
        }
    }
    lowest.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs() -> impl Strategy<Value = Vec<(f64, f64)>> {
        proptest::collection::vec((1e3..1e12f64, 0.01..1.0f64), 0..40)
    }

    proptest! {
        #[test]
        fn pareto_points_are_those_that_nothing_beats(pairs in pairs()) {
            let selected: Vec<usize> = select(Points::Pareto, &pairs).iter().map(|p| p.observation).collect();
            for (i, a) in pairs.iter().enumerate() {
                let beaten = pairs.iter().any(|b| b.0 <= a.0 && b.1 <= a.1 && b != a);
                prop_assert_eq!(selected.contains(&i), !beaten);
            }
        }

        #[test]
        fn a_bin_keeps_its_lowest_error(pairs in pairs(), bins in 3usize..9) {
            let points = select(Points::Bins(bins), &pairs);
            prop_assert!(points.len() <= bins && (pairs.is_empty() || !points.is_empty()));
            let best = pairs.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
            prop_assert!(pairs.is_empty() || points.iter().any(|p| p.error.total_cmp(&best).is_eq()));
        }

        #[test]
        fn a_policy_reads_back_as_written(bins in 3usize..=100) {
            for points in [Points::All, Points::Pareto, Points::Bins(bins)] {
                prop_assert_eq!(points.to_string().parse::<Points>(), Ok(points));
            }
        }
    }

    #[test]
    fn other_policies_are_refused() {
        for text in ["", "hull", "bins", "bins:", "bins:2", "bins:101", "bins:-1", "ALL"] {
            assert!(text.parse::<Points>().is_err(), "{text}");
        }
    }
}
