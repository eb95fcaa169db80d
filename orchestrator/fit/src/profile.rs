//! Profile likelihood: how low the objective can be for each value of a number, and where that is too high to believe.
//!
//! Deviance of a value q: `S(q) = 2 (a / b) (min_{theta: q(theta) = q} Q - min Q)`, `a = mean psi'` (weighted),
//! `b = sum w psi^2 / (n - p)`, psi the derivative of the loss at the residuals. For least squares that is
//! `(RSS(q) - RSS) / s^2`, which has exactly the F distribution of 1 and n - p degrees of freedom in a linear model;
//! for robust losses the tau test's statistic (Hampel et al. 1986, section 7.2), whose `a` for least absolute
//! deviations is twice the density of the residuals at zero (Koenker and Bassett 1982). The interval is where `S` is at
//! most the 95 % point of F(1, n - p), t squared.
//!
//! n counts jobs, not rows: rows of one job (its checkpoints) are not independent. With rows that repeat each other
//! entirely that is exact; with independent rows it errs on the wide side.

use std::fmt;

use serde::Serialize;

use crate::bootstrap::beside_bounds;
use crate::distribution::t_two_sided;
use crate::interval::{ALPHA, Interval};
use crate::law::PARAMETERS_MAX;
use crate::objective::Loss;
use crate::solve::{Minimum, Problem, Pull, Quantity, cholesky_solve, minimise};

/// Steps outward before a side is given up as flat.
const STEPS_MAX: usize = 60;
/// Growth of the step.
const GROWTH: f64 = 1.5;
/// A side is flat if the threshold is not met within so many expected half-widths ...
const FAR_WIDTHS: f64 = 1000.0;
/// ... and within so many times its own size (of 1, if it is smaller: most quantities are logarithms).
const FAR: f64 = 30.0;
/// Stiffness of the pull, in curvatures of the profile at the optimum.
const STIFFNESS: f64 = 1e4;
/// Deeper minima met on the way that are taken as the new optimum.
const RESTARTS_MAX: usize = 3;

/// Which ends an interval has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Identified {
    /// Both.
    Both,
    /// The lower alone: the data do not say how large the number may be.
    Below,
    /// The upper alone: the data do not say how small the number may be.
    Above,
    /// None.
    Neither,
}

/// A profile, in the units of its quantity.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Profile {
    /// Value of the quantity and deviance, ascending in the value.
    pub curve: Vec<(f64, f64)>,
    /// At the minimum.
    pub value: f64,
    /// Lower end; minus infinity where there is none, NaN where time ran out.
    pub low: f64,
    /// Upper end; infinity where there is none, NaN where time ran out.
    pub high: f64,
    /// Deviance at the ends.
    pub threshold: f64,
    /// Degrees of freedom: jobs less free parameters.
    pub degrees: usize,
    /// Which ends there are.
    pub identified: Identified,
    /// Internal parameters of a minimum deeper than the one given, if the trace met one: then all here is about that
    /// one.
    pub deeper: Option<Vec<f64>>,
}

impl Profile {
    /// The interval.
    pub fn interval(&self) -> Interval {
        Interval { value: self.value, low: self.low, high: self.high }
    }

    /// The same through a growing function; profiles go with it.
    #[must_use]
    pub fn map(self, function: impl Fn(f64) -> f64) -> Profile {
        Profile {
            curve: self.curve.into_iter().map(|(value, deviance)| (function(value), deviance)).collect(),
            value: function(self.value),
            low: function(self.low),
            high: function(self.high),
            ..self
        }
    }

    /// For people: `E is not identified: the data allow anything from 0 to 0.31`; `None` where both ends are there.
    pub fn words(&self, name: &str) -> Option<String> {
        let digits = |value: f64| Short(value).to_string();
        match self.identified {
            _ if self.low.is_nan() => Some(format!("{name}: time was used up before its interval was found")),
            Identified::Both => None,
            Identified::Below if self.high == f64::INFINITY => {
                Some(format!("{name} is not identified: the data allow anything from {} up", digits(self.low)))
            }
            Identified::Below | Identified::Above => Some(format!(
                "{name} is not identified: the data allow anything from {} to {}",
                digits(self.low),
                digits(self.high)
            )),
            Identified::Neither => Some(format!("{name} is not identified: the data allow any value")),
        }
    }
}

/// Two significant digits.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0.abs();
        if size == f64::INFINITY {
            f.write_str(if self.0 < 0.0 { "minus infinity" } else { "infinity" })
        } else if size == 0.0 {
            f.write_str("0")
        } else if (1e-3..1e5).contains(&size) {
            let digits = (1 - size.log10().floor() as i32).max(0) as usize;
            write!(f, "{:.digits$}", self.0)
        } else {
            write!(f, "{:.1e}", self.0)
        }
    }
}

/// Traces the profile of `quantity` from the minimum `best` of `problem` outward.
pub fn profile(problem: &Problem<'_>, best: &Minimum, quantity: &dyn Quantity) -> Profile {
    let mut from = best.clone();
    for restart in 0.. {
        match trace(problem, &from, quantity, restart < RESTARTS_MAX) {
            Ok(mut profile) => {
                if problem.method.was_cut() {
                    // Points that were cut short lie above the profile: no end can be told.
                    (profile.low, profile.high) = (f64::NAN, f64::NAN);
                }
                profile.deeper = (restart > 0).then_some(from.theta);
                return profile;
            }
            Err(deeper) => from = deeper,
        }
    }
    unreachable!("the last trace takes no restart")
}

/// One trace; a deeper minimum as the error, if `restart`.
fn trace(problem: &Problem<'_>, best: &Minimum, quantity: &dyn Quantity, restart: bool) -> Result<Profile, Minimum> {
    let k = problem.len();
    let free = (0..k).filter(|&i| !problem.is_frozen(i)).count();
    let degrees = jobs(problem).saturating_sub(free);
    let threshold = t_two_sided(ALPHA, degrees).powi(2);
    let mut gradient = [0.0; PARAMETERS_MAX];
    let gradient = &mut gradient[..k];
    let value = quantity.at(&best.theta, gradient);
    let mut profile = Profile {
        curve: vec![(value, 0.0)],
        value,
        low: f64::NEG_INFINITY,
        high: f64::INFINITY,
        threshold,
        degrees,
        identified: Identified::Neither,
        deeper: None,
    };
    let moves = (0..k).any(|i| !problem.is_frozen(i) && gradient[i] != 0.0);
    if degrees == 0 || !value.is_finite() || !moves {
        return Ok(profile);
    }
    let Some(scale) = scale(problem, &best.theta, degrees, free) else {
        // No residuals: nothing but the value itself fits.
        return Ok(Profile { low: value, high: value, identified: Identified::Both, ..profile });
    };
    let base = Base {
        problem,
        quantity,
        best,
        value,
        scale,
        threshold,
        beside: beside_bounds(problem, &best.theta),
        width: width(problem, &best.theta, gradient, threshold / scale, value.abs().max(1.0)),
    };
    let mut ends = [None; 2];
    for (end, direction) in ends.iter_mut().zip([-1.0, 1.0]) {
        let mut points = Vec::new();
        let side = base.side(direction, &mut points);
        if let Some(deeper) = points.iter().min_by(|a, b| a.objective.total_cmp(&b.objective)).filter(|point| {
            restart && point.objective < best.value - 1e-9 * best.value.abs() && base.deviance(point) < -1e-6
        }) {
            let settled = minimise(problem, &deeper.theta);
            if settled.value < best.value {
                return Err(settled);
            }
        }
        profile.curve.extend(points.iter().map(|point| (point.value, base.deviance(point).max(0.0))));
        *end = side;
    }
    profile.curve.sort_by(|a, b| a.0.total_cmp(&b.0));
    profile.low = ends[0].unwrap_or(f64::NEG_INFINITY);
    profile.high = ends[1].unwrap_or(f64::INFINITY);
    profile.identified = match ends {
        [Some(_), Some(_)] => Identified::Both,
        [Some(_), None] => Identified::Below,
        [None, Some(_)] => Identified::Above,
        [None, None] => Identified::Neither,
    };
    Ok(profile)
}

/// What a trace starts from.
struct Base<'a> {
    problem: &'a Problem<'a>,
    quantity: &'a dyn Quantity,
    best: &'a Minimum,
    value: f64,
    scale: f64,
    threshold: f64,
    /// Another start, where the optimum is at a bound.
    beside: Option<Vec<f64>>,
    /// Half-width of the interval if the profile were a parabola.
    width: f64,
}

/// A point of the profile.
#[derive(Clone)]
struct At {
    target: f64,
    value: f64,
    theta: Vec<f64>,
    /// Without the pull.
    objective: f64,
}

impl Base<'_> {
    fn deviance(&self, point: &At) -> f64 {
        self.scale * (point.objective - self.best.value)
    }

    /// The lowest objective where the quantity is drawn to `target`, searched from each of `from`.
    fn pull(&self, target: f64, stiffness: f64, from: &[&[f64]]) -> At {
        let pull = Pull { quantity: self.quantity, target, stiffness };
        let problem = Problem { pull: Some(pull), ..*self.problem };
        let found = from
            .iter()
            .copied()
            .chain(self.beside.as_deref())
            .map(|start| minimise(&problem, start))
            .min_by(|a, b| a.value.total_cmp(&b.value))
            .expect("there is a start");
        let value = self.quantity.at(&found.theta, &mut vec![0.0; found.theta.len()]);
        let objective = self.problem.value(&found.theta);
        At { target, value, theta: found.theta, objective }
    }

    /// Walks outward until the deviance is beyond the threshold, then closes in on it. `None`: it never is.
    fn side(&self, direction: f64, points: &mut Vec<At>) -> Option<f64> {
        let mut stiffness = STIFFNESS * 2.0 * self.threshold / (self.scale * self.width * self.width);
        let mut step = 0.25 * self.width;
        let mut inside =
            At { target: self.value, value: self.value, theta: self.best.theta.clone(), objective: self.best.value };
        let mut before: Option<At> = None;
        for _ in 0..STEPS_MAX {
            let target = inside.value + direction * step;
            // Where the last two points lead to, besides where the last one is.
            let ahead: Vec<f64> = match &before {
                Some(before) if before.value.total_cmp(&inside.value).is_ne() => {
                    let share = (target - inside.value) / (inside.value - before.value);
                    inside.theta.iter().zip(&before.theta).map(|(a, b)| a + share * (a - b)).collect()
                }
                _ => inside.theta.clone(),
            };
            let point = self.pull(target, stiffness, &[&inside.theta, &ahead]);
            if !(point.objective.is_finite() && point.value.is_finite()) {
                return None;
            }
            points.push(point.clone());
            if self.deviance(&point) >= self.threshold {
                return Some(self.close_in(inside, point, stiffness, points));
            }
            let moved = (point.value - inside.value) * direction;
            if moved < 0.5 * step {
                stiffness *= 10.0;
            }
            let gone = (point.value - self.value) * direction;
            let far = FAR * self.value.abs().max(1.0);
            if gone > far && gone > FAR_WIDTHS * self.width || gone > 1e3 * far {
                return None;
            }
            step *= GROWTH;
            if moved > 0.0 {
                before = Some(std::mem::replace(&mut inside, point));
            }
        }
        None
    }

    /// Where the root of the deviance meets that of the threshold between two points, one on either side of it: regula
    /// falsi (Illinois), the root being nearly straight.
    fn close_in(&self, mut inside: At, mut outside: At, stiffness: f64, points: &mut Vec<At>) -> f64 {
        let wanted = self.threshold.sqrt();
        let off = |point: &At| self.deviance(point).max(0.0).sqrt() - wanted;
        let (mut low, mut high) = (off(&inside), off(&outside));
        let mut last_side = 0;
        for _ in 0..60 {
            let (a, b) = (inside.target, outside.target);
            let share = (low / (low - high)).clamp(0.01, 0.99);
            let target = a + share * (b - a);
            let point = self.pull(target, stiffness, &[&inside.theta, &outside.theta]);
            if !(point.objective.is_finite() && point.value.is_finite()) {
                break;
            }
            points.push(point.clone());
            let here = off(&point);
            if here.abs() <= 1e-10 * wanted || (b - a).abs() <= 1e-12 * (self.width + a.abs()) {
                return point.value;
            }
            if here < 0.0 {
                (inside, low) = (point, here);
                if last_side == -1 {
                    high *= 0.5;
                }
                last_side = -1;
            } else {
                (outside, high) = (point, here);
                if last_side == 1 {
                    low *= 0.5;
                }
                last_side = 1;
            }
        }
        outside.value
    }
}

/// Jobs with any weight.
fn jobs(problem: &Problem<'_>) -> usize {
    let mut jobs: Vec<usize> = problem
        .weights
        .iter()
        .zip(&problem.sample.jobs)
        .filter(|(weight, _)| **weight > 0.0)
        .map(|(_, job)| *job)
        .collect();
    jobs.sort_unstable();
    jobs.dedup();
    jobs.len()
}

/// `2 a / b`: what a difference of the objective is multiplied by. `None` where the residuals are zero.
fn scale(problem: &Problem<'_>, theta: &[f64], degrees: usize, free: usize) -> Option<f64> {
    let Problem { sample, objective, .. } = problem;
    let mut rows = Vec::with_capacity(sample.len());
    for (row, &weight) in problem.weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        let fitted = objective.space.at(problem.law.ln_at(theta, &sample.inputs[row])).0;
        let target = objective.space.at(sample.ln_y[row]).0;
        rows.push((weight, fitted - target, target));
    }
    let size = rows.iter().map(|row| row.2.abs()).fold(0.0, f64::max);
    if rows.iter().all(|row| row.1.abs() <= 1e-12 * size) {
        return None;
    }
    let jobs = (degrees + free) as f64;
    // A sum, as the objective is one: rows that repeat each other, and weights of any scale, cancel.
    let b = rows.iter().map(|(weight, r, _)| weight * objective.loss.at(*r).1.powi(2)).sum::<f64>() / degrees as f64;
    let a = match objective.loss {
        Loss::Squares => 2.0,
        loss => {
            // Mean slope of psi over a window about each residual: for |r| the density at zero by a box kernel. The fit
            // passes through about as many rows as it has parameters; their zeros are no sample of the density.
            let mut sizes: Vec<f64> = rows.iter().map(|row| row.1.abs()).collect();
            sizes.sort_by(f64::total_cmp);
            let spread = 1.4826 * sizes[usize::midpoint(sizes.len(), free.min(sizes.len() - 1))];
            let window = (1.06 * spread * jobs.powf(-0.2)).max(f64::MIN_POSITIVE);
            let kept: Vec<&(f64, f64, f64)> = match loss {
                Loss::Absolute => {
                    let least = sizes[free.min(sizes.len() - 1)];
                    rows.iter().filter(|row| row.1.abs() >= least).collect()
                }
                _ => rows.iter().collect(),
            };
            let sum: f64 = kept.iter().map(|row| row.0).sum();
            kept.iter()
                .map(|(weight, r, _)| weight * (loss.at(r + window).1 - loss.at(r - window).1) / (2.0 * window))
                .sum::<f64>()
                / sum
        }
    };
    let scale = 2.0 * a / b;
    (scale.is_finite() && scale > 0.0).then_some(scale)
}

/// Half-width of the interval were the objective a parabola: `sqrt(2 rise g' H^-1 g)`; `unit` where there is none.
fn width(problem: &Problem<'_>, theta: &[f64], gradient: &[f64], rise: f64, unit: f64) -> f64 {
    let k = theta.len();
    let (mut slope, mut hessian) = (vec![0.0; k], vec![0.0; k * k]);
    problem.hessian(theta, &mut slope, &mut hessian);
    let mut right = gradient.to_vec();
    for i in 0..k {
        if problem.is_frozen(i) {
            hessian[i * k + i] = 1.0;
            right[i] = 0.0;
        }
    }
    cholesky_solve(&hessian, &right)
        .map(|solved| (2.0 * rise * solved.iter().zip(&right).map(|(a, b)| a * b).sum::<f64>()).sqrt())
        .filter(|width| width.is_finite() && *width > 0.0)
        .map_or(unit, |width| width.min(10.0 * unit))
}
