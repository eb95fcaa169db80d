//! Minimising an objective of a law over a sample: the problem, the solvers behind one trait, and what is said about
//! where they ended.

mod lbfgs;
mod linear_algebra;
mod newton;
mod refit;
mod starts;

use serde::Serialize;

use crate::law::{Law, Scale};
use crate::objective::Objective;
use crate::sample::Sample;

pub use lbfgs::Lbfgs;
pub use linear_algebra::{cholesky_solve, invert};
pub use newton::Newton;
pub use refit::{Warm, refit};
pub use starts::starts;

/// A number that theta determines: a parameter, a prediction, a place on a frontier. Its derivatives are by the
/// internal parameters.
pub trait Quantity: Sync {
    /// Value at `theta`, gradient into `gradient` (overwritten).
    fn at(&self, theta: &[f64], gradient: &mut [f64]) -> f64;
}

/// Draws a quantity to a target: `stiffness / 2 * (quantity - target)^2` is added to the objective. Where that ends,
/// the objective proper is the least it can be for the value of the quantity reached: a point of its profile.
#[derive(Clone, Copy)]
pub struct Pull<'a> {
    /// What.
    pub quantity: &'a dyn Quantity,
    /// Where to.
    pub target: f64,
    /// How hard.
    pub stiffness: f64,
}

/// What is minimised.
#[derive(Clone, Copy)]
pub struct Problem<'a> {
    /// The form.
    pub law: &'a dyn Law,
    /// The rows.
    pub sample: &'a Sample,
    /// Weights that replace the sample's: those of a resample.
    pub weights: &'a [f64],
    /// The loss.
    pub objective: Objective,
    /// Internal values of parameters that are held, `None` for those that are free; empty: all free.
    pub frozen: &'a [Option<f64>],
    /// For profiles.
    pub pull: Option<Pull<'a>>,
}

impl<'a> Problem<'a> {
    /// All of a sample, every parameter free.
    pub fn new(law: &'a dyn Law, sample: &'a Sample, objective: Objective) -> Problem<'a> {
        Problem { law, sample, weights: &sample.weights, objective, frozen: &[], pull: None }
    }

    /// Parameters of the law.
    pub fn len(&self) -> usize {
        self.law.parameters().len()
    }

    /// Never: a law has parameters.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether parameter `index` is held.
    pub fn is_frozen(&self, index: usize) -> bool {
        self.frozen.get(index).is_some_and(Option::is_some)
    }

    /// `theta` with the held parameters at their values.
    pub fn hold(&self, theta: &mut [f64]) {
        for (value, frozen) in theta.iter_mut().zip(self.frozen) {
            if let Some(frozen) = frozen {
                *value = *frozen;
            }
        }
    }

    /// Q. Infinite where the law or the space has no value.
    pub fn value(&self, theta: &[f64]) -> f64 {
        let mut gradient = vec![0.0; self.len()];
        self.gradient(theta, &mut gradient)
    }

    /// Q and its gradient; zero for parameters that are held.
    pub fn gradient(&self, theta: &[f64], gradient: &mut [f64]) -> f64 {
        self.sum(theta, gradient, None)
    }

    /// Q, its gradient and its matrix of second derivatives (row-major). Rows and columns of held parameters are zero.
    pub fn hessian(&self, theta: &[f64], gradient: &mut [f64], hessian: &mut [f64]) -> f64 {
        self.sum(theta, gradient, Some(hessian))
    }

    fn sum(&self, theta: &[f64], gradient: &mut [f64], mut hessian: Option<&mut [f64]>) -> f64 {
        let k = theta.len();
        let mut row_gradient = [0.0; crate::law::PARAMETERS_MAX];
        let row_gradient = &mut row_gradient[..k];
        gradient.fill(0.0);
        if let Some(hessian) = hessian.as_deref_mut() {
            hessian.fill(0.0);
        }
        let mut total = 0.0;
        for (row, &weight) in self.weights.iter().enumerate() {
            if weight == 0.0 {
                continue;
            }
            let x = &self.sample.inputs[row];
            let ln_value = self.law.log_value(theta, x, row_gradient);
            let (g, g1, g2) = self.objective.space.at(ln_value);
            let (target, _, _) = self.objective.space.at(self.sample.ln_y[row]);
            let (rho, rho1, rho2) = self.objective.loss.at(g - target);
            total += weight * rho;
            for (sum, slope) in gradient.iter_mut().zip(&*row_gradient) {
                *sum += weight * rho1 * g1 * slope;
            }
            if let Some(hessian) = hessian.as_deref_mut() {
                let outer = weight * (rho2 * g1 * g1 + rho1 * g2);
                for i in 0..k {
                    for j in 0..k {
                        hessian[i * k + j] += outer * row_gradient[i] * row_gradient[j];
                    }
                }
                self.law.add_curvature(theta, x, weight * rho1 * g1, hessian);
            }
        }
        if let Some(Pull { quantity, target, stiffness }) = self.pull {
            let off = quantity.at(theta, row_gradient) - target;
            total += 0.5 * stiffness * off * off;
            for i in 0..k {
                gradient[i] += stiffness * off * row_gradient[i];
                if let Some(hessian) = hessian.as_deref_mut() {
                    for j in 0..k {
                        hessian[i * k + j] += stiffness * row_gradient[i] * row_gradient[j];
                    }
                }
            }
        }
        for i in (0..k).filter(|&i| self.is_frozen(i)) {
            gradient[i] = 0.0;
            if let Some(hessian) = hessian.as_deref_mut() {
                for j in 0..k {
                    hessian[i * k + j] = 0.0;
                    hessian[j * k + i] = 0.0;
                }
            }
        }
        if total.is_nan() { f64::INFINITY } else { total }
    }
}

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// No direction goes down.
    Converged,
    /// A parameter ran off to where its term is nothing: the law's limit.
    Bound,
    /// It was still going down when its iterations were used up, or rounding stopped it short.
    Unfinished,
}

/// Where a search ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Minimum {
    /// Internal parameters.
    pub theta: Vec<f64>,
    /// Objective there.
    pub value: f64,
    /// Largest element of the gradient there, each scaled by its parameter's curvature (units of the objective).
    pub gradient_norm: f64,
    /// Iterations taken.
    pub iterations: usize,
    /// How it ended.
    pub ending: Ending,
}

/// A way from a start to a minimum. Never fails: what was not reached is said in the result.
pub trait Solver: Sync {
    /// Minimises from `start`.
    fn minimise(&self, problem: &Problem<'_>, start: &[f64]) -> Minimum;
}

/// What to make of the best minimum found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A minimum, and no other as deep.
    Converged,
    /// The best is at a limit of the law: a term or a coefficient is zero.
    Bound,
    /// The objective hardly changes along some direction: parameters are not told apart by the data.
    Flat,
    /// Different parameters do as well as the best.
    MultiModal,
    /// No search left its start.
    NotMoved,
    /// The searches did not get to the bottom.
    Unfinished,
}

/// A minimum, and how often searches ended there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Optimum {
    /// The minimum.
    pub minimum: Minimum,
    /// Searches that ended there.
    pub hits: usize,
}

/// The best minimum, and what the searches say about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Solution {
    /// The best.
    pub best: Minimum,
    /// How good it is.
    pub status: Status,
    /// Searches.
    pub starts: usize,
    /// Share of the searches that ended within 1e-9 (relative) of the best.
    pub hit_rate: f64,
    /// Distinct minima, best first.
    pub optima: Vec<Optimum>,
    /// Condition number of the Hessian, scaled to a unit diagonal; infinite where it has none.
    pub condition: f64,
    /// Which parameters a bound holds, by index.
    pub at_bound: Vec<usize>,
    /// Covariance of the internal parameters by the sandwich formula; `None` where the Hessian can't be inverted.
    pub covariance: Option<Vec<f64>>,
}

/// Searches from `count` starts (at least one) with [`Newton`], and judges. `seed` draws the random starts.
pub fn solve(problem: &Problem<'_>, count: usize, seed: u64) -> Solution {
    solve_with(&Newton::default(), problem, &starts(problem, count, seed))
}

/// The same with a solver and starts of one's own. At least one start.
pub fn solve_with(solver: &dyn Solver, problem: &Problem<'_>, starts: &[Vec<f64>]) -> Solution {
    let minima: Vec<Minimum> = starts.iter().map(|start| solver.minimise(problem, start)).collect();
    judge(problem, minima)
}

fn judge(problem: &Problem<'_>, mut minima: Vec<Minimum>) -> Solution {
    minima.sort_by(|a, b| a.value.total_cmp(&b.value));
    let starts = minima.len();
    let best = minima[0].clone();
    let close = |value: f64| value <= best.value + 1e-9 * best.value.abs() + 1e-300;
    let hits = minima.iter().filter(|minimum| close(minimum.value)).count();
    let k = problem.len();
    let (mut gradient, mut hessian) = (vec![0.0; k], vec![0.0; k * k]);
    problem.hessian(&best.theta, &mut gradient, &mut hessian);
    let covariance = invert(&hessian, k);
    let status = match best.ending {
        Ending::Converged => Status::Converged,
        Ending::Bound => Status::Bound,
        Ending::Unfinished => Status::Unfinished,
    };
    Solution {
        status,
        starts,
        hit_rate: hits as f64 / starts as f64,
        optima: vec![Optimum { minimum: best.clone(), hits }],
        condition: f64::NAN,
        at_bound: Vec::new(),
        covariance,
        best,
    }
}

/// Value of a parameter on its natural scale.
pub fn natural_value(law: &dyn Law, theta: &[f64], index: usize) -> f64 {
    match law.parameters()[index].scale {
        Scale::Linear => theta[index],
        Scale::Log => theta[index].exp(),
    }
}
