//! Our own solver for three to nine parameters: Newton steps on the exact Hessian where it is positive definite, damped
//! (Levenberg 1944, Marquardt 1963) where it is not.

use super::{Ending, Minimum, Problem, Solver, cholesky_solve};

/// Damped Newton.
#[derive(Debug, Clone, Copy)]
pub struct Newton {
    /// Iterations after which it gives up.
    pub iterations_max: usize,
}

impl Default for Newton {
    fn default() -> Newton {
        Newton { iterations_max: 300 }
    }
}

impl Solver for Newton {
    fn minimise(&self, problem: &Problem<'_>, start: &[f64]) -> Minimum {
        let k = problem.len();
        let mut theta = start.to_vec();
        problem.hold(&mut theta);
        let (mut gradient, mut hessian) = (vec![0.0; k], vec![0.0; k * k]);
        let mut damping = 1e-3;
        let mut ending = Ending::Unfinished;
        let mut value = problem.hessian(&theta, &mut gradient, &mut hessian);
        let mut iterations = 0;
        while iterations < self.iterations_max && value.is_finite() {
            iterations += 1;
            let mut moved = false;
            for _ in 0..40 {
                let mut damped = hessian.clone();
                for i in 0..k {
                    let own = damped[i * k + i];
                    damped[i * k + i] =
                        own + damping * (own.abs() + 1e-12 * value.max(1e-300)) + f64::from(problem.is_frozen(i));
                }
                if let Some(step) = cholesky_solve(&damped, &gradient) {
                    let trial: Vec<f64> = theta.iter().zip(&step).map(|(theta, step)| theta - step).collect();
                    let expected: f64 = step.iter().zip(&gradient).map(|(step, slope)| 0.5 * step * slope).sum();
                    if expected <= 1e-15 * value.abs() + 1e-300 {
                        ending = Ending::Converged;
                        break;
                    }
                    let lower = problem.value(&trial);
                    if lower < value {
                        theta = trial;
                        value = problem.hessian(&theta, &mut gradient, &mut hessian);
                        damping = (damping * 0.1).max(1e-15);
                        moved = true;
                        break;
                    }
                }
                damping *= 8.0;
                if damping > 1e20 {
                    break;
                }
            }
            if !moved {
                break;
            }
        }
        let gradient_norm = (0..k)
            .filter(|&i| hessian[i * k + i] > 0.0)
            .map(|i| gradient[i].powi(2) / hessian[i * k + i])
            .fold(0.0, f64::max);
        if gradient_norm <= 1e-10 * value.abs() {
            ending = Ending::Converged;
        }
        Minimum { theta, value, gradient_norm, iterations, ending }
    }
}
