//! Prediction intervals of held-out rows, as [`Fit::forecast`](crate::Fit::forecast) states them: a pairs bootstrap by
//! job for the law, read at expanded shares, and its residuals for a new job's scatter.

use rand::Rng;

use crate::bootstrap::residual_variance;
use crate::distribution::t_two_sided;
use crate::interval::{ALPHA, IntervalKind, Reader};
use crate::law::Input;
use crate::random::stream;
use crate::solve::{Problem, minimise};

/// 95 % prediction intervals of ln E at `at`, in that order; empty where `resamples` is 0, none could be fitted, or
/// there are no more jobs than free parameters.
///
/// A resample draws the problem's jobs with replacement and refits from `theta`. The law's interval, of these, and `t
/// sd` are added in quadrature: sd that of the residuals, t of jobs less parameters. Scatter is taken to be the same
/// everywhere. `cut` keeps the streams of the cuts apart.
pub(super) fn intervals(
    problem: &Problem<'_>,
    theta: &[f64],
    at: &[Input],
    resamples: usize,
    seed: u64,
    cut: u64,
) -> Vec<(f64, f64)> {
    let sample = problem.sample;
    let free = (0..problem.len()).filter(|&index| !problem.is_frozen(index)).count();
    let jobs = sample.jobs_len();
    let mut drawn: Vec<Vec<f64>> = vec![Vec::new(); at.len()];
    for resample in 0..resamples as u64 {
        let mut random = stream(seed, cut << 32 | resample);
        let mut times = vec![0.0; jobs];
        for _ in 0..jobs {
            times[random.random_range(0..jobs)] += 1.0;
        }
        let weights: Vec<f64> =
            sample.jobs.iter().zip(&sample.weights).map(|(&job, weight)| weight * times[job]).collect();
        let minimum = minimise(&Problem { weights: &weights, ..*problem }, theta);
        let ln_values: Vec<f64> = at.iter().map(|x| problem.law.ln_at(&minimum.theta, x)).collect();
        if !minimum.ending.is_minimum() || !ln_values.iter().all(|value| value.is_finite()) {
            continue;
        }
        drawn.iter_mut().zip(ln_values).for_each(|(values, ln_value)| values.push(ln_value));
    }
    if jobs <= free || drawn.iter().any(Vec::is_empty) {
        return Vec::new();
    }
    let reader = Reader::new(IntervalKind::Expanded, jobs, free);
    let off = t_two_sided(ALPHA, jobs - free) * residual_variance(problem.law, theta, sample, free).sqrt();
    let ends = |(x, values): (&Input, Vec<f64>)| {
        let law = reader.read(problem.law.ln_at(theta, x), values, &[]);
        (law.value - (law.value - law.low).hypot(off), law.value + (law.high - law.value).hypot(off))
    };
    at.iter().zip(drawn).map(ends).collect()
}
