//! Prediction intervals of held-out rows: a pairs bootstrap by job for the law, and its residuals for a new job's
//! scatter.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::law::Input;
use crate::percentile;
use crate::solve::{Ending, Newton, Problem, Solver};

/// Residuals drawn a resample: refits are dear, residuals are not.
const DRAWS: usize = 4;

/// 95 % prediction intervals of ln E at `at`, in that order; empty where `resamples` is 0 or none could be fitted.
///
/// A resample draws the problem's jobs with replacement, refits from `theta`, and adds to each prediction residuals of
/// the fit to all jobs, spread by `sqrt(n / (n - p))` for the degrees of freedom that the fit used (Davison and
/// Hinkley 1997, section 6.3.3). Scatter is taken to be the same everywhere. `cut` keeps the streams of the cuts
/// apart.
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
    let (rows, jobs) = (sample.len() as f64, sample.jobs_len());
    let spread = (rows / (rows - free as f64).max(1.0)).sqrt();
    let residuals: Vec<f64> = (0..sample.len())
        .map(|row| spread * (sample.ln_y[row] - problem.law.ln_at(theta, &sample.inputs[row])))
        .collect();
    let mut drawn: Vec<Vec<f64>> = vec![Vec::new(); at.len()];
    for resample in 0..resamples as u64 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(cut << 32 | resample);
        let mut times = vec![0.0; jobs];
        for _ in 0..jobs {
            times[random.random_range(0..jobs)] += 1.0;
        }
        let weights: Vec<f64> =
            sample.jobs.iter().zip(&sample.weights).map(|(&job, weight)| weight * times[job]).collect();
        let minimum = Newton::default().minimise(&Problem { weights: &weights, ..*problem }, theta);
        let ln_values: Vec<f64> = at.iter().map(|x| problem.law.ln_at(&minimum.theta, x)).collect();
        if minimum.ending == Ending::Unfinished || !ln_values.iter().all(|value| value.is_finite()) {
            continue;
        }
        for (values, ln_value) in drawn.iter_mut().zip(ln_values) {
            values.extend((0..DRAWS).map(|_| ln_value + residuals[random.random_range(0..residuals.len())]));
        }
    }
    let ends = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        Some((percentile(&values, 0.025)?, percentile(&values, 0.975)?))
    };
    drawn.into_iter().filter_map(ends).collect()
}
