//! Refits of data that might have been: pairs bootstrap by job, wild bootstrap, seed noise, and the jackknife.
//!
//! Share of 200 simulated studies (29 runs of the 2022 grid; standard error 1.5 points) whose 95 % interval holds the
//! truth, by `tests/coverage.rs` (`table`): alpha of a power law with 4 % noise and the law at ten times the largest C;
//! range over the seven parameters of an additive law of N, D and U with 1.5 % seed and binomial noise, and the law at
//! ViT-G-14, 68B:
//!
//! | way                 | alpha | law, 10 C | parameters   | law, ViT-G-14 |
//! |---------------------|-------|-----------|--------------|---------------|
//! | pairs, percentile   | 93.5  | 92.5      | 93.5 to 97   | 92.5          |
//! | pairs, expanded     | 94    | 93.5      | 95.5 to 98.5 | 93            |
//! | pairs, bca          | 93    | 92.5      | 88.5 to 93.5 | 81.5          |
//! | pairs, expanded-bca | 94    | 94        | 89 to 95     | 83.5          |
//! | wild, percentile    | 94    | 91.5      | 95 to 100    | 94.5          |
//! | wild, expanded      | 94.5  | 93.5      | 95.5 to 100  | 96            |
//! | seed-noise          | 95    | 92        | 93 to 99.5   | 95.5          |
//! | profile             | 95.5  | 94.5      | 95 to 99     | 96            |

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Serialize, Serializer};

use crate::interval::{Interval, Reader};
use crate::law::{Axis, Input, Law, PARAMETERS_MAX, Scale};
use crate::noise::{NoiseModel, evaluation_variance};
use crate::objective::{Objective, Space};
use crate::observation::Observation;
use crate::points::{Point, Points, select};
use crate::random::stream;
use crate::sample::Sample;
use crate::solve::{Method, Minimum, Problem, Quantity, cholesky_solve, minimise, refit, starts};
use crate::{Options, extent};

/// Points along C of the band.
const BAND_POINTS: usize = 61;
/// Jobs below which Rademacher's two points give too few distinct resamples, and Webb's six are drawn.
const RADEMACHER_FROM: usize = 12;

/// What is drawn anew in a resample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resampling {
    /// As many jobs as there are, with replacement, all rows of a job together; points are selected anew (Efron 1979;
    /// Efron and Tibshirani 1993, chapter 13). Asks only that jobs are independent.
    #[default]
    Pairs,
    /// The law plus each job's residuals times a random sign: Rademacher's, or Webb's six points below 12 jobs (Wu
    /// 1986; Cameron, Gelbach and Miller 2008, section III; Webb 2023). Residuals are first blown up as by HC3: to what
    /// they would be had their job been left out. Keeps the design; the points selected stay selected.
    Wild,
    /// The noise model's normal noise: a job's seed noise is shared by its rows, evaluation noise is each row's own.
    /// Around the law where it goes through all rows; else around the rows, points selected anew. Holds no misfit of
    /// the law, except without replicates: then the residuals stand for them.
    SeedNoise,
}

impl Resampling {
    /// All of them.
    pub const ALL: [Resampling; 3] = [Resampling::Pairs, Resampling::Wild, Resampling::SeedNoise];

    /// As on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Resampling::Pairs => "pairs",
            Resampling::Wild => "wild",
            Resampling::SeedNoise => "seed-noise",
        }
    }
}

impl fmt::Display for Resampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Resampling {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl FromStr for Resampling {
    type Err = String;

    fn from_str(text: &str) -> Result<Resampling, String> {
        Resampling::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| "allowed are pairs, wild and seed-noise".to_owned())
    }
}

/// The law at one C.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BandPoint {
    /// C.
    pub compute: f64,
    /// E of the fitted law and its interval.
    pub error: Interval,
}

/// How many, from which seed, how thoroughly.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draws {
    pub(crate) resamples: usize,
    pub(crate) seed: u64,
    /// Random starts of each refit besides the optimum.
    pub(crate) restarts: usize,
}

impl Draws {
    pub(crate) fn of(options: &Options) -> Draws {
        Draws { resamples: options.resamples, seed: options.seed, restarts: options.restarts }
    }
}

/// A fit's data and how it was fitted: all that a refit needs.
#[derive(Clone, Copy)]
pub(crate) struct Study<'a> {
    pub(crate) law: &'a dyn Law,
    /// Usable rows.
    pub(crate) observations: &'a [Observation],
    /// Of each row.
    pub(crate) weights: &'a [f64],
    pub(crate) noise: &'a NoiseModel,
    /// How points are selected.
    pub(crate) policy: Points,
    pub(crate) objective: Objective,
    pub(crate) frozen: &'a [Option<f64>],
    pub(crate) method: &'a Method,
    /// The fit, from which refits begin.
    pub(crate) best: &'a Minimum,
}

impl Study<'_> {
    fn sample(&self, points: &[Point]) -> Sample {
        weighted(self.observations, points, self.weights)
    }

    /// Points selected from some of the rows, a row as often as it is given.
    fn select(&self, rows: &[usize]) -> Vec<Point> {
        let pairs: Vec<(f64, f64)> =
            rows.iter().map(|&row| (self.observations[row].compute, self.observations[row].error)).collect();
        let mut points = select(self.policy, &pairs);
        for point in &mut points {
            point.observation = rows[point.observation];
        }
        points
    }

    fn all_points(&self) -> Vec<Point> {
        self.select(&(0..self.observations.len()).collect::<Vec<usize>>())
    }

    /// The best of a search from the optimum, of one from `beside` its bounds, and of `restarts` from elsewhere; `None`
    /// where none came to an end.
    fn refit(&self, problem: &Problem<'_>, beside: Option<&[f64]>, restarts: usize, seed: u64) -> Option<Vec<f64>> {
        let mut best = refit(problem, &self.best.theta);
        if let Some(start) = beside {
            let other = minimise(problem, start);
            if is_usable(&other) && (!is_usable(&best) || other.value < best.value) {
                best = other;
            }
        }
        if restarts > 0 {
            for start in starts(problem, restarts, seed) {
                let other = minimise(problem, &start);
                if is_usable(&other) && (!is_usable(&best) || other.value < best.value) {
                    best = other;
                }
            }
        }
        is_usable(&best).then_some(best.theta)
    }

    fn problem<'b>(&'b self, sample: &'b Sample) -> Problem<'b> {
        Problem { frozen: self.frozen, method: self.method, ..Problem::new(self.law, sample, self.objective) }
    }

    /// Parameters of one refit a resample, in order. Each resample has its own stream of ChaCha, keyed by seed and
    /// number, so that the answer does not depend on which thread draws it. Resamples that can't be fitted give none.
    pub(crate) fn replicates(&self, resampling: Resampling, draws: Draws) -> Vec<Vec<f64>> {
        let stream = |replicate: usize| stream(draws.seed, replicate as u64);
        let sample = self.sample(&self.all_points());
        let beside = beside_bounds(&self.problem(&sample), &self.best.theta);
        let again = |problem: &Problem<'_>, random: &mut ChaCha8Rng| {
            let seed = if draws.restarts > 0 { random.random() } else { 0 };
            self.refit(problem, beside.as_deref(), draws.restarts, seed)
        };
        let jobs = clusters(self.observations);
        let each = |of: &(dyn Fn(&mut ChaCha8Rng) -> Option<Vec<f64>> + Sync)| -> Vec<Vec<f64>> {
            (0..draws.resamples).into_par_iter().filter_map(|replicate| of(&mut stream(replicate))).collect()
        };
        match (resampling, self.policy) {
            _ if jobs.is_empty() || sample.is_empty() => Vec::new(),
            (Resampling::Pairs, Points::All) => each(&|random| {
                let mut times = vec![0.0; jobs.len()];
                for _ in 0..jobs.len() {
                    times[random.random_range(0..jobs.len())] += 1.0;
                }
                let weights: Vec<f64> =
                    sample.weights.iter().zip(&sample.jobs).map(|(weight, &job)| weight * times[job]).collect();
                again(&Problem { weights: &weights, ..self.problem(&sample) }, random)
            }),
            (Resampling::Pairs, _) => each(&|random| {
                let drawn: Vec<usize> =
                    (0..jobs.len()).flat_map(|_| &jobs[random.random_range(0..jobs.len())]).copied().collect();
                let sample = self.sample(&self.select(&drawn));
                again(&self.problem(&sample), random)
            }),
            (Resampling::Wild, _) => {
                let wild = self.wild(&sample);
                each(&|random| {
                    let six = sample.jobs_len() < RADEMACHER_FROM;
                    let signs: Vec<f64> = (0..sample.jobs_len()).map(|_| sign(six, random)).collect();
                    let mut drawn = sample.clone();
                    for (row, ln_y) in drawn.ln_y.iter_mut().enumerate() {
                        let (fitted, residual) = wild[row];
                        *ln_y = ln_y_of(self.objective.space, fitted + signs[sample.jobs[row]] * residual);
                    }
                    again(&self.problem(&drawn), random)
                })
            }
            (Resampling::SeedNoise, _) => {
                let parts = self.noise_parts(&sample);
                each(&|random| {
                    let mut rows = self.observations.to_vec();
                    for job in &jobs {
                        let seed = normal(random);
                        for &row in job {
                            let (seed_sd, own_sd) = parts[row];
                            let centre = match self.policy {
                                Points::All => self.law.ln_at(&self.best.theta, &rows[row].input()),
                                _ => rows[row].error.ln(),
                            };
                            rows[row].error = (centre + seed_sd * seed + own_sd * normal(random)).exp();
                        }
                    }
                    let study = Study { observations: &rows, ..*self };
                    let sample = study.sample(&study.all_points());
                    again(&study.problem(&sample), random)
                })
            }
        }
    }

    /// Refits with each job left out; NaN where that can't be fitted.
    pub(crate) fn jackknife(&self) -> Vec<Vec<f64>> {
        let jobs = clusters(self.observations);
        let all = self.sample(&self.all_points());
        let beside = beside_bounds(&self.problem(&all), &self.best.theta);
        (0..jobs.len())
            .into_par_iter()
            .map(|out| {
                let kept: Vec<usize> =
                    (0..jobs.len()).filter(|job| *job != out).flat_map(|job| &jobs[job]).copied().collect();
                let sample = self.sample(&self.select(&kept));
                let refitted =
                    if sample.is_empty() { None } else { self.refit(&self.problem(&sample), beside.as_deref(), 0, 0) };
                refitted.unwrap_or_else(|| vec![f64::NAN; self.best.theta.len()])
            })
            .collect()
    }

    /// Fitted value and blown-up residual of each row of the sample, in the objective's space. The residual of job g
    /// had g been left out is, to first order, `e_g + X_g (A - A_g)^-1 X_g' W e_g`, `A = X' W X` (the jackknife's form
    /// of HC3: MacKinnon and White 1985; by cluster Bell and McCaffrey 2002).
    fn wild(&self, sample: &Sample) -> Vec<(f64, f64)> {
        let k = self.best.theta.len();
        let space = self.objective.space;
        let mut rows = Vec::with_capacity(sample.len());
        let mut slopes = vec![0.0; sample.len() * k];
        for row in 0..sample.len() {
            let slopes = &mut slopes[row * k..(row + 1) * k];
            let (fitted, slope, _) = space.at(self.law.log_value(&self.best.theta, &sample.inputs[row], slopes));
            let held = |index: usize| self.frozen.get(index).is_some_and(Option::is_some);
            for (index, value) in slopes.iter_mut().enumerate() {
                *value = if held(index) { 0.0 } else { *value * slope };
            }
            rows.push((fitted, space.at(sample.ln_y[row]).0 - fitted));
        }
        let normal = |keep: &dyn Fn(usize) -> bool| {
            let mut matrix = vec![0.0; k * k];
            for row in (0..sample.len()).filter(|&row| keep(row)) {
                let x = &slopes[row * k..(row + 1) * k];
                for i in 0..k {
                    for j in 0..k {
                        matrix[i * k + j] += sample.weights[row] * x[i] * x[j];
                    }
                }
            }
            for i in 0..k {
                // A parameter that moves nothing (held, or its term is zero) must not make the matrix singular.
                if matrix[i * k + i] <= 0.0 {
                    matrix[i * k + i] = 1.0;
                }
            }
            matrix
        };
        let mut blown = rows.clone();
        for job in 0..sample.jobs_len() {
            let others = normal(&|row| sample.jobs[row] != job);
            let own: Vec<usize> = (0..sample.len()).filter(|&row| sample.jobs[row] == job).collect();
            let mut score = vec![0.0; k];
            for &row in &own {
                for i in 0..k {
                    score[i] += slopes[row * k + i] * sample.weights[row] * rows[row].1;
                }
            }
            // Singular: the job alone holds a parameter, and its residuals are zero.
            let Some(moved) = cholesky_solve(&others, &score) else { continue };
            for &row in &own {
                let by: f64 = (0..k).map(|i| slopes[row * k + i] * moved[i]).sum();
                if (rows[row].1 + by).is_finite() {
                    blown[row].1 = rows[row].1 + by;
                }
            }
        }
        blown
    }

    /// Standard deviation of ln y by seed and by evaluation, of each observation. Without replicates the residuals'
    /// variance beyond that of the evaluation stands for the seeds'.
    fn noise_parts(&self, sample: &Sample) -> Vec<(f64, f64)> {
        let free = self.best.theta.len() - self.frozen.iter().flatten().count();
        let evaluation: Vec<f64> =
            self.observations.iter().map(|row| evaluation_variance(row, self.noise.response).unwrap_or(0.0)).collect();
        let mean = evaluation.iter().sum::<f64>() / evaluation.len() as f64;
        let beyond = (residual_variance(self.law, &self.best.theta, sample, free) - mean).max(0.0);
        let rows = self.observations.iter().zip(&evaluation);
        rows.map(|(row, evaluation)| {
            let seed = self.noise.seed_variance_at(row.error.ln(), row.parameters.ln());
            (seed.unwrap_or(beyond).sqrt(), evaluation.sqrt())
        })
        .collect()
    }
}

/// Where a term of the law is nothing at `theta`, no search that begins there finds it again: the same place with such
/// terms at a tenth of y. `None` where there are none.
pub(crate) fn beside_bounds(problem: &Problem<'_>, theta: &[f64]) -> Option<Vec<f64>> {
    let k = theta.len();
    let mut gradient = [0.0; PARAMETERS_MAX];
    let mut squares = [0.0; PARAMETERS_MAX];
    for x in &problem.sample.inputs {
        problem.law.log_value(theta, x, &mut gradient[..k]);
        squares.iter_mut().zip(&gradient).for_each(|(sum, slope)| *sum += slope * slope);
    }
    let mut start = theta.to_vec();
    let mut any = false;
    for (index, parameter) in problem.law.parameters().iter().enumerate() {
        // Of a term held by the logarithm of its coefficient the derivative of ln y is the term's share of y.
        let share = (squares[index] / problem.sample.len() as f64).sqrt();
        if matches!(parameter.scale, Scale::Log) && !problem.is_frozen(index) && share < 1e-6 {
            start[index] += (0.1 / share.max(1e-200)).ln();
            any = true;
        }
    }
    any.then_some(start)
}

/// Points to fit, with the weights of their rows.
pub(crate) fn weighted(observations: &[Observation], points: &[Point], weights: &[f64]) -> Sample {
    let mut sample = Sample::of(observations, points);
    for (weight, point) in sample.weights.iter_mut().zip(points) {
        *weight = weights[point.observation];
    }
    sample
}

/// Variance of ln y about the law, n - p degrees of freedom, n rows; 0 where there are none.
pub(crate) fn residual_variance(law: &dyn Law, theta: &[f64], sample: &Sample, free: usize) -> f64 {
    let squares: f64 =
        sample.inputs.iter().zip(&sample.ln_y).map(|(x, ln_y)| (law.ln_at(theta, x) - ln_y).powi(2)).sum();
    match sample.len().saturating_sub(free) {
        0 => 0.0,
        degrees => squares / degrees as f64,
    }
}

/// A parameter and its interval, natural scale.
pub(crate) fn parameter(
    law: &dyn Law,
    theta: &[f64],
    index: usize,
    (replicates, jackknife): (&[Vec<f64>], &[Vec<f64>]),
    reader: Reader,
) -> Interval {
    let coordinate = Coordinate(index);
    let interval = reader.read(theta[index], values(&coordinate, replicates), &values(&coordinate, jackknife));
    match law.parameters()[index].scale {
        Scale::Linear => interval,
        Scale::Log => interval.map(f64::exp),
    }
}

/// The number that a quantity is in each refit.
pub(crate) fn values(quantity: &dyn Quantity, thetas: &[Vec<f64>]) -> Vec<f64> {
    let mut gradient = [0.0; PARAMETERS_MAX];
    thetas.iter().map(|theta| quantity.at(theta, &mut gradient[..theta.len()])).collect()
}

fn is_usable(minimum: &Minimum) -> bool {
    minimum.ending.is_minimum() && minimum.theta.iter().all(|value| value.is_finite())
}

/// A random number of mean 0 and variance 1 with few values.
fn sign(six: bool, random: &mut ChaCha8Rng) -> f64 {
    let size = if six { [1.5f64.sqrt(), 1.0, 0.5f64.sqrt()][random.random_range(0..3)] } else { 1.0 };
    if random.random() { size } else { -size }
}

/// A standard normal (Box and Muller 1958). Not [`crate::random::normal`], whose uniform is another: seeds would give
/// other intervals than they gave.
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (random.random_range(f64::EPSILON..1.0), random.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// ln y where a space has the value `g`; next to nothing where y would be negative.
fn ln_y_of(space: Space, g: f64) -> f64 {
    match space {
        Space::Log => g,
        Space::Linear => g.max(f64::MIN_POSITIVE).ln(),
        Space::Logit { ceiling } => ceiling.ln() - (-g).exp().ln_1p(),
    }
}

/// Rows of each job, in the order of job keys.
pub(crate) fn clusters(observations: &[Observation]) -> Vec<Vec<usize>> {
    let mut jobs: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (row, observation) in observations.iter().enumerate() {
        jobs.entry(&observation.job_key).or_default().push(row);
    }
    jobs.into_values().collect()
}

/// C from the least observed to ten times the most, evenly in the logarithm.
pub(crate) fn grid(pairs: &[(f64, f64)]) -> Vec<f64> {
    let (low, high) = extent(pairs.iter().map(|pair| pair.0.ln()));
    let step = (high + std::f64::consts::LN_10 - low) / (BAND_POINTS - 1) as f64;
    (0..BAND_POINTS).map(|i| (low + step * i as f64).exp()).collect()
}

/// The law and its interval along `grid`.
pub(crate) fn band(
    law: &dyn Law,
    theta: &[f64],
    (replicates, jackknife): (&[Vec<f64>], &[Vec<f64>]),
    reader: Reader,
    grid: &[f64],
) -> Vec<BandPoint> {
    let each = |&compute: &f64| {
        let at = Prediction { law, x: Input::on(Axis::C, compute) };
        let interval = reader.read(at.of(theta), values(&at, replicates), &values(&at, jackknife));
        BandPoint { compute, error: interval.map(f64::exp) }
    };
    grid.iter().map(each).collect()
}

/// ln y of a law at a place.
#[derive(Clone, Copy)]
pub struct Prediction<'a> {
    /// The form.
    pub law: &'a dyn Law,
    /// Where.
    pub x: Input,
}

impl Prediction<'_> {
    /// At one theta.
    pub fn of(&self, theta: &[f64]) -> f64 {
        self.law.ln_at(theta, &self.x)
    }
}

impl Quantity for Prediction<'_> {
    fn at(&self, theta: &[f64], gradient: &mut [f64]) -> f64 {
        self.law.log_value(theta, &self.x, gradient)
    }
}

/// An internal parameter, by index.
#[derive(Debug, Clone, Copy)]
pub struct Coordinate(pub usize);

impl Quantity for Coordinate {
    fn at(&self, theta: &[f64], gradient: &mut [f64]) -> f64 {
        gradient.fill(0.0);
        gradient[self.0] = 1.0;
        theta[self.0]
    }
}
