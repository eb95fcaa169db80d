//! What is believed of the forecasts before and after a job is run.
//!
//! A mode is an optimum of a law: fits that differ in their extrapolation are modes too. Within a mode the parameters
//! are normal around the optimum with covariance `P = (J' W J + S^-2)^-1` (Laplace, Gauss and Newton; S half the width
//! of each parameter's range, so that P exists where the data tell nothing); a job at x adds `g g' / v`, g the gradient
//! of ln E there. Modes weigh `exp(-BIC / 2)` (n jobs), and a job's outcome moves the weights as Bayes says.
//!
//! The variance of a forecast that a job is expected to leave is `V - Var_y(mean of the forecast given y)`, by
//! quadrature over the outcome y under each mode: with one mode that is V-optimality, `(g_t' P g)^2 / (v + g' P g)`;
//! with several the jobs gain that tell the modes apart (as MSPE, arXiv 2604.22753, weighs both).

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::AdviseError;
use crate::Fit;
use crate::law::{Input, LawName, Scale};
use crate::random::normal;
use crate::sample::Sample;
use crate::solve::invert;

/// Modes kept.
const MODES_MAX: usize = 8;
/// Modes that weigh less are dropped.
const WEIGHT_MIN: f64 = 1e-3;
/// Imagined outcomes of the jobs picked so far, where there is more than one mode.
const IMAGINED: usize = 48;
/// Standard deviation of ln E below which noise is not believed.
const NOISE_MIN: f64 = 1e-6;
/// Cells closer than this in every ln axis are one.
const SAME_CELL: f64 = 1e-6;

/// How far a job's ln E lies from the law.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Noise {
    /// Standard deviation of what all jobs of a cell share: the law's misfit. No replicate lessens it.
    pub cell: f64,
    /// Standard deviation between replicates of a cell.
    pub seed: f64,
    /// Degrees of freedom behind `seed`; of none, half of the residual variance is taken for either.
    pub replicates: usize,
}

impl Noise {
    /// Variance of the mean of `jobs` jobs of a cell about the law.
    fn variance(self, jobs: usize) -> f64 {
        (self.cell.powi(2) + self.seed.powi(2) / jobs as f64).max(NOISE_MIN * NOISE_MIN)
    }

    /// Variance of the observation that a job more amounts to, in a cell that has `jobs`.
    pub(super) fn of_next(self, jobs: usize) -> f64 {
        if jobs == 0 {
            return self.variance(1);
        }
        1.0 / (1.0 / self.variance(jobs + 1) - 1.0 / self.variance(jobs)).max(1e-300)
    }
}

/// An optimum of a law, for the reader.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mode {
    /// The law.
    pub law: LawName,
    /// Share of belief.
    pub weight: f64,
    /// E that it forecasts, one a target.
    pub forecasts: Vec<f64>,
}

/// Rows of one cell.
#[derive(Debug, Clone)]
struct Cell {
    at: Input,
    jobs: usize,
    mean: f64,
    squares: f64,
}

/// A mode with what it says of targets and candidates.
#[derive(Debug, Clone)]
struct Belief {
    covariance: Vec<f64>,
    targets: Vec<(f64, Vec<f64>)>,
    candidates: Vec<(f64, Vec<f64>)>,
}

/// One course that the jobs picked so far may have taken.
#[derive(Debug, Clone)]
struct Course {
    truth: usize,
    weights: Vec<f64>,
    shifts: Vec<Vec<f64>>,
}

/// Everything believed.
#[derive(Debug, Clone)]
pub(super) struct Beliefs {
    modes: Vec<Belief>,
    courses: Vec<Course>,
    /// Jobs in each candidate's cell.
    pub(super) jobs: Vec<usize>,
    /// Which candidates share a cell.
    cells: Vec<Input>,
    pub(super) noise: Noise,
    /// Of the best fit, jobs less parameters, which its noise was estimated from; `None` where the noise was given.
    pub(super) degrees: Option<usize>,
    random: ChaCha8Rng,
}

impl Beliefs {
    /// From fits to the same points.
    pub(super) fn new(
        fits: &[&Fit],
        targets: &[Input],
        candidates: &[Input],
        noise: Option<Noise>,
        seed: u64,
    ) -> Result<(Beliefs, Vec<Mode>), AdviseError> {
        let found = optima(fits);
        let Some((best, theta, _)) = found.first() else { return Err(AdviseError::NoMode) };
        let cells = cells(best);
        let sample = Sample::of(&best.observations, &best.points);
        let degrees = noise.is_none().then(|| sample.jobs_len().saturating_sub(best.free()));
        let noise = noise.unwrap_or_else(|| estimate(best, theta, &cells));
        let (mut modes, mut told, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for (fit, theta, weight) in &found {
            let Some(belief) = believe(fit, theta, &cells, noise, targets, candidates) else { continue };
            let forecasts = belief.targets.iter().map(|(ln_e, _)| ln_e.exp()).collect();
            told.push(Mode { law: fit.law, weight: *weight, forecasts });
            weights.push(*weight);
            modes.push(belief);
        }
        if modes.is_empty() {
            return Err(AdviseError::NoMode);
        }
        let total: f64 = weights.iter().sum();
        for (weight, mode) in weights.iter_mut().zip(&mut told) {
            *weight /= total;
            mode.weight = *weight;
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let shifts: Vec<Vec<f64>> =
            modes.iter().map(|mode| vec![0.0; mode.targets.first().map_or(0, |target| target.1.len())]).collect();
        let count = if modes.len() == 1 { 1 } else { IMAGINED };
        let courses = (0..count).map(|_| Course {
            truth: draw(&weights, &mut random),
            weights: weights.clone(),
            shifts: shifts.clone(),
        });
        let courses = courses.collect();
        let jobs = candidates
            .iter()
            .map(|at| cells.iter().find(|cell| same(&cell.at, at)).map_or(0, |cell| cell.jobs))
            .collect();
        Ok((Beliefs { modes, courses, jobs, cells: candidates.to_vec(), noise, degrees, random }, told))
    }

    /// Mean and variance of ln E at each target, over modes and courses.
    pub(super) fn forecasts(&self) -> Vec<(f64, f64)> {
        let targets = self.modes[0].targets.len();
        let (mut means, mut variances) = (vec![0.0; targets], vec![0.0; targets]);
        for course in &self.courses {
            for target in 0..targets {
                let means_of = |m: usize| mean(&self.modes[m].targets[target], &course.shifts[m]);
                let middle: f64 = (0..self.modes.len()).map(|m| course.weights[m] * means_of(m)).sum();
                means[target] += middle;
                for (m, mode) in self.modes.iter().enumerate() {
                    let own = quadratic(&mode.covariance, &mode.targets[target].1, &mode.targets[target].1);
                    variances[target] += course.weights[m] * (own + (means_of(m) - middle).powi(2));
                }
            }
        }
        let count = self.courses.len() as f64;
        means.into_iter().zip(variances).map(|(mean, variance)| (mean / count, variance / count)).collect()
    }

    /// By how much a candidate is expected to lessen the variance of ln E, summed over the targets.
    pub(super) fn gain(&self, candidate: usize) -> f64 {
        let v = self.noise.of_next(self.jobs[candidate]);
        let modes = self.modes.len();
        let targets = self.modes[0].targets.len();
        // Per mode: the outcome's variance, and by how much each target moves with it.
        let spread: Vec<f64> = self.modes.iter().map(|mode| v + own_variance(mode, candidate)).collect();
        let pull = |target: usize, m: usize| {
            let mode = &self.modes[m];
            quadratic(&mode.covariance, &mode.targets[target].1, &mode.candidates[candidate].1) / spread[m]
        };
        let pulls: Vec<Vec<f64>> = (0..targets).map(|target| (0..modes).map(|m| pull(target, m)).collect()).collect();
        if modes == 1 {
            return pulls.iter().map(|pull| pull[0] * pull[0] * spread[0]).sum();
        }
        let nodes = nodes();
        let mut total = 0.0;
        for course in &self.courses {
            let outcome: Vec<f64> =
                (0..modes).map(|m| mean(&self.modes[m].candidates[candidate], &course.shifts[m])).collect();
            for (target, pull) in pulls.iter().enumerate() {
                let now: Vec<f64> =
                    (0..modes).map(|m| mean(&self.modes[m].targets[target], &course.shifts[m])).collect();
                let middle: f64 = now.iter().zip(&course.weights).map(|(mean, weight)| mean * weight).sum();
                for from in 0..modes {
                    for (z, share) in &nodes {
                        let y = outcome[from] + z * spread[from].sqrt();
                        let weights = updated(&course.weights, &outcome, &spread, y);
                        let then: f64 = (0..modes).map(|m| weights[m] * (now[m] + pull[m] * (y - outcome[m]))).sum();
                        total += course.weights[from] * share * (then - middle).powi(2);
                    }
                }
            }
        }
        total / self.courses.len() as f64
    }

    /// The candidate is run: each course imagines its outcome.
    pub(super) fn run(&mut self, candidate: usize) {
        let v = self.noise.of_next(self.jobs[candidate]);
        let spread: Vec<f64> = self.modes.iter().map(|mode| v + own_variance(mode, candidate)).collect();
        for course in &mut self.courses {
            let outcome: Vec<f64> = self
                .modes
                .iter()
                .zip(&course.shifts)
                .map(|(mode, shift)| mean(&mode.candidates[candidate], shift))
                .collect();
            let y = outcome[course.truth] + normal(&mut self.random) * spread[course.truth].sqrt();
            course.weights = updated(&course.weights, &outcome, &spread, y);
            for (m, mode) in self.modes.iter().enumerate() {
                let gain = times(&mode.covariance, &mode.candidates[candidate].1);
                for (shift, gain) in course.shifts[m].iter_mut().zip(gain) {
                    *shift += gain * (y - outcome[m]) / spread[m];
                }
            }
        }
        for (mode, spread) in self.modes.iter_mut().zip(&spread) {
            let gain = times(&mode.covariance, &mode.candidates[candidate].1);
            let k = gain.len();
            for i in 0..k {
                for j in 0..k {
                    mode.covariance[i * k + j] -= gain[i] * gain[j] / spread;
                }
            }
        }
        let at = self.cells[candidate];
        for (cell, jobs) in self.cells.iter().zip(&mut self.jobs) {
            *jobs += usize::from(same(cell, &at));
        }
    }
}

/// Optima of all fits with their weights, best first.
fn optima<'a>(fits: &[&'a Fit]) -> Vec<(&'a Fit, Vec<f64>, f64)> {
    let mut found: Vec<(&Fit, Vec<f64>, f64)> = Vec::new();
    for fit in fits {
        let sample = Sample::of(&fit.observations, &fit.points);
        let form = fit.form();
        // Rows of a job are not independent: the jobs count, and a row's loss as its share of the job's.
        let (rows, count) = (sample.len() as f64, sample.jobs_len() as f64);
        let free = fit.parameters.iter().filter(|parameter| !parameter.frozen).count() as f64;
        let mut thetas = vec![&fit.solution.best.theta];
        thetas.extend(fit.solution.optima.iter().map(|optimum| &optimum.minimum.theta));
        for theta in thetas {
            let left: f64 =
                sample.inputs.iter().zip(&sample.ln_y).map(|(x, ln_y)| (form.ln_at(theta, x) - ln_y).powi(2)).sum();
            let bic = count * (left / rows).max(NOISE_MIN * NOISE_MIN).ln() + free * count.ln();
            let close = |other: &[f64]| other.iter().zip(theta).all(|(a, b)| (a - b).abs() <= 1e-6 * (1.0 + b.abs()));
            let known = found.iter().any(|(other, at, _)| other.law == fit.law && close(at));
            if bic.is_finite() && !known {
                found.push((fit, theta.clone(), bic));
            }
        }
    }
    found.sort_by(|a, b| a.2.total_cmp(&b.2));
    let least = found.first().map_or(0.0, |mode| mode.2);
    for mode in &mut found {
        mode.2 = (0.5 * (least - mode.2)).exp();
    }
    found.retain(|mode| mode.2 >= WEIGHT_MIN);
    found.truncate(MODES_MAX);
    found
}

/// Cells of the points that a fit goes through.
fn cells(fit: &Fit) -> Vec<Cell> {
    let sample = Sample::of(&fit.observations, &fit.points);
    let mut cells: Vec<Cell> = Vec::new();
    for (x, ln_y) in sample.inputs.iter().zip(&sample.ln_y) {
        if let Some(cell) = cells.iter_mut().find(|cell| same(&cell.at, x)) {
            // Welford 1962.
            cell.jobs += 1;
            let off = ln_y - cell.mean;
            cell.mean += off / cell.jobs as f64;
            cell.squares += off * (ln_y - cell.mean);
        } else {
            cells.push(Cell { at: *x, jobs: 1, mean: *ln_y, squares: 0.0 });
        }
    }
    cells
}

fn same(a: &Input, b: &Input) -> bool {
    let known = |(a, b): &(f64, f64)| !a.is_nan() && !b.is_nan();
    let pairs = [(a.ln_n, b.ln_n), (a.ln_d, b.ln_d), (a.ln_u, b.ln_u)];
    // Compute follows from these; it tells cells apart only where nothing else does.
    let pairs = if pairs.iter().any(known) { pairs } else { [(a.ln_c, b.ln_c); 3] };
    pairs.iter().filter(|pair| known(pair)).all(|(a, b)| (a - b).abs() < SAME_CELL) && pairs.iter().any(known)
}

fn estimate(fit: &Fit, theta: &[f64], cells: &[Cell]) -> Noise {
    let form = fit.form();
    let rows: usize = cells.iter().map(|cell| cell.jobs).sum();
    let within: f64 = cells.iter().map(|cell| cell.squares).sum();
    let replicates = rows - cells.len();
    let between: f64 =
        cells.iter().map(|cell| cell.jobs as f64 * (form.ln_at(theta, &cell.at) - cell.mean).powi(2)).sum();
    let fitted = fit.parameters.iter().filter(|parameter| !parameter.frozen).count();
    let residual = (within + between) / rows.saturating_sub(fitted).max(1) as f64;
    let (cell, seed) = if replicates > 0 {
        let seed = within / replicates as f64;
        ((residual - seed).max(0.0), seed)
    } else {
        (0.5 * residual, 0.5 * residual)
    };
    Noise { cell: cell.sqrt(), seed: seed.sqrt(), replicates }
}

fn believe(
    fit: &Fit,
    theta: &[f64],
    cells: &[Cell],
    noise: Noise,
    targets: &[Input],
    candidates: &[Input],
) -> Option<Belief> {
    let form = fit.form();
    let free: Vec<usize> = (0..theta.len()).filter(|&index| !fit.parameters[index].frozen).collect();
    let k = free.len();
    let at = |x: &Input| {
        let mut gradient = vec![0.0; theta.len()];
        let ln_e = form.log_value(theta, x, &mut gradient);
        (ln_e, free.iter().map(|&index| gradient[index]).collect::<Vec<f64>>())
    };
    let mut information = vec![0.0; k * k];
    for (i, &index) in free.iter().enumerate() {
        let parameter = form.parameters()[index];
        let (low, high) = parameter.range;
        let half = match parameter.scale {
            Scale::Linear => 0.5 * (high - low),
            Scale::Log => 0.5 * (high / low).ln(),
        };
        information[i * k + i] = 1.0 / (half * half);
    }
    for cell in cells {
        let (_, gradient) = at(&cell.at);
        let weight = 1.0 / noise.variance(cell.jobs);
        for i in 0..k {
            for j in 0..k {
                information[i * k + j] += weight * gradient[i] * gradient[j];
            }
        }
    }
    let covariance = invert(&information, k)?;
    let belief = Belief {
        covariance,
        targets: targets.iter().map(&at).collect(),
        candidates: candidates.iter().map(&at).collect(),
    };
    let finite = belief
        .targets
        .iter()
        .chain(&belief.candidates)
        .all(|(ln_e, gradient)| ln_e.is_finite() && gradient.iter().all(|slope| slope.is_finite()));
    finite.then_some(belief)
}

fn mean((ln_e, gradient): &(f64, Vec<f64>), shift: &[f64]) -> f64 {
    ln_e + gradient.iter().zip(shift).map(|(slope, shift)| slope * shift).sum::<f64>()
}

fn own_variance(mode: &Belief, candidate: usize) -> f64 {
    let gradient = &mode.candidates[candidate].1;
    quadratic(&mode.covariance, gradient, gradient)
}

fn times(matrix: &[f64], vector: &[f64]) -> Vec<f64> {
    matrix.chunks(vector.len().max(1)).map(|row| row.iter().zip(vector).map(|(a, b)| a * b).sum()).collect()
}

fn quadratic(matrix: &[f64], left: &[f64], right: &[f64]) -> f64 {
    times(matrix, right).iter().zip(left).map(|(a, b)| a * b).sum()
}

/// Weights of the modes once y is seen.
fn updated(weights: &[f64], outcome: &[f64], spread: &[f64], y: f64) -> Vec<f64> {
    let ln = |m: usize| weights[m].ln() - 0.5 * ((y - outcome[m]).powi(2) / spread[m] + spread[m].ln());
    let most = (0..weights.len()).map(ln).fold(f64::NEG_INFINITY, f64::max);
    let raw: Vec<f64> = (0..weights.len()).map(|m| (ln(m) - most).exp()).collect();
    let total: f64 = raw.iter().sum();
    raw.into_iter().map(|weight| weight / total).collect()
}

/// Quadrature of the standard normal: the trapezium rule, which is spectrally exact for it.
fn nodes() -> Vec<(f64, f64)> {
    let raw: Vec<(f64, f64)> = (-10..=10).map(|i| 0.45 * f64::from(i)).map(|z| (z, (-0.5 * z * z).exp())).collect();
    let total: f64 = raw.iter().map(|node| node.1).sum();
    raw.into_iter().map(|(z, weight)| (z, weight / total)).collect()
}

fn draw(weights: &[f64], random: &mut ChaCha8Rng) -> usize {
    let mut left: f64 = random.random();
    weights
        .iter()
        .position(|weight| {
            left -= weight;
            left < 0.0
        })
        .unwrap_or(weights.len() - 1)
}
