//! The one door to argmin: L-BFGS with a Moré-Thuente line search.

use std::cell::RefCell;

use argmin::core::{CostFunction, Error, Executor, Gradient, State};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use serde::Serialize;

/// Steps after which the search gives up. A scaled least-squares problem of few parameters takes about ten.
const ITERATIONS_MAX: u64 = 200;
/// Gradients whose norm is below this are zero; objectives are scaled so that their parameters are of order 1.
const GRADIENT_TOLERANCE: f64 = 1e-11;
/// What still counts as a minimum if rounding stops the line search first.
const GRADIENT_ACCEPTED: f64 = 1e-8;

/// A smooth function with a lower bound: the line search has no limit of its own and would follow an endless slope for
/// ever.
pub trait Objective {
    /// Value at `theta`.
    fn value(&self, theta: &[f64]) -> f64;
    /// Gradient at `theta`, as long as `theta`.
    fn gradient(&self, theta: &[f64]) -> Vec<f64>;
}

/// Where a search ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Minimum {
    /// Parameters.
    pub theta: Vec<f64>,
    /// Objective there.
    pub value: f64,
    /// Norm of the gradient there.
    pub gradient_norm: f64,
    /// Iterations taken; 0 where the start was the minimum or the line search gave up.
    pub iterations: u64,
    /// Whether the gradient vanishes.
    pub converged: bool,
}

/// An objective as argmin wants it, with the best point met: an error of the line search near machine precision loses
/// argmin's own.
struct Recorded<'a> {
    objective: &'a dyn Objective,
    best: &'a RefCell<Best>,
}

/// The lowest point met; of points as low as rounding can tell, the flattest.
struct Best {
    theta: Vec<f64>,
    value: f64,
    gradient_norm: f64,
}

impl Best {
    fn at(objective: &dyn Objective, theta: &[f64]) -> Best {
        let gradient = objective.gradient(theta);
        Best { theta: theta.to_vec(), value: objective.value(theta), gradient_norm: norm(&gradient) }
    }

    fn is_beaten_by(&self, other: &Best) -> bool {
        let rounding = 1e-12 * self.value.abs();
        other.value < self.value - rounding
            || (other.value <= self.value + rounding && other.gradient_norm < self.gradient_norm)
    }
}

impl CostFunction for Recorded<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, theta: &Vec<f64>) -> Result<f64, Error> {
        Ok(self.objective.value(theta))
    }
}

impl Gradient for Recorded<'_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, theta: &Vec<f64>) -> Result<Vec<f64>, Error> {
        let here = Best::at(self.objective, theta);
        if self.best.borrow().is_beaten_by(&here) {
            self.best.replace(here);
        }
        Ok(self.objective.gradient(theta))
    }
}

/// Minimises `objective` from `start`. Never fails: what was not reached is said in the result.
pub fn minimise(objective: &dyn Objective, start: &[f64]) -> Minimum {
    let best = RefCell::new(Best::at(objective, start));
    let solver = LBFGS::new(MoreThuenteLineSearch::new(), 7)
        .with_tolerance_grad(GRADIENT_TOLERANCE)
        .and_then(|solver| solver.with_tolerance_cost(0.0))
        .expect("the tolerances are allowed");
    let mut iterations = 0;
    if best.borrow().gradient_norm > GRADIENT_TOLERANCE {
        let run = Executor::new(Recorded { objective, best: &best }, solver)
            .configure(|state| state.param(start.to_vec()).max_iters(ITERATIONS_MAX))
            .timer(false)
            .run();
        if let Ok(result) = run {
            iterations = result.state().get_iter();
        }
    }
    let Best { theta, value, gradient_norm } = best.into_inner();
    Minimum { theta, value, gradient_norm, iterations, converged: gradient_norm <= GRADIENT_ACCEPTED }
}

fn norm(gradient: &[f64]) -> f64 {
    gradient.iter().map(|g| g * g).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rosenbrock's valley, minimum 0 at (1, 1).
    struct Valley;

    impl Objective for Valley {
        fn value(&self, theta: &[f64]) -> f64 {
            (1.0 - theta[0]).powi(2) + 100.0 * (theta[1] - theta[0].powi(2)).powi(2)
        }

        fn gradient(&self, theta: &[f64]) -> Vec<f64> {
            let bend = theta[1] - theta[0].powi(2);
            vec![-2.0 * (1.0 - theta[0]) - 400.0 * theta[0] * bend, 200.0 * bend]
        }
    }

    #[test]
    fn finds_the_bottom_of_a_valley() {
        let minimum = minimise(&Valley, &[-1.2, 1.0]);
        assert!(minimum.converged, "{minimum:?}");
        assert!((minimum.theta[0] - 1.0).abs() < 1e-8 && (minimum.theta[1] - 1.0).abs() < 1e-8, "{minimum:?}");
    }
}
