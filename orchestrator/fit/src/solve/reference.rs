//! argmin's own solvers: L-BFGS with a Moré-Thuente line search, and a trust region with Steihaug's conjugate
//! gradients. [`Newton`](super::Newton) must agree with them.
//!
//! Both stop by absolute tolerances, so they are given the objective as a share of its value at the start, in the
//! coordinates of [`Frame`], each scaled to a unit diagonal of the reweighted matrix; and they are started anew, with
//! new scales, until that gains nothing.

use std::cell::RefCell;

use argmin::core::{CostFunction, Error, Gradient, Hessian, OptimizationResult, State, TerminationReason};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use argmin::solver::trustregion::{Steihaug, TrustRegion as ArgminTrustRegion};

use super::frame::{Frame, Local, Vector};
use super::{Ending, Minimum, Problem, Solver};

/// Steps after which a run gives up.
const ITERATIONS_MAX: u64 = 500;
/// Runs at most.
const RUNS_MAX: usize = 20;
/// The share of the objective that a run must gain to be followed by another.
const GAIN_MIN: f64 = 1e-15;
/// The gradient is zero where a parameter's own Newton step promises less than this share of the objective.
const PROMISE_MIN: f64 = 1e-16;

/// argmin's L-BFGS.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lbfgs;

/// argmin's trust region, on the exact Hessian.
#[derive(Debug, Clone, Copy, Default)]
pub struct TrustRegion;

impl Solver for Lbfgs {
    fn minimise(&self, problem: &Problem<'_>, start: &[f64]) -> Minimum {
        in_runs(problem, start, |scaled, from| {
            let solver = LBFGS::new(MoreThuenteLineSearch::new(), 10)
                .with_tolerance_grad(1e-12)
                .and_then(|solver| solver.with_tolerance_cost(0.0))
                .expect("the tolerances are allowed");
            let run = problem.method.executor(scaled, solver);
            ended(run.configure(|state| state.param(from).max_iters(ITERATIONS_MAX)).run())
        })
    }
}

impl Solver for TrustRegion {
    fn minimise(&self, problem: &Problem<'_>, start: &[f64]) -> Minimum {
        in_runs(problem, start, |scaled, from| {
            let run = problem.method.executor(scaled, ArgminTrustRegion::new(Steihaug::new()));
            ended(run.configure(|state| state.param(from).max_iters(ITERATIONS_MAX / 5)).run())
        })
    }
}

/// Iterations of a run, and whether its time ran out. Runs that rounding stops end in an error.
fn ended<O, S, I: State>(run: Result<OptimizationResult<O, S, I>, Error>) -> (u64, bool) {
    run.map_or((0, false), |result| {
        let state = result.state();
        (state.get_iter(), state.get_termination_reason() == Some(&TerminationReason::Timeout))
    })
}

/// An objective as argmin wants it, with the best point met: an error near machine precision loses argmin's own.
struct Scaled<'a> {
    frame: &'a Frame<'a>,
    origin: Vector,
    /// Parameters that move, and what a unit of each is.
    units: Vec<(usize, f64)>,
    value: f64,
    best: &'a RefCell<Best>,
}

/// The lowest point met; of points as low as rounding can tell, the flattest.
struct Best {
    phi: Vector,
    local: Local,
    gradient_norm: f64,
}

impl Best {
    fn at(frame: &Frame<'_>, phi: Vector) -> Best {
        let local = frame.at(&phi, frame.problem.objective.loss);
        let gradient_norm = (0..frame.k)
            .filter(|&i| local.majorant[i * frame.k + i] > 0.0)
            .map(|i| local.gradient[i].powi(2) / local.majorant[i * frame.k + i])
            .fold(0.0, f64::max);
        Best { phi, local, gradient_norm }
    }

    fn is_beaten_by(&self, other: &Best) -> bool {
        let rounding = 1e-13 * self.local.value.abs();
        other.local.value < self.local.value - rounding
            || (other.local.value <= self.local.value + rounding && other.gradient_norm < self.gradient_norm)
    }
}

impl Scaled<'_> {
    fn meet(&self, z: &[f64]) -> Local {
        let mut phi = self.origin;
        for (&(i, unit), z) in self.units.iter().zip(z) {
            phi[i] += unit * z;
        }
        let here = Best::at(self.frame, phi);
        let local = here.local.clone();
        if self.best.borrow().is_beaten_by(&here) {
            self.best.replace(here);
        }
        local
    }
}

impl CostFunction for Scaled<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, z: &Vec<f64>) -> Result<f64, Error> {
        Ok(self.meet(z).value / self.value)
    }
}

impl Gradient for Scaled<'_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, z: &Vec<f64>) -> Result<Vec<f64>, Error> {
        let local = self.meet(z);
        Ok(self.units.iter().map(|&(i, unit)| unit * local.gradient[i] / self.value).collect())
    }
}

impl Hessian for Scaled<'_> {
    type Param = Vec<f64>;
    type Hessian = Vec<Vec<f64>>;

    fn hessian(&self, z: &Vec<f64>) -> Result<Vec<Vec<f64>>, Error> {
        let local = self.meet(z);
        let k = self.frame.k;
        let row = |&(i, unit): &(usize, f64)| {
            self.units.iter().map(|&(j, other)| unit * other * local.newton[i * k + j] / self.value).collect()
        };
        Ok(self.units.iter().map(row).collect())
    }
}

fn in_runs(problem: &Problem<'_>, start: &[f64], run: impl Fn(Scaled<'_>, Vec<f64>) -> (u64, bool)) -> Minimum {
    let frame = Frame::new(problem);
    let k = frame.k;
    let best = RefCell::new(Best::at(&frame, frame.enter(start)));
    let (mut iterations, mut out_of_time) = (0, false);
    for _ in 0..RUNS_MAX {
        let (origin, local) = (best.borrow().phi, best.borrow().local.clone());
        let units: Vec<(usize, f64)> = (0..k)
            .filter(|&i| local.majorant[i * k + i] > 0.0)
            .map(|i| (i, (local.value / local.majorant[i * k + i]).sqrt()))
            .collect();
        if !local.value.is_finite() || local.value <= 0.0 || units.iter().any(|(_, unit)| !unit.is_finite()) {
            break;
        }
        let from = vec![0.0; units.len()];
        if from.is_empty() {
            break;
        }
        let (taken, late) = run(Scaled { frame: &frame, origin, units, value: local.value, best: &best }, from);
        iterations += taken;
        out_of_time = late;
        if late || local.value - best.borrow().local.value <= GAIN_MIN * local.value {
            break;
        }
    }
    let Best { phi, local, gradient_norm } = best.into_inner();
    let converged = gradient_norm <= PROMISE_MIN * local.value && local.value.is_finite();
    problem.method.ended(Minimum {
        theta: frame.leave(&phi)[..k].to_vec(),
        value: local.value,
        gradient_norm,
        iterations: iterations as usize,
        ending: match (converged, out_of_time) {
            (true, _) => Ending::Converged,
            (false, true) => Ending::TimeLimit,
            (false, false) => Ending::Unfinished,
        },
        at_bound: Vec::new(),
    })
}
