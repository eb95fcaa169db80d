//! The one door to argmin: L-BFGS with a Moré-Thuente line search, the reference that [`Newton`](super::Newton) must
//! agree with.

use std::cell::RefCell;

use argmin::core::{CostFunction, Error, Executor, Gradient, State};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;

use super::{Ending, Minimum, Problem, Solver};

/// Steps after which the search gives up.
const ITERATIONS_MAX: u64 = 2000;
/// Gradients whose norm is below this share of the objective are zero.
const GRADIENT_TOLERANCE: f64 = 1e-12;

/// argmin's L-BFGS.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lbfgs;

/// An objective as argmin wants it, with the best point met: an error of the line search near machine precision loses
/// argmin's own.
struct Recorded<'a> {
    problem: &'a Problem<'a>,
    best: &'a RefCell<Best>,
}

/// The lowest point met; of points as low as rounding can tell, the flattest.
struct Best {
    theta: Vec<f64>,
    value: f64,
    gradient_norm: f64,
}

impl Best {
    fn at(problem: &Problem<'_>, theta: &[f64]) -> (Best, Vec<f64>) {
        let mut gradient = vec![0.0; theta.len()];
        let value = problem.gradient(theta, &mut gradient);
        let gradient_norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        (Best { theta: theta.to_vec(), value, gradient_norm }, gradient)
    }

    fn is_beaten_by(&self, other: &Best) -> bool {
        let rounding = 1e-13 * self.value.abs();
        other.value < self.value - rounding
            || (other.value <= self.value + rounding && other.gradient_norm < self.gradient_norm)
    }
}

impl CostFunction for Recorded<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, theta: &Vec<f64>) -> Result<f64, Error> {
        Ok(self.problem.value(theta))
    }
}

impl Gradient for Recorded<'_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, theta: &Vec<f64>) -> Result<Vec<f64>, Error> {
        let (here, gradient) = Best::at(self.problem, theta);
        if self.best.borrow().is_beaten_by(&here) {
            self.best.replace(here);
        }
        Ok(gradient)
    }
}

impl Solver for Lbfgs {
    fn minimise(&self, problem: &Problem<'_>, start: &[f64]) -> Minimum {
        let mut start = start.to_vec();
        problem.hold(&mut start);
        let (first, _) = Best::at(problem, &start);
        let enough = GRADIENT_TOLERANCE * first.value.abs().max(f64::MIN_POSITIVE);
        let best = RefCell::new(first);
        let solver = LBFGS::new(MoreThuenteLineSearch::new(), 10)
            .with_tolerance_grad(enough)
            .and_then(|solver| solver.with_tolerance_cost(0.0))
            .expect("the tolerances are allowed");
        let run = Executor::new(Recorded { problem, best: &best }, solver)
            .configure(|state| state.param(start).max_iters(ITERATIONS_MAX))
            .timer(false)
            .run();
        let iterations = run.map_or(0, |result| result.state().get_iter());
        let Best { theta, value, gradient_norm } = best.into_inner();
        let ending = if gradient_norm <= 1e-7 * value.abs() { Ending::Converged } else { Ending::Unfinished };
        Minimum { theta, value, gradient_norm, iterations: iterations as usize, ending }
    }
}
