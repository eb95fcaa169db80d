//! What is minimised: `Q(theta) = sum_i w_i rho(g(yhat_i) - g(y_i))`, with parameters held or a quantity drawn to a
//! target.

use super::Method;
use crate::law::{Law, PARAMETERS_MAX};
use crate::objective::Objective;
use crate::sample::Sample;

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
    /// How it is minimised.
    pub method: &'a Method,
}

impl<'a> Problem<'a> {
    /// All of a sample, every parameter free, by the usual method.
    pub fn new(law: &'a dyn Law, sample: &'a Sample, objective: Objective) -> Problem<'a> {
        Problem { law, sample, weights: &sample.weights, objective, frozen: &[], pull: None, method: Method::USUAL }
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
        let mut gradient = [0.0; PARAMETERS_MAX];
        self.gradient(theta, &mut gradient[..theta.len()])
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
        let mut row_gradient = [0.0; PARAMETERS_MAX];
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
