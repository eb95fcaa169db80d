//! How well held-out rows were predicted.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// A held-out row and what a law that had not seen it said.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Held {
    /// The row, an index into [`BackTest::observations`](super::BackTest::observations).
    pub row: usize,
    /// Its job.
    pub job_key: String,
    /// E measured.
    pub observed: f64,
    /// E predicted.
    pub predicted: f64,
    /// Stated 95 % prediction interval: that of a new job's result, not of the law.
    pub interval: Option<(f64, f64)>,
    /// How far beyond the training rows: on the axis where it is farthest out, the ratio to the nearest end of their
    /// range; 1 among them.
    pub distance: f64,
}

impl Held {
    fn ln_miss(&self) -> f64 {
        self.predicted.ln() - self.observed.ln()
    }

    fn relative_miss(&self) -> f64 {
        self.predicted / self.observed - 1.0
    }
}

/// Scores over held-out rows. All are of E, so "too high" means that the law was too pessimistic.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scores {
    /// Held-out rows; a row held out at several cuts counts at each.
    pub rows: usize,
    /// Distinct jobs among them.
    pub jobs: usize,
    /// Root of the mean squared `ln yhat - ln y` (Alabdulmohsin et al. 2022, section 4). About a relative error.
    pub rmsle: f64,
    /// Mean `|yhat - y| / y` (Choshen et al. 2025).
    pub absolute: f64,
    /// Mean `(yhat - y) / y`: above zero where predictions are too high.
    pub signed: f64,
    /// `1 - sum (yhat - y)^2 / sum (y - mean)^2` over the held-out rows (SLDBench): below zero where their own mean is
    /// the better prediction. `None` if they do not vary.
    pub r2: Option<f64>,
    /// Share of rows within their stated 95 % prediction interval; `None` if none was stated.
    pub coverage: Option<f64>,
    /// Share of `pairs` that were ranked right; a predicted tie is half right. `None` without pairs.
    pub decisions: Option<f64>,
    /// Pairs of held-out jobs of the same cut, of unequal E, each job by its last row (most samples seen) there.
    pub pairs: usize,
    /// Root mean square of `ln distance`, as a ratio.
    pub distance: f64,
    /// The farthest row's distance.
    pub distance_max: f64,
}

impl Scores {
    /// Over `cuts`, each the held-out rows of one cut, rows of a job in ascending D. `None` of no rows.
    pub fn of<'a>(cuts: impl IntoIterator<Item = &'a [Held]>) -> Option<Scores> {
        let cuts: Vec<&[Held]> = cuts.into_iter().collect();
        let held: Vec<&Held> = cuts.iter().copied().flatten().collect();
        if held.is_empty() {
            return None;
        }
        let count = held.len() as f64;
        let mean = |value: &dyn Fn(&Held) -> f64| held.iter().map(|row| value(row)).sum::<f64>() / count;
        let middle = mean(&|row| row.observed);
        let spread = mean(&|row| (row.observed - middle).powi(2));
        let missed = mean(&|row| (row.observed - row.predicted).powi(2));
        let stated: Vec<bool> = held
            .iter()
            .filter_map(|row| row.interval.map(|(low, high)| low <= row.observed && row.observed <= high))
            .collect();
        let (mut right, mut pairs) = (0.0, 0);
        for cut in &cuts {
            let (cut_right, cut_pairs) = ranked(cut);
            right += cut_right;
            pairs += cut_pairs;
        }
        Some(Scores {
            rows: held.len(),
            jobs: held.iter().map(|row| row.job_key.as_str()).collect::<BTreeSet<_>>().len(),
            rmsle: mean(&|row| row.ln_miss().powi(2)).sqrt(),
            absolute: mean(&|row| row.relative_miss().abs()),
            signed: mean(&Held::relative_miss),
            r2: (spread > 1e-24 * middle * middle).then(|| 1.0 - missed / spread),
            coverage: (!stated.is_empty())
                .then(|| stated.iter().filter(|&&inside| inside).count() as f64 / stated.len() as f64),
            decisions: (pairs > 0).then(|| right / pairs as f64),
            pairs,
            distance: mean(&|row| row.distance.ln().powi(2)).sqrt().exp(),
            distance_max: held.iter().map(|row| row.distance).fold(1.0, f64::max),
        })
    }
}

/// Pairs of jobs ranked right, and pairs.
fn ranked(cut: &[Held]) -> (f64, usize) {
    let last: BTreeMap<&str, &Held> = cut.iter().map(|row| (row.job_key.as_str(), row)).collect();
    let last: Vec<&Held> = last.into_values().collect();
    let (mut right, mut pairs) = (0.0, 0);
    for (i, a) in last.iter().enumerate() {
        for b in &last[..i] {
            let measured = a.observed.ln() - b.observed.ln();
            if measured == 0.0 {
                continue;
            }
            let predicted = a.predicted.ln() - b.predicted.ln();
            pairs += 1;
            right += if predicted.abs() <= 1e-12 {
                0.5
            } else {
                f64::from(predicted.is_sign_positive() == measured.is_sign_positive())
            };
        }
    }
    (right, pairs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn held(job: usize, observed: f64, predicted: f64) -> Held {
        Held {
            row: job,
            job_key: format!("{job:04}"),
            observed,
            predicted,
            interval: Some((predicted * 0.9, predicted * 1.1)),
            distance: 2.0,
        }
    }

    #[test]
    fn scores_are_what_they_say() {
        let cut = [held(0, 0.5, 0.55), held(1, 0.4, 0.4), held(2, 0.2, 0.45)];
        let scores = Scores::of([&cut[..]]).unwrap();
        let expected = ((1.1f64.ln().powi(2) + 2.25f64.ln().powi(2)) / 3.0).sqrt();
        assert!((scores.rmsle - expected).abs() < 1e-12);
        assert!((scores.absolute - (0.1 + 0.0 + 1.25) / 3.0).abs() < 1e-12);
        assert!((scores.signed - scores.absolute).abs() < 1e-12);
        // 0 over 1 and 0 over 2 are right, 1 over 2 is not.
        assert_eq!((scores.pairs, scores.decisions), (3, Some(2.0 / 3.0)));
        assert_eq!(scores.coverage, Some(2.0 / 3.0));
        assert!((scores.distance - 2.0).abs() < 1e-12 && (scores.distance_max - 2.0).abs() < 1e-12);
        let spread: f64 = [0.5f64, 0.4, 0.2].iter().map(|y| (y - 1.1 / 3.0).powi(2)).sum();
        assert!((scores.r2.unwrap() - (1.0 - (0.0025 + 0.0625) / spread)).abs() < 1e-12);
        assert_eq!(Scores::of([&cut[..0]]), None);
        let one = Scores::of([&cut[..1]]).unwrap();
        assert_eq!((one.r2, one.decisions), (None, None));
        // Pairs are of one cut: none across.
        assert_eq!(Scores::of([&cut[..1], &cut[1..]]).unwrap().pairs, 1);
    }

    #[test]
    fn a_job_is_ranked_by_its_last_row() {
        let cut = [held(0, 0.9, 0.1), held(0, 0.3, 0.3), held(1, 0.4, 0.4)];
        assert_eq!(Scores::of([&cut[..]]).unwrap().decisions, Some(1.0));
    }

    proptest! {
        #[test]
        fn neither_units_nor_order_change_relative_scores(
            rows in proptest::collection::vec((0.05..1.0f64, 0.05..1.0f64), 1..12), unit in 0.01..100.0f64,
        ) {
            let build = |unit: f64| -> Vec<Held> {
                rows.iter().enumerate().map(|(job, row)| held(job, row.0 * unit, row.1 * unit)).collect()
            };
            let (here, mut there) = (build(1.0), build(unit));
            there.reverse();
            let (a, b) = (Scores::of([&here[..]]).unwrap(), Scores::of([&there[..]]).unwrap());
            prop_assert!((a.rmsle - b.rmsle).abs() < 1e-9 && (a.absolute - b.absolute).abs() < 1e-9);
            prop_assert!((a.signed - b.signed).abs() < 1e-9 && a.pairs == b.pairs);
            prop_assert!(a.signed <= a.absolute + 1e-12 && a.decisions.is_none_or(|share| (0.0..=1.0).contains(&share)));
        }
    }
}
