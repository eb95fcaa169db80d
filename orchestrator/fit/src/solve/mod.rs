//! Minimising an objective of a law over a sample: the problem, the solvers behind one trait, and what is said about
//! where they ended.

mod absolute;
mod bulk;
mod descent;
mod frame;
mod judge;
mod linear_algebra;
mod method;
mod newton;
mod problem;
mod projection;
mod reference;
mod starts;

use rayon::prelude::*;
use serde::Serialize;

use crate::law::{Law, Scale};

pub use judge::{Optimum, Solution, Status};

pub(crate) use linear_algebra::non_negative;
pub use linear_algebra::{cholesky_solve, invert};
pub use method::{Method, SolverKind, Step, Watch};
pub use newton::Newton;
pub use problem::{Problem, Pull, Quantity};
pub use reference::{Lbfgs, TrustRegion};
pub use starts::starts;

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
    /// It was still going down when its time was used up.
    TimeLimit,
}

impl Ending {
    /// Whether it came to where nothing goes down.
    pub fn is_minimum(self) -> bool {
        matches!(self, Ending::Converged | Ending::Bound)
    }
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
    /// Parameters that ran off to where they do nothing, by index; not empty exactly where `ending` is a bound.
    pub at_bound: Vec<usize>,
}

/// A way from a start to a minimum. Never fails: what was not reached is said in the result.
pub trait Solver: Sync {
    /// Minimises from `start`.
    fn minimise(&self, problem: &Problem<'_>, start: &[f64]) -> Minimum;

    /// Minimises from `best`, the minimum of a problem that differs little: a resample, or the next place of a profile.
    fn refit(&self, problem: &Problem<'_>, best: &[f64]) -> Minimum {
        self.minimise(problem, best)
    }
}

/// Searches from `count` starts (at least one) by the problem's method, and judges. `seed` draws the random starts.
pub fn solve(problem: &Problem<'_>, count: usize, seed: u64) -> Solution {
    solve_with(problem.method.solver.solver(), problem, &starts(problem, count, seed))
}

/// The same with a solver and starts of one's own. At least one start.
pub fn solve_with(solver: &dyn Solver, problem: &Problem<'_>, starts: &[Vec<f64>]) -> Solution {
    let minima: Vec<Minimum> = starts.par_iter().map(|start| solver.minimise(problem, start)).collect();
    judge::judge(problem, starts, minima)
}

/// Minimises from `start` by the problem's method.
pub fn minimise(problem: &Problem<'_>, start: &[f64]) -> Minimum {
    problem.method.solver.solver().minimise(problem, start)
}

/// The same from the minimum of a problem that differs little ([`Solver::refit`]).
pub fn refit(problem: &Problem<'_>, best: &[f64]) -> Minimum {
    problem.method.solver.solver().refit(problem, best)
}

/// Value of a parameter on its natural scale.
pub fn natural_value(law: &dyn Law, theta: &[f64], index: usize) -> f64 {
    match law.parameters()[index].scale {
        Scale::Linear => theta[index],
        Scale::Log => theta[index].exp(),
    }
}
