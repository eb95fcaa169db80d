//! The solvers side by side on one fit: whether they found the same minima.

use std::time::Duration;

use serde::Serialize;

use crate::law::Law;
use crate::solve::{Minimum, Solution, SolverKind, Status};
use crate::{EFFECT_MIN, Fit};

/// Objectives this share of the least apart are the same.
pub const SAME_OBJECTIVE: f64 = 1e-6;
/// Parameters that differ by this, relative to them (those of a logarithmic scale: their logarithms, and at least 1),
/// are the same.
pub const SAME_PARAMETER: f64 = 1e-3;
/// Minima whose laws differ by no more than this at every point, in ln E, are one.
const SAME_LAW: f64 = 1e-3;

/// What one solver found.
#[derive(Debug, Clone, Serialize)]
pub struct BySolver {
    /// Which.
    pub solver: SolverKind,
    /// Objective at its best minimum.
    pub objective: f64,
    /// How good that is.
    pub status: Status,
    /// Share of its searches that ended there.
    pub hit_rate: f64,
    /// Iterations of the search that found it.
    pub iterations: usize,
    /// Parameters there, natural scale, the law's order.
    pub parameters: Vec<f64>,
    /// The objective less the least that any solver found, as a share of that.
    pub above_least: f64,
    /// Greatest difference of a parameter from those of the solver with the least, as [`SAME_PARAMETER`] has it;
    /// parameters that either has at a bound do not count.
    pub parameter_off: f64,
    /// Greatest difference of ln E from the law of that solver, over the points.
    pub ln_e_off: f64,
    /// Whether it found the same.
    pub agrees: bool,
    /// How long its searches took, where that was measured.
    pub seconds: Option<f64>,
}

/// A minimum, and which solvers found it.
#[derive(Debug, Clone, Serialize)]
pub struct SharedOptimum {
    /// The least objective there that a solver came to.
    pub objective: f64,
    /// Parameters there, natural scale.
    pub parameters: Vec<f64>,
    /// Searches that ended there, in the order of the solvers.
    pub hits: Vec<usize>,
}

/// The solvers side by side.
#[derive(Debug, Clone, Serialize)]
pub struct Agreement {
    /// In the order given.
    pub solvers: Vec<BySolver>,
    /// Distinct minima that any of them lists, least first.
    pub optima: Vec<SharedOptimum>,
    /// Whether all found the same best minimum.
    pub agree: bool,
}

/// Compares fits of the same rows by different solvers, with the time that each took.
pub fn agreement(fits: &[(Fit, Option<Duration>)]) -> Agreement {
    let least = fits.iter().map(|(fit, _)| &fit.solution.best).min_by(|a, b| a.value.total_cmp(&b.value));
    let solvers: Vec<BySolver> = match least {
        Some(least) => fits.iter().map(|(fit, time)| by_solver(fit, *time, least)).collect(),
        None => Vec::new(),
    };
    Agreement { agree: solvers.iter().all(|one| one.agrees), optima: optima(fits), solvers }
}

fn by_solver(fit: &Fit, time: Option<Duration>, least: &Minimum) -> BySolver {
    let Solution { best, status, hit_rate, .. } = &fit.solution;
    let law = fit.form();
    let bounded = |index: &usize| best.at_bound.contains(index) || least.at_bound.contains(index);
    let off = |index: usize| (best.theta[index] - least.theta[index]).abs() / least.theta[index].abs().max(1.0);
    let parameter_off = (0..best.theta.len()).filter(|index| !bounded(index)).map(off).fold(0.0, f64::max);
    let above_least = if best.value > least.value { (best.value - least.value) / least.value } else { 0.0 };
    let ln_e_off = distance(fit, law.as_ref(), &best.theta, &least.theta);
    // Where a law goes through every point, objectives are rounding, and their shares mean nothing.
    let agrees = (above_least <= SAME_OBJECTIVE || ln_e_off <= EFFECT_MIN) && parameter_off <= SAME_PARAMETER;
    BySolver {
        solver: fit.method.solver,
        objective: best.value,
        status: *status,
        hit_rate: *hit_rate,
        iterations: best.iterations,
        parameters: crate::law::natural(law.as_ref(), &best.theta),
        above_least,
        parameter_off,
        ln_e_off,
        agrees,
        seconds: time.map(|time| time.as_secs_f64()),
    }
}

/// All minima that the fits list, those of one law together.
fn optima(fits: &[(Fit, Option<Duration>)]) -> Vec<SharedOptimum> {
    let mut found: Vec<(Minimum, Vec<usize>)> = Vec::new();
    for (at, (fit, _)) in fits.iter().enumerate() {
        let law = fit.form();
        for optimum in &fit.solution.optima {
            let theta = &optimum.minimum.theta;
            let same = found.iter_mut().find(|(one, _)| distance(fit, law.as_ref(), &one.theta, theta) <= SAME_LAW);
            if let Some((minimum, hits)) = same {
                hits[at] += optimum.hits;
                if optimum.minimum.value < minimum.value {
                    *minimum = optimum.minimum.clone();
                }
            } else {
                let mut hits = vec![0; fits.len()];
                hits[at] = optimum.hits;
                found.push((optimum.minimum.clone(), hits));
            }
        }
    }
    found.sort_by(|a, b| a.0.value.total_cmp(&b.0.value));
    let natural = |theta: &[f64]| fits.first().map(|(fit, _)| crate::law::natural(fit.form().as_ref(), theta));
    found
        .into_iter()
        .map(|(minimum, hits)| SharedOptimum {
            objective: minimum.value,
            parameters: natural(&minimum.theta).unwrap_or_default(),
            hits,
        })
        .collect()
}

/// Greatest difference of ln E at the points; infinite where there is none.
fn distance(fit: &Fit, law: &dyn Law, a: &[f64], b: &[f64]) -> f64 {
    let sample = fit.sample();
    let off = |x| (law.ln_at(a, x) - law.ln_at(b, x)).abs();
    sample.inputs.iter().map(off).map(|off| if off.is_nan() { f64::INFINITY } else { off }).fold(0.0, f64::max)
}
