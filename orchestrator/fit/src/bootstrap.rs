//! Pairs bootstrap by job: draw as many jobs as there are, with replacement, select points anew, fit, and read the
//! interval off the percentiles (Efron 1979; Efron and Tibshirani 1993, chapter 13).

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

use crate::law::{Axis, Input, Law};
use crate::observation::Observation;
use crate::points::select;
use crate::sample::Sample;
use crate::solve::{Ending, Newton, Problem, Solver};
use crate::{Options, extent};

/// Points along C of the band.
const BAND_POINTS: usize = 61;

/// A number and its 95 % interval. Where nothing could be resampled the interval is the whole line.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Fitted to all jobs.
    pub value: f64,
    /// 2.5th percentile.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

/// The law at one C.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BandPoint {
    /// C.
    pub compute: f64,
    /// E of the fitted law and its interval.
    pub error: Interval,
}

/// Rows of each job, in the order of job keys.
pub(super) fn clusters(observations: &[Observation]) -> Vec<Vec<usize>> {
    let mut jobs: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (row, observation) in observations.iter().enumerate() {
        jobs.entry(&observation.job_key).or_default().push(row);
    }
    jobs.into_values().collect()
}

/// Parameters of one refit a resample, in order. Each resample has its own stream of ChaCha, keyed by seed and number,
/// so that the answer does not depend on which thread draws it. Resamples that can't be fitted give none.
pub(super) fn replicates(
    law: &dyn Law,
    observations: &[Observation],
    jobs: &[Vec<usize>],
    best: &[f64],
    frozen: &[Option<f64>],
    options: &Options,
) -> Vec<Vec<f64>> {
    (0..options.resamples)
        .into_par_iter()
        .filter_map(|replicate| {
            let mut random = ChaCha8Rng::seed_from_u64(options.seed);
            random.set_stream(replicate as u64);
            let drawn: Vec<usize> =
                (0..jobs.len()).flat_map(|_| &jobs[random.random_range(0..jobs.len())]).copied().collect();
            let pairs: Vec<(f64, f64)> =
                drawn.iter().map(|&row| (observations[row].compute, observations[row].error)).collect();
            let mut points = select(options.points, &pairs);
            for point in &mut points {
                point.observation = drawn[point.observation];
            }
            let sample = Sample::of(observations, &points);
            let problem = Problem { frozen, ..Problem::new(law, &sample, options.objective) };
            let minimum = Newton::default().minimise(&problem, best);
            let fitted = minimum.ending != Ending::Unfinished && minimum.theta.iter().all(|value| value.is_finite());
            fitted.then_some(minimum.theta)
        })
        .collect()
}

/// The 95 % percentile interval around `value`.
pub(super) fn interval(value: f64, replicates: impl Iterator<Item = f64>) -> Interval {
    let mut sorted: Vec<f64> = replicates.collect();
    sorted.sort_by(f64::total_cmp);
    match (percentile(&sorted, 0.025), percentile(&sorted, 0.975)) {
        (Some(low), Some(high)) => Interval { value, low, high },
        _ => Interval { value, low: f64::NEG_INFINITY, high: f64::INFINITY },
    }
}

/// Linear interpolation between order statistics, as numpy's default; `None` of nothing.
pub fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let at = share * (sorted.len().checked_sub(1)? as f64);
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(below + (above - below) * at.fract())
}

/// C from the least observed to ten times the most, evenly in the logarithm.
pub(super) fn grid(pairs: &[(f64, f64)]) -> Vec<f64> {
    let (low, high) = extent(pairs.iter().map(|pair| pair.0.ln()));
    let step = (high + std::f64::consts::LN_10 - low) / (BAND_POINTS - 1) as f64;
    (0..BAND_POINTS).map(|i| (low + step * i as f64).exp()).collect()
}

/// The law and its interval along `grid`.
pub(super) fn band(law: &dyn Law, theta: &[f64], replicates: &[Vec<f64>], grid: &[f64]) -> Vec<BandPoint> {
    let at = |compute: f64, theta: &[f64]| law.ln_at(theta, &Input::on(Axis::C, compute)).exp();
    grid.iter()
        .map(|&compute| BandPoint {
            compute,
            error: interval(at(compute, theta), replicates.iter().map(|theta| at(compute, theta))),
        })
        .collect()
}
