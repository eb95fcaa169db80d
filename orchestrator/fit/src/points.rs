//! Which observations a law goes through.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::extent;
use crate::law::Axis;
use crate::observation::Observation;

/// A named policy. `pareto`, `hull` and `bins:K` choose by E, so noise leans the law down; `all` and `last` do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Points {
    /// Every observation.
    All,
    /// Those that no other beats in both C and E, at their true C.
    Pareto,
    /// The 2022 study's rule: the lowest E in each of K equal-width bins of log10 C, at the bin's *centre*, not at the
    /// winner's C. Bins cover [min, max + 0.1]; empty ones are dropped. (LAION-AI/scaling-laws-openclip,
    /// figures.ipynb, cell 4; K = 5.)
    Bins(usize),
    /// The lower convex hull of ln E over ln C, from the least C to the least E, at true C: the envelope that no
    /// mixture of two jobs beats. A hull does not depend on how its axes are scaled. Points within [`ON_HULL`] of it
    /// are on it. (The frontier of Gemstones and of LAION's comparisons: McLeish et al. 2025, Nezhurina et al. 2025.)
    Hull,
    /// The last checkpoint of each job, the one with most samples seen: rows of a job whose learning rate has not yet
    /// come down lie above what that compute could have bought (Hoffmann et al. 2022, section 3.1).
    Last,
}

/// How far above the hull, in ln E, a point still lies on it: rounding only.
pub const ON_HULL: f64 = 1e-9;

impl Points {
    /// Axes that the selection needs.
    pub fn axes(self) -> &'static [Axis] {
        match self {
            Points::All => &[],
            Points::Pareto | Points::Bins(_) | Points::Hull => &[Axis::C],
            Points::Last => &[Axis::D],
        }
    }

    /// Whether points are chosen for their low E.
    pub fn is_by_error(self) -> bool {
        matches!(self, Points::Pareto | Points::Bins(_) | Points::Hull)
    }
}

impl fmt::Display for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Points::All => f.write_str("all"),
            Points::Pareto => f.write_str("pareto"),
            Points::Bins(bins) => write!(f, "bins:{bins}"),
            Points::Hull => f.write_str("hull"),
            Points::Last => f.write_str("last"),
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
            "hull" => Ok(Points::Hull),
            "last" => Ok(Points::Last),
            _ => text
                .strip_prefix("bins:")
                .and_then(|bins| bins.parse().ok())
                .filter(|bins| (super::POINTS_MIN..=100).contains(bins))
                .map(Points::Bins)
                .ok_or_else(|| {
                    "allowed are all, last, pareto, hull and bins:K with K from 3 to 100, for example bins:5".to_owned()
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

/// Rows that a policy may select from: for `last`, each job's rows with most samples seen; for the others, all of
/// them. Needs D for `last`.
pub fn candidates(points: Points, observations: Vec<Observation>) -> Vec<Observation> {
    if points != Points::Last {
        return observations;
    }
    let mut last: HashMap<String, f64> = HashMap::new();
    for row in &observations {
        let most = last.entry(row.job_key.clone()).or_insert(row.samples_seen);
        *most = most.max(row.samples_seen);
    }
    observations.into_iter().filter(|row| row.samples_seen >= last[&row.job_key]).collect()
}

/// Selects from pairs (C, E) of [`candidates`], all positive and finite. Points come in ascending C.
pub fn select(points: Points, pairs: &[(f64, f64)]) -> Vec<Point> {
    match points {
        Points::All | Points::Last => in_order(pairs),
        Points::Hull => lower_hull(pairs),
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

/// Andrew's monotone chain over (ln C, ln E), then every point on it: equal points and those along an edge too.
fn lower_hull(pairs: &[(f64, f64)]) -> Vec<Point> {
    let points = in_order(pairs);
    let place = |point: &Point| (point.compute.ln(), point.error.ln());
    let mut chain: Vec<(f64, f64)> = Vec::new();
    for c in points.iter().map(place) {
        if chain.last().is_some_and(|last| last.0 >= c.0) {
            continue; // The same C: the first has the least E.
        }
        while let [.., a, b] = chain.as_slice() {
            if (b.1 - a.1) * (c.0 - a.0) < (c.1 - a.1) * (b.0 - a.0) {
                break;
            }
            chain.pop();
        }
        chain.push(c);
    }
    let end = chain.iter().map(|vertex| vertex.1).fold(f64::INFINITY, f64::min);
    let height = |x: f64| {
        let right = chain.partition_point(|vertex| vertex.0 < x).clamp(1, chain.len() - 1);
        let (a, b) = (chain[right - 1], chain[right]);
        a.1 + (b.1 - a.1) * (x - a.0) / (b.0 - a.0)
    };
    let reach = chain.iter().find(|vertex| vertex.1 <= end).map_or(f64::INFINITY, |vertex| vertex.0);
    let on_hull = |point: &Point| {
        let (x, y) = place(point);
        x <= reach && y <= ON_HULL + if chain.len() < 2 { end } else { height(x) }
    };
    points.into_iter().filter(on_hull).collect()
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
        fn a_hull_is_convex_from_below_and_on_the_pareto_front(pairs in pairs()) {
            let hull = select(Points::Hull, &pairs);
            let place = |p: &Point| (p.compute.ln(), p.error.ln());
            prop_assert!(pairs.is_empty() || !hull.is_empty());
            for edge in hull.windows(2) {
                let (a, b) = (place(&edge[0]), place(&edge[1]));
                prop_assert!(edge[0].error >= edge[1].error * (1.0 - 1e-8));
                for &(compute, error) in &pairs {
                    let x = compute.ln();
                    if x > a.0 && x < b.0 {
                        let chord = a.1 + (b.1 - a.1) * (x - a.0) / (b.0 - a.0);
                        prop_assert!(error.ln() >= chord - 1e-8);
                    }
                }
            }
            let best = pairs.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
            prop_assert!(pairs.is_empty() || hull.iter().any(|p| p.error.total_cmp(&best).is_eq()));
            let front: Vec<usize> = select(Points::Pareto, &pairs).iter().map(|p| p.observation).collect();
            prop_assert!(hull.iter().all(|p| front.contains(&p.observation)));
        }

        #[test]
        fn a_hull_does_not_depend_on_units(pairs in pairs(), c in 1e-3..1e3f64, e in 0.1..10.0f64) {
            let scaled: Vec<(f64, f64)> = pairs.iter().map(|p| (p.0 * c, p.1 * e)).collect();
            let rows = |pairs: &[(f64, f64)]| -> Vec<usize> {
                select(Points::Hull, pairs).iter().map(|p| p.observation).collect()
            };
            prop_assert_eq!(rows(&pairs), rows(&scaled));
        }

        #[test]
        fn a_policy_reads_back_as_written(bins in 3usize..=100) {
            for points in [Points::All, Points::Pareto, Points::Bins(bins), Points::Hull, Points::Last] {
                prop_assert_eq!(points.to_string().parse::<Points>(), Ok(points));
            }
        }
    }

    #[test]
    fn a_power_law_lies_on_its_hull() {
        let pairs: Vec<(f64, f64)> = (0..9).map(|i| 10f64.powi(i)).map(|c| (c, 0.9 * c.powf(-0.1))).collect();
        assert_eq!(select(Points::Hull, &pairs).len(), 9);
        let twice = [(1.0, 0.5), (1.0, 0.5), (10.0, 0.3), (100.0, 0.4), (1.0, 0.6)];
        let rows: Vec<usize> = select(Points::Hull, &twice).iter().map(|p| p.observation).collect();
        assert_eq!(rows, [0, 1, 2]);
        assert!(select(Points::Hull, &[]).is_empty());
        assert_eq!(select(Points::Hull, &[(3.0, 0.2)]).len(), 1);
    }

    #[test]
    fn other_policies_are_refused() {
        for text in ["", "Hull", "last:1", "bins", "bins:", "bins:2", "bins:101", "bins:-1", "ALL"] {
            assert!(text.parse::<Points>().is_err(), "{text}");
        }
    }
}
